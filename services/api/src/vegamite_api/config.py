"""The API's own section of the configuration, and its settings as a whole."""

from typing import Self

from pydantic import Field, model_validator

from vegamite_common.runtime.config import Port, ServiceSection, SharedSettings, TextList


class ApiSection(ServiceSection):
    """`[api]`: where it listens, who may read, and what one client may use. Every key is documented in `vegamite.toml`."""

    host: str = "127.0.0.1"
    port: Port = 8000
    allowed_hosts: TextList = ("localhost", "127.0.0.1", "::1")
    allowed_origins: TextList = ()
    anonymous_read: bool = False
    max_connections: int = Field(default=2_000, ge=1)
    max_connections_per_client: int = Field(default=100, ge=1)
    max_subscriptions: int = Field(default=1_000, ge=1, le=10_000)
    max_message_bytes: int = Field(default=65_536, ge=1_024, le=1_048_576)
    max_messages_per_second: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    send_buffer_bytes: int = Field(default=4_194_304, ge=65_536)
    memory_bytes: int = Field(default=67_108_864, ge=1_048_576)
    heartbeat_ms: int = Field(default=5_000, ge=100)
    drain_ms: int = Field(default=5_000, ge=0, le=20_000)

    @model_validator(mode="after")
    def _hosts_and_origins(self) -> Self:
        if not self.allowed_hosts:
            raise ValueError("allowed_hosts must name at least one host")
        for origin in self.allowed_origins:
            scheme, separator, rest = origin.partition("://")
            if (
                scheme not in ("http", "https")
                or not separator
                or not rest
                or "/" in rest.rstrip("/")
            ):
                raise ValueError("allowed_origins must be origins, as https://charts.example.org")
        return self


class ApiSettings(SharedSettings):
    """The settings of an API process."""

    api: ApiSection = ApiSection()
