"""One archive, read whole before any of it is taken: encoded records on disk, and what was found on the way."""

import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.trade import InvalidTradeError, Origin, Trade
from vegamite_common.messages.trades import MAX_TRADES, TradesRecord, encode_trades
from vegamite_standalone.archive.file import ArchiveError, Line, Part, read_parts
from vegamite_standalone.archive.line import LineError, LineParser, choose_parser

AHEAD_LIMIT: Final[Micros] = 5 * SECOND
"""How far an event time may lie ahead of our clock before the trade isn't believed."""

MAX_TOLD: Final = 5
"""Broken lines that are named; the rest is counted."""

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, kw_only=True)
class IntakeRules:
    """What makes records of an archive's trades.

    `resolution` (µs) is what the exchange's event times are floored to, `received_time` our clock at the start.
    """

    market: Market
    job: str
    resolution: Micros
    received_time: Micros
    skip_bad: bool = False


@dataclass
class Findings:
    """What an archive held: trades, those that can't be believed (by reason), and lines that were left out."""

    trades: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    first_skipped: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every line became a trade, so that a claim of completeness can be believed."""
        return not self.quarantined and not self.skipped

    def add(self, other: "Findings") -> None:
        """Count another archive's findings too."""
        self.trades += other.trades
        self.skipped += other.skipped
        self.first_skipped += other.first_skipped
        for reason, count in other.quarantined.items():
            self.quarantined[reason] = self.quarantined.get(reason, 0) + count


class Spool:
    """Encoded records in a temporary file of no name: written once, then read in the same order."""

    def __init__(self, directory: Path | None = None) -> None:
        """Open the file, in `directory` or the system's place for temporary files."""
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by `close`

    def write(self, record: bytes) -> None:
        """Append one record."""
        self._file.write(_LENGTH.pack(len(record)))
        self._file.write(record)

    def mark(self) -> int:
        """Return where the next record will be, for `roll_back`."""
        return self._file.tell()

    def roll_back(self, mark: int) -> None:
        """Forget all records since the mark."""
        self._file.seek(mark)
        self._file.truncate()

    def read(self) -> Iterator[bytes]:
        """Give all records from the first on."""
        self._file.seek(0)
        while header := self._file.read(_LENGTH.size):
            (length,) = _LENGTH.unpack(header)
            yield self._file.read(length)

    def close(self) -> None:
        """Forget the file."""
        self._file.close()

    def __enter__(self) -> "Spool":
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def take_archive(
    path: Path, *, rules: IntakeRules, spool: Spool, consumed: Callable[[int], None]
) -> Findings:
    """Read the whole archive into `spool` as trades records; ArchiveError names the first broken line, unless skipped.

    `consumed` is told how far into the file reading has come, in bytes.
    """
    findings = Findings()
    waiting: list[Trade] = []
    for part in read_parts(path, consumed=consumed):
        for trade in _trades(part, rules, findings):
            waiting.append(trade)
            if len(waiting) == MAX_TRADES:
                spool.write(_encode(waiting, rules))
                findings.trades += len(waiting)
                waiting = []
    if waiting:
        spool.write(_encode(waiting, rules))
        findings.trades += len(waiting)
    return findings


def _trades(part: Part, rules: IntakeRules, findings: Findings) -> Iterator[Trade]:
    parse: LineParser | None = None
    latest = rules.received_time + AHEAD_LIMIT
    for line in part.lines:
        if parse is None:
            parse, is_header = choose_parser(line.content, resolution=rules.resolution)
            if is_header:
                continue
        try:
            trade = parse(line.content)
        except InvalidTradeError as error:
            _count(findings, error.reason)
        except LineError as error:
            _leave_out(line, error, rules, findings)
        else:
            if trade.event_time > latest:
                _count(findings, "event_time")
            else:
                yield trade


def _count(findings: Findings, reason: str) -> None:
    findings.quarantined[reason] = findings.quarantined.get(reason, 0) + 1


def _leave_out(line: Line, error: LineError, rules: IntakeRules, findings: Findings) -> None:
    told = f"{line.where}: {error}"
    if not rules.skip_bad:
        raise ArchiveError(told) from error
    findings.skipped += 1
    if len(findings.first_skipped) < MAX_TOLD:
        findings.first_skipped.append(told)


def _encode(trades: list[Trade], rules: IntakeRules) -> bytes:
    return encode_trades(
        TradesRecord(
            exchange=rules.market.exchange,
            symbol=rules.market.symbol,
            received_time=rules.received_time,
            origin=Origin.IMPORT,
            job=rules.job,
            trades=tuple(trades),
        )
    )
