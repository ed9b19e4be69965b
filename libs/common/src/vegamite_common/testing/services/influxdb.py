"""An InfluxDB server for tests, built from its sources, which can be stopped, killed and started again on its data.

InfluxDB 1.8: it takes writes and Flux queries through the API of version 2, and makes databases through that of version 1.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlencode, urlsplit

from vegamite_common.testing.services.process import (
    ServerProcess,
    ServiceError,
    cache_directory,
)

INFLUXDB_VERSION = "1.8.10"
_MODULE = f"github.com/influxdata/influxdb/cmd/influxd@v{INFLUXDB_VERSION}"
_USER = "vegamite"
_CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  flux-enabled = true
  auth-enabled = true
  log-enabled = false
"""


@dataclass(frozen=True)
class InfluxAddress:
    """Where a server is, and what a client has to say there: a token (`user:password` for 1.8) and an organisation."""

    url: str
    token: str
    org: str = "vegamite"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `http://TOKEN@host:port/ORG`, as VEGAMITE_TEST_INFLUXDB has it; ServiceError for anything else."""
        parts = urlsplit(text)
        token, _, place = parts.netloc.rpartition("@")
        if parts.scheme not in ("http", "https") or not token or not place:
            raise ServiceError("VEGAMITE_TEST_INFLUXDB has the form http://TOKEN@host:port/ORG")
        return cls(f"{parts.scheme}://{place}", unquote(token), parts.path.strip("/") or "vegamite")


def influxd_is_built() -> bool:
    """Say whether the server's program is in the cache folder."""
    return _folder().is_dir()


def influxd_program() -> Path:
    """Return the server's program, built by Go and kept in the cache folder the first time; ServiceError without Go."""
    target = _folder()
    if not target.is_dir():
        _build(target)
    return target / "influxd"


def _folder() -> Path:
    return cache_directory() / f"influxdb-{INFLUXDB_VERSION}"


def _build(target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise ServiceError(
            "InfluxDB is built with Go: install Debian's `golang-go`, or set VEGAMITE_TEST_INFLUXDB"
        )
    unfinished = Path(tempfile.mkdtemp(prefix=".influxdb-", dir=target.parent))
    try:
        built = subprocess.run(
            [go, "install", _MODULE],
            cwd=unfinished,
            # Without C it needs no library of this machine, and runs in any container, too.
            env={**os.environ, "GOBIN": str(unfinished), "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if built.returncode != 0:
            raise ServiceError(f"Go couldn't build InfluxDB:\n{built.stderr[-2000:]}")
        if not target.is_dir():  # another run may have been quicker
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class InfluxServer(ServerProcess):
    """One real server on loopback. Nothing may be asked without its one user's token."""

    name = "influxdb"

    def __init__(self) -> None:
        """Choose folder, ports and password; `start` makes the server."""
        super().__init__(ports=2)
        self._password = secrets.token_hex(16)

    @property
    def address(self) -> InfluxAddress:
        """What a client needs; it stays the same over restarts."""
        return InfluxAddress(f"http://127.0.0.1:{self.port}", f"{_USER}:{self._password}")

    def start(self) -> None:
        """Start it, on the data that is there, and return when it answers."""
        super().start()
        self._make_user()

    def _command(self) -> list[str]:
        config = self.directory / "influxdb.conf"
        (rpc_port,) = self._other_ports
        config.write_text(
            _CONFIG.format(directory=self.directory, port=self.port, rpc_port=rpc_port)
        )
        return [str(influxd_program()), "-config", str(config)]

    def _make_user(self) -> None:
        """The first user may be made by anybody; later starts find it, and that is all there is to it."""
        statement = f"CREATE USER {_USER} WITH PASSWORD '{self._password}' WITH ALL PRIVILEGES"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/query", data=urlencode({"q": statement}).encode()
        )
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise ServiceError(f"InfluxDB's user can't be made: {error.read()!r}") from None
