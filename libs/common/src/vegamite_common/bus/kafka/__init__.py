"""The bus over Apache Kafka."""

from vegamite_common.bus.kafka.bus import KafkaBus

__all__ = ["KafkaBus"]
