"""The collector's loops between its ports and its rules."""

from vegamite_collector.service.collector import CollectorService

__all__ = ["CollectorService"]
