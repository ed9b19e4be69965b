"""Runs one program of the comparison as a process, and takes its figures from what it tells (see progress.py)."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

WARM_UP = 1 / 3
"""The share of a program's trades that isn't part of its steady rate: the first."""

SILENCE_SECONDS = 60
"""A program that tells nothing for so long has failed."""


class ProgramError(Exception):
    """A program ended early, fell silent, or told of a wrong candle; the text has what it said last."""


@dataclass(frozen=True)
class Sample:
    """So many trades were taken in by the instant `at`, in seconds of the machine's monotonic clock."""

    at: float
    trades: int


@dataclass
class Run:
    """What one process told: progress, candles by market and open time in milliseconds, totals of timeframes.

    `processor` is its processor seconds at its first word and at its last.
    """

    started: float
    samples: list[Sample] = field(default_factory=list)
    candles: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)
    timeframes: dict[str, list[Any]] = field(default_factory=dict)
    processor: tuple[float, float] = (0.0, 0.0)

    def startup(self) -> float:
        """Seconds from the start of the process to its first trade."""
        return self.samples[0].at - self.started

    def processor_cost(self) -> float:
        """Processor seconds a million trades, from the first trade on."""
        first, last = self.processor
        return (last - first) / self.samples[-1].trades * 1e6

    def whole(self) -> float:
        """Trades a second from the first to the last."""
        return self._rate(0, 1)

    def steady(self) -> float:
        """Trades a second after the warm-up."""
        return self._rate(WARM_UP, 1)

    def warming(self) -> float:
        """Trades a second during the warm-up."""
        return self._rate(0, WARM_UP)

    def _rate(self, since: float, until: float) -> float:
        """Trades a second from the last word before the share `since` to the first after the share `until`."""
        last = self.samples[-1].trades
        before = [sample for sample in self.samples if sample.trades <= since * last]
        first = before[-1] if before else self.samples[0]
        then = next(sample for sample in self.samples if sample.trades >= until * last)
        return (then.trades - first.trades) / (then.at - first.at) if then.at > first.at else 0.0


def run_program(
    command: Sequence[str],
    *,
    trades: int,
    log: Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    totals: bool = False,
) -> Run:
    """Run the process until it told that it has taken `trades` (and, with `totals`, of the timeframes), then end it.

    Standard error goes to `log`; `folder` is the working directory. Raises `ProgramError`.
    """
    started = time.monotonic()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(process, heard), daemon=True)
    listener.start()
    run = Run(started)
    try:
        began = 0.0
        while not (_taken(run) >= trades and (run.timeframes or not totals)):
            _take(run, _next_line(heard, command, log))
            used = processor_seconds(process.pid)
            began = began or used
        run.processor = (began, used)
    finally:
        _end(process)
        listener.join(10)
    while not heard.empty():
        _take(run, heard.get())
    last = next(at for at, sample in enumerate(run.samples) if sample.trades >= trades)
    del run.samples[last + 1 :]
    return run


def _listen(process: subprocess.Popen[bytes], heard: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        heard.put(line)
    heard.put(b"")


def _next_line(heard: queue.SimpleQueue[bytes], command: Sequence[str], log: Path) -> bytes:
    try:
        line = heard.get(timeout=SILENCE_SECONDS)
    except queue.Empty:
        line, what = b"", f"told nothing for {SILENCE_SECONDS} s"
    else:
        what = "ended before it had taken all its trades"
    if not line:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ProgramError(f"{' '.join(command)}: {what}; it said:\n{tail}")
    return line


def _take(run: Run, line: bytes) -> None:
    if not line.startswith(b"{"):
        return
    told = json.loads(line)
    if "trades" in told:
        run.samples.append(Sample(told["at"], told["trades"]))
    elif "candle" in told:
        market, open_time, *numbers = told["candle"]
        run.candles[market, open_time] = tuple(numbers)
    elif "timeframes" in told:
        run.timeframes = told["timeframes"]


def _taken(run: Run) -> int:
    return run.samples[-1].trades if run.samples else 0


def processor_seconds(pid: int) -> float:
    """Return what the process has used so far, start-up included; 0 where the system doesn't tell."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, for some tell of their last candles then; kill it if it doesn't."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_candles(
    name: str,
    run: Run,
    expected: Mapping[tuple[str, int], tuple[Any, ...]],
    *,
    until_ms: int,
    exact: bool,
) -> int:
    """Return how many candles that end by `until_ms` were told; raise `ProgramError` unless all were, and are right.

    With `exact` every digit counts, else what doubles can tell.
    """
    due = {key for key in expected if key[1] + 60_000 <= until_ms}
    missing = due - run.candles.keys()
    if missing:
        raise ProgramError(f"{name}: {len(missing)} of {len(due)} candles were never told of")
    for key in due:
        told = [Decimal(str(number)) for number in run.candles[key]]
        right = [Decimal(str(number)) for number in expected[key]]
        slack = Decimal(0) if exact else Decimal("1e-9")
        if any(abs(one - two) > slack * two for one, two in zip(told, right, strict=True)):
            raise ProgramError(f"{name}: the candle {key} is {told}, not {right}")
    return len(due)
