"""An instance of `vegamite run` in a test, a deployed system, a terminal, and an archive to import."""

import asyncio
import contextlib
import csv
import fcntl
import gzip
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import pytest_asyncio

from vegamite_common.testing.fake_exchange.generator import GeneratedFeed
from vegamite_common.testing.reference_fold import (
    RawTrade,
    raw_trade,
    read_peer_candles,
    read_recorded_day,
)
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.process import make_server_directory, remove_directory

COMMAND = [sys.executable, "-m", "vegamite_standalone"]
PAGE = re.compile(r"^chart\s+(http://127\.0\.0\.1:\d+)/#key=(\S+)$", re.MULTILINE)
START_S = 90.0


class Instance:
    """`vegamite run` on a data directory of its own; blocking."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.base = ""
        self.key = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process as it was started last."""
        assert self._process is not None
        return self._process

    def start(self, *options: str) -> None:
        """Start it, wait until it answers, and learn its address and key from what it prints."""
        self._starts += 1
        output = self.directory / f"run-{self._starts}.txt"
        command = [*COMMAND, "run", "--port", "0", "--data-dir", str(self.data), *options]
        with output.open("wb") as sink:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            said = output.read_text(errors="replace")
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{said}"
            if found := PAGE.search(said):
                self.base, self.key = found[1], found[2]
                if self._ready():
                    return
            time.sleep(0.05)  # a blocking helper: it looks again until its deadline
        raise AssertionError(f"not ready within {START_S} s:\n{output.read_text(errors='replace')}")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.base}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def stop(self, *, signum: int = signal.SIGINT, timeout_s: float = 20.0) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it by SIGKILL, its database server left behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def text(self, path: str, **query: object) -> str:
        """Return the body of an answer; asserts status 200."""
        address = (
            f"{self.base}{path}?{urlencode({name: str(value) for name, value in query.items()})}"
        )
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"GET {address}: {error.code} {error.read()!r}") from None

    def json(self, path: str, **query: object) -> Any:
        """Return the answer's JSON."""
        return json.loads(self.text(path, **query))

    def candles(self, market: str, timeframe: str, start: str, end: str) -> list[dict[str, str]]:
        """Return the candles of one page as csv gives them."""
        query = {"market": market, "timeframe": timeframe, "start": start, "end": end}
        body = self.text("/v1/candles", **query, limit=10_000, format="csv")
        return list(csv.DictReader(io.StringIO(body)))

    def database_pid(self) -> int:
        """The process id of the instance's database server; 0 while it says none."""
        note = self.data / "postgres" / "data" / "postmaster.pid"
        try:
            return int(note.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return 0


def vegamite(
    *arguments: object, timeout_s: float = 120.0, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture(name="vegamite")
def _vegamite() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`vegamite(*arguments)`, for test modules, which can't import this one."""
    return vegamite


@pytest.fixture
def vegamite_command() -> list[str]:
    """What starts the command."""
    return list(COMMAND)


@dataclass(frozen=True)
class Archive:
    """A day of trades as a file, and what must come of it; peers are another program's candles by timeframe."""

    file: Path
    market: str
    begin: str
    end: str
    trades: list[RawTrade]
    peers: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)


def generated_day(directory: Path) -> Archive:
    """A day from the fake exchange's generator, as the exchange's own objects."""
    begin, end = 1_650_000_000_000 // 86_400_000 * 86_400_000, 0
    end = begin + 86_400_000
    feed = GeneratedFeed("XRP/ETH", seed=7, rate=0.08)
    rows = [
        msgspec.to_builtins(trade)
        for trade in feed.from_time(begin, until=end - 1, limit=1_000_000)
    ]
    file = directory / "generated.ndjson.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return Archive(
        file=file,
        market="binance:XRP/ETH",
        begin=str(begin),
        end=str(end),
        trades=[raw_trade(row) for row in rows],
    )


def recorded_day(folder: Path) -> Archive:
    """The recorded day, with its peer's candles."""
    return Archive(
        file=folder / "aggtrades.ndjson.gz",
        market="binance:XRP/ETH",
        begin="2019-10-11T00:00:00Z",
        end="2019-10-12T00:00:00Z",
        trades=read_recorded_day(folder),
        peers={
            name: read_peer_candles(folder / f"peer-candles-{name}.csv") for name in ("1m", "5m")
        },
    )


@pytest.fixture(scope="session")
def day(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The recorded day where VEGAMITE_TEST_DATA names its folder, else one that is generated."""
    data = os.environ.get("VEGAMITE_TEST_DATA")
    if data:
        return recorded_day(Path(data) / "binance-xrpeth-20191011")
    return generated_day(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """A folder that the database's system user may pass through (pytest's own may not be)."""
    directory = make_server_directory("standalone")
    yield directory
    remove_directory(directory)


@pytest.fixture
def instance(server_directory: Path) -> Iterator[Instance]:
    """An instance that isn't started yet; whatever of it still runs is ended by its id."""
    built = Instance(server_directory)
    yield built
    built.kill()
    database = built.database_pid()
    if database:
        with contextlib.suppress(ProcessLookupError):
            os.kill(database, signal.SIGINT)


class Terminal:
    """A command with a terminal of its own, and what it has written there."""

    def __init__(self, command: list[str]) -> None:
        self._main, ours = pty.openpty()
        termios.tcsetwinsize(ours, (40, 120))
        self.process = subprocess.Popen(
            command,
            stdin=ours,
            stdout=ours,
            stderr=ours,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 -- one system call
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(ours)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._main, 65_536)
            except OSError:  # the other end is closed
                return
            self._written += chunk

    @property
    def written(self) -> str:
        """Everything so far, control sequences included."""
        return self._written.decode(errors="replace")

    def press(self, key: bytes) -> None:
        """Type on the terminal."""
        os.write(self._main, key)

    def close(self) -> None:
        """End the command, if need be."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        os.close(self._main)


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    """Runs `vegamite` with arguments on a terminal of its own; whatever still runs is ended."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: object) -> Terminal:
            terminal = Terminal([*COMMAND, *map(str, arguments)])
            stack.callback(terminal.close)
            return terminal

        yield start


@pytest_asyncio.fixture
async def cluster(database: str, tmp_path: Path) -> AsyncIterator[Path]:
    """The configuration of a system whose broker and database are empty."""
    broker = KafkaServer()
    try:
        await asyncio.to_thread(broker.start)
        file = tmp_path / "vegamite.toml"
        file.write_text(
            f"[kafka]\nbootstrap_servers = {json.dumps(broker.bootstrap)}\n"
            f"[kafka.topics]\npartitions = 3\n"
            f"[postgres]\nurl = {json.dumps(database)}\n"
            f"[aggregator]\nmanagement_port = 0\n[log]\nformat = 'json'\n"
        )
        yield file
    finally:
        await asyncio.to_thread(broker.close)
