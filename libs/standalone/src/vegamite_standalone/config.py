"""What `vegamite run` is configured with: its own section, and what it dictates to the three services."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator, model_validator

from vegamite_common.runtime.config import Port, Section, SharedSettings

PARTITIONS = 1
"""Partitions of the bus inside the process: there is nobody to share them with."""


def default_data_directory() -> Path:
    """Return where an instance's data is when nothing else is said: `/var/lib/vegamite` for root, else the user's own."""
    return Path("/var/lib/vegamite") if os.geteuid() == 0 else user_data_path("vegamite")


class StandaloneSection(Section):
    """`[standalone]`: where `vegamite run` listens and keeps its data; the command line has the same names."""

    host: str = "127.0.0.1"
    port: Port = 8000
    data_dir: Path | None = None
    database_url: SecretStr | None = None
    postgres_bin_dir: Path | None = None
    demo: bool = True
    maintenance_hours: float = Field(default=1.0, ge=0, le=8760)

    @field_validator("database_url")
    @classmethod
    def _postgres_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(
            ("postgresql://", "postgres://")
        ):
            raise ValueError("it must start with postgresql://")
        return url

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        if self.database_url is not None and self.postgres_bin_dir is not None:
            raise ValueError("database_url and postgres_bin_dir exclude one another")
        return self

    @property
    def data_directory(self) -> Path:
        """Where this instance keeps its data."""
        return self.data_dir or default_data_directory()


class StandaloneSettings(SharedSettings):
    """Everything that standalone itself reads from the configuration; the services read theirs."""

    standalone: StandaloneSection = StandaloneSection()


def dictated(*, host: str, port: int, demo: bool) -> Mapping[str, Any]:
    """Return what standalone dictates to the services, whatever the configuration says."""
    return {
        "kafka": {"topics": {"partitions": PARTITIONS}},
        "api": {"host": host, "port": port},
        "collector": {"demo": {"enabled": demo}},
    }
