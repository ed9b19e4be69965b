"""The collector's settings: the section `[collector]` of `vegamite.toml`, and the shared sections."""

from pydantic import Field

from vegamite_common.runtime.config import ExchangeSection, Section, ServiceSection, SharedSettings


class DemoSection(Section):
    """The demo market `sim:DEMO/USD`: whether it may be collected, and the seed of its trades."""

    enabled: bool = False
    seed: int = Field(default=1, ge=0, lt=2**63)


class CollectorSection(ServiceSection):
    """`[collector]`; durations are real seconds or milliseconds, as their names say."""

    management_port: int = Field(default=8001, ge=0, le=65535)
    group: str = Field(default="vegamite-collector", min_length=1, max_length=100)
    heartbeat_ms: int = Field(default=1_000, ge=100, le=5_000)
    keyframe_seconds: float = Field(default=60.0, ge=1, allow_inf_nan=False)
    refresh_seconds: float = Field(default=30.0, ge=1, allow_inf_nan=False)
    reference_hours: float = Field(default=24.0, gt=0, allow_inf_nan=False)
    repair_scan_seconds: float = Field(default=3.0, ge=0.1, allow_inf_nan=False)
    repairs_per_exchange: int = Field(default=2, ge=1, le=20)
    gap_age_ms: int = Field(default=5_000, ge=0)
    clock_limit_ms: int = Field(default=400, ge=1)
    queue_trades: int = Field(default=20_000, ge=1_000)
    queue_records: int = Field(default=2_000, ge=10)
    release_seconds: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    unassigned_seconds: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    demo: DemoSection = DemoSection()


class CollectorSettings(SharedSettings):
    """Everything that the collector reads from its configuration."""

    collector: CollectorSection = CollectorSection()

    def exchange(self, exchange: str) -> ExchangeSection:
        """Return the section of one exchange, or its defaults."""
        return self.exchanges.get(exchange) or ExchangeSection()
