"""The sections of the configuration that several services share, with every key's default and unit.

A section is a frozen pydantic model that refuses unknown keys. Numbers carry their unit in the name. Values that
must not be shown are `SecretStr`. `vegamite.toml` documents each key; a repository test keeps the two equal.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from vegamite_common.runtime.clock import Clock, SimulatedClock, SystemClock

Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 lets the system choose."""


def _split_text(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


TextList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_text)]
"""A TOML array of strings, or one string with commas (as an environment variable has it)."""


class Section(BaseModel):
    """One section of the configuration: immutable, refuses unknown keys, never shows an input in an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True
    )


class ServiceSection(Section):
    """What each service's own section has: the address of its management server (`/healthz /readyz /metrics`)."""

    management_host: str = "127.0.0.1"
    management_port: Port = 8001


class LogSection(Section):
    """Where the log goes and how much of it: see `runtime.logging.configure_logging`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    file: Path | None = None
    file_max_bytes: int = Field(default=10_000_000, ge=1000)
    file_backups: int = Field(default=5, ge=0)


class ClockSection(Section):
    """The clock; simulated when `origin` is set: now = origin + (wall - wall_origin) * speed, all in µs since 1970."""

    origin: int | None = None
    wall_origin: int | None = None
    speed: float = Field(default=1.0, gt=0, le=100_000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.origin is None) != (self.wall_origin is None):
            raise ValueError("origin and wall_origin must be given together")
        if self.origin is None and self.speed != 1.0:
            raise ValueError(
                "speed needs origin and wall_origin: only a simulated clock has another speed"
            )
        return self

    @property
    def simulated(self) -> bool:
        """True where the three numbers describe a simulated clock."""
        return self.origin is not None

    def clock(self) -> Clock:
        """Build the clock that the section describes."""
        if self.origin is None or self.wall_origin is None:
            return SystemClock()
        return SimulatedClock(origin=self.origin, wall_origin=self.wall_origin, speed=self.speed)


class TopicsSection(Section):
    """How `migrate` makes the topics; with `manage = false` it only checks that they are so."""

    manage: bool = True
    partitions: int = Field(default=12, ge=1, le=1000)
    replication_factor: int = Field(default=1, ge=1, le=10)
    min_insync_replicas: int = Field(default=1, ge=1, le=10)
    trades_retention_hours: int = Field(default=168, ge=1)
    candles_retention_hours: int = Field(default=168, ge=1)
    status_retention_hours: int = Field(default=24, ge=1)
    dead_letters_retention_hours: int = Field(default=720, ge=1)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError("min_insync_replicas must not exceed replication_factor")
        return self


class KafkaSection(Section):
    """The Kafka cluster, how to reach it and the client's limits."""

    bootstrap_servers: str = "127.0.0.1:9092"
    client_id: str = "vegamite"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: SecretStr | None = None
    compression: Literal["none", "lz4", "zstd", "gzip"] = "zstd"
    start_timeout_ms: int = Field(default=60_000, ge=0)
    request_timeout_ms: int = Field(default=10_000, ge=100)
    delivery_timeout_ms: int = Field(default=30_000, ge=100)
    batch_max_bytes: int = Field(default=786_432, ge=1024)
    fetch_max_bytes: int = Field(default=8_388_608, ge=1024)
    session_timeout_ms: int = Field(default=10_000, ge=1000)
    max_poll_interval_ms: int = Field(default=60_000, ge=1000)
    topics: TopicsSection = TopicsSection()

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.security_protocol.startswith("SASL") and (
            not self.sasl_username or self.sasl_password is None
        ):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_username and sasl_password"
            )
        if (self.ssl_cert_file is None) != (self.ssl_key_file is None):
            raise ValueError("ssl_cert_file and ssl_key_file must be given together")
        return self


class PostgresSection(Section):
    """The PostgreSQL database; `password` replaces the one in `url`, so that the url can be an ordinary setting."""

    url: SecretStr = SecretStr("postgresql://vegamite@127.0.0.1:5432/vegamite")
    password: SecretStr | None = None
    pool_size: int = Field(default=10, ge=2, le=1000)
    connect_timeout_ms: int = Field(default=10_000, ge=100)
    command_timeout_ms: int = Field(default=60_000, ge=100)
    start_timeout_ms: int = Field(default=60_000, ge=0)

    @model_validator(mode="after")
    def _postgres_url(self) -> Self:
        parts = urlsplit(self.url.get_secret_value())
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("url must start with postgresql://")
        return self


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ExchangeSection(Section):
    """`[exchanges.<id>]`: how the collector reaches one exchange (a ccxt id); everything has the profile's default.

    `urls` is a base address that replaces scheme, host and port of every URL of the client, or a table with the
    shape of ccxt's `urls.api`. `rate_limit` is in requests per second.
    """

    urls: str | dict[str, Any] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    api_key: SecretStr | None = None
    api_secret: SecretStr | None = None
    api_password: SecretStr | None = None
    proxy: SecretStr | None = None
    rate_limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    settling_time_ms: int | None = Field(default=None, ge=0)

    @property
    def on_loopback(self) -> bool:
        """True where every address given is this machine; False where none is given."""
        addresses = list(_texts(self.urls))
        return bool(addresses) and all(_is_loopback(address) for address in addresses)
