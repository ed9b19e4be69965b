"""The aggregator's loop between the bus, the core and the store."""

from vegamite_aggregator.service.aggregator import AggregatorService

__all__ = ["AggregatorService"]
