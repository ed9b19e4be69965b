"""A PostgreSQL server for tests, which can be stopped, killed and started again on the same files."""

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from vegamite_common.runtime.embedded_postgres import EmbeddedPostgres
from vegamite_common.testing.services.process import (
    ServiceError,
    make_server_directory,
    remove_directory,
)

# No test cuts the machine's power: what the kernel holds is safe, and waiting for the disk is slow.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}


def find_tls_bin_dir() -> Path:
    """Return the programs of the system's own PostgreSQL, which speaks TLS (the wheel's doesn't); ServiceError if none is."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    if not found:
        raise ServiceError(
            "PostgreSQL with TLS is needed from the system (Debian: install `postgresql`)"
        )
    return found[-1].parent


class PostgresServer:
    """One real server in a folder of its own (made, and removed by `close`, unless given)."""

    def __init__(
        self, directory: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        """Choose the folder, and settings beside those of every test's server; `start` makes the server."""
        self._own = directory is None
        self.directory = directory or make_server_directory("postgres")
        self._server = EmbeddedPostgres(
            self.directory / "postgres", settings={**_SETTINGS, **(settings or {})}
        )

    @property
    def url(self) -> str:
        """The superuser's URL; it stays the same over restarts."""
        return self._server.url

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._server.pid

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._server.start()

    def stop(self) -> None:
        """Stop it in order."""
        self._server.stop()

    def kill(self) -> None:
        """End the postmaster by SIGKILL; its backends go by themselves, or with the next `start`."""
        pid = self._server.pid
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._server.stop()
        if self._own:
            remove_directory(self.directory)

    def __enter__(self) -> "PostgresServer":
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
