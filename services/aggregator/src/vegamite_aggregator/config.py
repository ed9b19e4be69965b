"""The aggregator's settings: the shared sections and `[aggregator]`."""

from pydantic import Field

from vegamite_common.runtime.config import ServiceSection, SharedSettings


class AggregatorSection(ServiceSection):
    """`[aggregator]`: how much one transaction takes, and how much stays in memory."""

    group: str = Field(default="vegamite-aggregator", min_length=1, max_length=200)
    """Kafka consumer group whose members share the partitions."""

    batch_max_records: int = Field(default=500, ge=1, le=10_000)
    """Most records of one poll, and so of one transaction."""

    batch_max_bytes: int = Field(default=1_000_000, ge=10_000)
    """Bytes of records that one transaction takes, or one record; other partitions wait while they are folded."""

    queue_max_bytes: int = Field(default=16_000_000, ge=1_000_000)
    """Bytes of one partition's records that may wait for its transaction; beyond it, they are left in the log for later."""

    resident_candles: int = Field(default=50_000, ge=0)
    """Most candles that stay in memory between transactions, some 1.5 KB each; the rest are read back when needed."""

    update_interval_ms: int = Field(default=250, ge=10)
    """Least time between two published in-progress states of one market and timeframe."""

    dead_letter_limit: int = Field(default=1000, ge=0, le=1_000_000)
    """Most records that a partition sets apart as dead letters within an hour; at the next one it stops, and waits."""

    tick_interval_ms: int = Field(default=500, ge=50)
    """How often a partition without records looks whether something has become final, or silent, by the clock."""


class AggregatorSettings(SharedSettings):
    """Everything the aggregator reads from the configuration."""

    aggregator: AggregatorSection = AggregatorSection()
