"""The aggregator's settings: the shared sections, `[aggregator]`, and `[influxdb]` for the role that writes there."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from vegamite_aggregator.core.point import BucketRole
from vegamite_aggregator.core.retention import Retention
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.config import Section, ServiceSection, SharedSettings

Days = Annotated[int, Field(ge=0, le=36_500)]


class RetentionSection(Section):
    """`[aggregator.retention]`: days that trades and candles are kept; 0 keeps for ever."""

    trades_days: Days = 0
    candles_1s_days: Days = 0
    candles_1m_days: Days = 0
    candles_3m_days: Days = 0
    candles_5m_days: Days = 0
    candles_15m_days: Days = 0
    candles_30m_days: Days = 0
    candles_1h_days: Days = 0
    candles_2h_days: Days = 0
    candles_4h_days: Days = 0
    candles_6h_days: Days = 0
    candles_8h_days: Days = 0
    candles_12h_days: Days = 0
    candles_1d_days: Days = 0
    candles_3d_days: Days = 0
    candles_1w_days: Days = 0
    candles_1mo_days: Days = 0

    @model_validator(mode="after")
    def _longer_is_kept_longer(self) -> Self:
        shorter, kept = "trades_days", self.trades_days
        for timeframe in Timeframe:
            name = _days_key(timeframe)
            days = self._days(timeframe)
            if days and (not kept or days < kept):
                raise ValueError(
                    f"{name} is {days}, but {shorter} is {kept or '0 (for ever)'}: what is shorter may not be kept longer"
                )
            shorter, kept = name, days
        return self

    def _days(self, timeframe: Timeframe) -> int:
        days: int = getattr(self, _days_key(timeframe))
        return days

    @property
    def retention(self) -> Retention:
        """What the section says, for the core."""
        return Retention(
            trades=self.trades_days,
            candles={each: days for each in Timeframe if (days := self._days(each))},
        )


def _days_key(timeframe: Timeframe) -> str:
    """Return the key of a timeframe; the month is spelt out, since variables of the environment fold case."""
    return f"candles_{'1mo' if timeframe is Timeframe.MO1 else timeframe.value}_days"


class ArchiveSection(Section):
    """`[aggregator.archive]`: where trades are written before they are dropped; nowhere, where nothing is said."""

    directory: Path | None = None


class MaintenanceSection(Section):
    """`[aggregator.maintenance]`: what a maintenance does besides expiring."""

    days_ahead: int = Field(default=7, ge=1, le=366)
    """Days for which time partitions are made before they are needed."""


class AggregatorSection(ServiceSection):
    """`[aggregator]`: how much one transaction takes, and how much stays in memory."""

    group: str = Field(default="vegamite-aggregator", min_length=1, max_length=200)
    """Kafka consumer group whose members share the partitions."""

    batch_max_records: int = Field(default=4_000, ge=1, le=10_000)
    """Most records of one poll, and so of one transaction."""

    batch_max_bytes: int = Field(default=4_000_000, ge=10_000)
    """Bytes of records that one transaction takes, or one record; other partitions wait while they are folded."""

    queue_max_bytes: int = Field(default=16_000_000, ge=1_000_000)
    """Bytes of one partition's records that may wait for its transaction; beyond it, they are left in the log for later."""

    resident_candles: int = Field(default=50_000, ge=0)
    """Most candles that stay in memory between transactions, some 1.5 KB each; the rest are read back when needed."""

    update_interval_ms: int = Field(default=250, ge=10)
    """Least time between two published in-progress states of one market and timeframe."""

    dead_letter_limit: int = Field(default=1000, ge=0, le=1_000_000)
    """Most records that a partition sets apart as dead letters within an hour; at the next one it stops, and waits."""

    unready_seconds: float = Field(default=10.0, ge=0, le=3600)
    """For so long a partition may fail to be written, read or published before the process isn't ready."""

    tick_interval_ms: int = Field(default=500, ge=50)
    """How often a partition without records looks whether something has become final, or silent, by the clock."""

    retention: RetentionSection = RetentionSection()
    archive: ArchiveSection = ArchiveSection()
    maintenance: MaintenanceSection = MaintenanceSection()


class InfluxSection(Section):
    """`[influxdb]`: where the role `influx` writes trades and candles, and how; without `url` there is no such place."""

    url: str | None = None
    """Address of a server with the write API of InfluxDB 2."""

    token: SecretStr | None = None
    """What the server knows us by; `user:password` for InfluxDB 1.8."""

    org: str = Field(default="vegamite", min_length=1)
    """Organisation that the buckets belong to; InfluxDB 1.8 has none and passes it over."""

    ssl_ca_file: Path | None = None
    """Certificates (PEM) of those who may sign the server's."""

    group: str = Field(default="vegamite-influx", min_length=1, max_length=190)
    """Begins the names of the Kafka consumer groups: `.trades`, `.candles` and `.status` follow."""

    read_revised: bool = False
    """Whether candles of which so many were revised that no topic has them are read from PostgreSQL."""

    manage_buckets: bool = True
    """Whether missing buckets are made, and retention is set, at the start."""

    bucket: str = Field(default="vegamite", pattern=r"^[^\x00-\x1f\"\\]+$", max_length=200)
    """Bucket of trades and of the shorter candles."""

    downsampled_bucket: str = Field(
        default="vegamite_downsampled", pattern=r"^[^\x00-\x1f\"\\]+$", max_length=200
    )
    """Bucket of the longer candles."""

    downsampled_from: Timeframe = Timeframe.H1
    """Shortest timeframe of the longer candles."""

    retention_days: int = Field(default=0, ge=0, le=36_500)
    """Days that `bucket` keeps points; 0 is for ever."""

    downsampled_retention_days: int = Field(default=0, ge=0, le=36_500)
    """Days that `downsampled_bucket` keeps points; 0 is for ever."""

    updates: bool = False
    """Whether candles in progress are written too."""

    read_back: bool = True
    """Whether the server is asked, in Flux, what it holds already."""

    batch_size: int = Field(default=5_000, ge=100, le=100_000)
    """Most points of one request."""

    flush_interval_ms: int = Field(default=100, ge=10, le=60_000)
    """How long a batch that isn't full waits for more."""

    timeout_ms: int = Field(default=10_000, ge=100, le=120_000)
    """How long one request may take."""

    retry_interval_ms: int = Field(default=500, ge=1, le=60_000)
    """Wait before the first retry; each further one doubles, with a random part."""

    max_retry_interval_ms: int = Field(default=30_000, ge=100, le=600_000)
    """Longest wait between two retries."""

    jitter_interval_ms: int = Field(default=0, ge=0, le=60_000)
    """Most random delay before a batch is sent, for many sinks before one server."""

    memory_points: int = Field(default=200_000, ge=1_000)
    """How many written points' identities stay in memory, for trades and for candles."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("url must start with http:// or https://, and name a host")
            if parts.username or parts.password:
                raise ValueError("url must not hold credentials: token is their place")
        if self.bucket == self.downsampled_bucket:
            raise ValueError("bucket and downsampled_bucket must differ")
        return self

    def role_of(self, timeframe: Timeframe | None) -> BucketRole:
        """Return which bucket candles of a timeframe are in, or trades (None)."""
        order = list(Timeframe)
        if timeframe is None or order.index(timeframe) < order.index(self.downsampled_from):
            return "recent"
        return "downsampled"


class AggregatorSettings(SharedSettings):
    """Everything the aggregator reads from the configuration."""

    aggregator: AggregatorSection = AggregatorSection()
    influxdb: InfluxSection = InfluxSection()
