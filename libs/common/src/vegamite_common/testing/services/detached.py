"""Servers that outlive the command that started them: `make services-up`, and `make services-down` later on.

A file remembers each one's process by its id and by when it began, so that an id which belongs to somebody else by then
is never signalled. The file holds passwords: nobody else may read it.
"""

import contextlib
import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from vegamite_common.testing.services.influxdb import InfluxServer
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.kafka_cluster import BROKERS, KafkaCluster
from vegamite_common.testing.services.postgres import PostgresServer
from vegamite_common.testing.services.process import ServiceError, remove_directory

STATE_FILE = Path(".cache/services.json")
"""Where the repository's own servers are remembered, from its root."""

GRACE_SECONDS = 20.0
"""How long a server may take to end when it is asked to."""

_POLL_SECONDS = 0.05

Say = Callable[[str], None]
Part = tuple[int, Path]
"""A process, and the folder that goes with it."""


@dataclass(frozen=True)
class Detached:
    """One process left running: what it is, its id and beginning (clock ticks since boot), folder, and how it is asked to end."""

    name: str
    pid: int
    began: str
    directory: str
    stop_signal: int

    @property
    def runs(self) -> bool:
        """Whether it is still there, and still the same."""
        return _began(self.pid) == self.began


@dataclass(frozen=True)
class Remembered:
    """What the state file says: processes in the order of their start, and the variables that make tests use them."""

    processes: Sequence[Detached]
    variables: dict[str, str]


def start_servers(say: Say, *, state: Path = STATE_FILE, brokers: int = 1) -> Remembered:
    """Start PostgreSQL, InfluxDB and one or three Kafka brokers, each on free ports, and remember them in `state`.

    Where they run already they are left alone. `ServiceError` where one can't be started (then none is left), or where
    some of those in `state` have ended.
    """
    if brokers not in (1, BROKERS):
        raise ServiceError(f"one broker or {BROKERS}, not {brokers}")
    before = remembered(state)
    if before is not None and any(process.runs for process in before.processes):
        ended = [process.name for process in before.processes if not process.runs]
        if ended:
            raise ServiceError(f"{', '.join(ended)} ended meanwhile; run make services-down first")
        say("running already")
        return before
    if before is not None:
        stop_servers(lambda _: None, state=state)
    processes: list[Detached] = []
    variables: dict[str, str] = {}
    try:
        for name, variable, starting in (
            ("PostgreSQL", "VEGAMITE_TEST_POSTGRES", _postgres),
            ("InfluxDB", "VEGAMITE_TEST_INFLUXDB", _influxdb),
            ("Kafka", "VEGAMITE_TEST_KAFKA", _kafka if brokers == 1 else _kafka_cluster),
        ):
            stop_signal = signal.SIGINT if name == "PostgreSQL" else signal.SIGTERM
            address, parts = starting()
            processes += [
                Detached(name, pid, _began(pid), str(directory), stop_signal)
                for pid, directory in parts
            ]
            variables[variable] = address
    except BaseException:
        for process in reversed(processes):
            _end(process)
        raise
    found = Remembered(processes, variables)
    _remember(found, state)
    return found


def stop_servers(say: Say, *, state: Path = STATE_FILE) -> None:
    """End exactly the processes that `state` remembers, those that are still themselves, and remove their folders."""
    found = remembered(state)
    if found is None:
        say("nothing to stop")
        return
    for process in reversed(found.processes):
        ended = "stopped" if process.runs else "had ended"
        _end(process)
        say(f"{process.name:<10}  process {process.pid:<8} {ended}")
    state.unlink(missing_ok=True)


def remembered(state: Path = STATE_FILE) -> Remembered | None:
    """Return what was left running, None where nothing was; `ServiceError` for a file that says something else."""
    try:
        document = json.loads(state.read_text(encoding="utf-8"))
        processes = [Detached(**process) for process in document["processes"]]
        return Remembered(processes, dict(document["variables"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"{state} can't be read ({error}); end its processes by hand") from None


def describe(found: Remembered) -> Iterator[str]:
    """Yield the lines that say what runs where, and how to use it."""
    addresses = {
        "PostgreSQL": found.variables["VEGAMITE_TEST_POSTGRES"],
        "InfluxDB": found.variables["VEGAMITE_TEST_INFLUXDB"],
        "Kafka": found.variables["VEGAMITE_TEST_KAFKA"],
    }
    for process in found.processes:
        yield f"{process.name:<10}  process {process.pid:<8} {addresses.pop(process.name, '')}".rstrip()
    yield "to use them:"
    for name, value in found.variables.items():
        yield f"  export {name}={shlex.quote(value)}"
    yield "make services-down ends them"


def _postgres() -> tuple[str, list[Part]]:
    server = PostgresServer()
    with _removed_on_failure(server.close):
        server.start()
        return server.url, [(server.pid, server.directory)]


def _influxdb() -> tuple[str, list[Part]]:
    server = InfluxServer()
    with _removed_on_failure(server.close):
        server.start()
        address = server.address
        place = urlsplit(address.url)
        url = f"{place.scheme}://{quote(address.token, safe='')}@{place.netloc}/{address.org}"
        return url, [(server.pid, server.directory)]


def _kafka() -> tuple[str, list[Part]]:
    server = KafkaServer()
    with _removed_on_failure(server.close):
        server.start()
        return server.bootstrap, [(server.pid, server.directory)]


def _kafka_cluster() -> tuple[str, list[Part]]:
    cluster = KafkaCluster()
    with _removed_on_failure(cluster.close):
        cluster.start()
        return cluster.bootstrap, [(broker.pid, broker.directory) for broker in cluster.brokers]


@contextlib.contextmanager
def _removed_on_failure(close: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        close()
        raise


def _remember(found: Remembered, state: Path) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "processes": [asdict(process) for process in found.processes],
        "variables": found.variables,
    }
    unfinished = state.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
    unfinished.replace(state)


def _end(process: Detached) -> None:
    for signum in (process.stop_signal, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        if process.runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signum)
        while process.runs and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    remove_directory(Path(process.directory))


def _began(pid: int) -> str:
    """Return when a process began, in clock ticks since boot; empty where it isn't there, or is dead already."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name in the second field may have spaces and brackets; the third one, the state, follows its last bracket.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
