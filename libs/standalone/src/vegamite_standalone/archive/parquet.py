"""Days that maintenance archived: checked against their manifests, and made records that bring them back as they were."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from vegamite_aggregator.adapters.parquet_archive import check_archive, read_trades
from vegamite_aggregator.core.manifest import ArchivedTrade, Manifest
from vegamite_aggregator.ports import ArchiveError as DamagedError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros, parse_time
from vegamite_common.domain.trade import InvalidTradeError, Origin, TakerSide, Trade
from vegamite_common.messages.trades import MAX_TRADES, Rebuild, TradesRecord, encode_trades
from vegamite_standalone.archive.file import ArchiveError
from vegamite_standalone.archive.intake import Findings, IntakeRules, Spool

PROGRESS_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class ArchivedDay:
    """One file of an archive and its manifest, which it was not yet compared with; the day begins at `begin`."""

    path: Path
    manifest: Manifest
    begin: Micros

    @property
    def end(self) -> Micros:
        """The midnight at which the day ends."""
        return self.begin + DAY


def find_day(path: Path) -> ArchivedDay:
    """Return the day that a file is of, checked byte by byte; ArchiveError where it isn't its manifest's file."""
    try:
        manifest = check_archive(path)
        return ArchivedDay(
            path=path.with_name(manifest.file),
            manifest=manifest,
            begin=parse_time(manifest.day),
        )
    except (DamagedError, ValueError) as error:
        raise ArchiveError(str(error)) from error


def by_market(days: Sequence[ArchivedDay]) -> dict[Market, list[ArchivedDay]]:
    """Return the days of each market, oldest first, each once."""
    found: dict[Market, dict[Micros, ArchivedDay]] = {}
    for day in days:
        found.setdefault(day.manifest.market, {})[day.begin] = day
    return {
        market: [each for _, each in sorted(mine.items())] for market, mine in sorted(found.items())
    }


def take_day(
    day: ArchivedDay,
    *,
    since: Micros,
    rules: IntakeRules,
    spool: Spool,
    consumed: Callable[[int], None],
) -> Findings:
    """Read a day into `spool`: its trades, what was known to be complete, and that all is there without a hole from `since` on.

    ArchiveError where the file can't be read, or holds what it can't hold. `consumed` is told how many bytes of the file are done.
    """
    findings = Findings()
    waiting: list[Trade] = []
    for trade in _trades(day):
        waiting.append(trade)
        findings.trades += 1
        if len(waiting) == MAX_TRADES:
            spool.write(_encode(waiting, rules))
            waiting = []
        if findings.trades % PROGRESS_ROWS == 0:
            consumed(day.manifest.bytes * findings.trades // day.manifest.rows)
    if waiting:
        spool.write(_encode(waiting, rules))
    for covered in day.manifest.covered:
        spool.write(_encode([], rules, covered=covered))
    spool.write(
        restored(rules.market, day.begin, day.end, since=since, covered=day.manifest.covered)
    )
    return findings


def restored(
    market: Market,
    from_time: Micros,
    to_time: Micros,
    *,
    since: Micros,
    covered: Iterable[tuple[Micros, Micros]],
) -> bytes:
    """Return the record that says that the trades of these whole days are there, and all of them since `since`.

    `covered` is the time of which they are all that ever were.
    """
    return encode_trades(
        Rebuild(
            exchange=market.exchange,
            symbol=market.symbol,
            from_time=from_time,
            to_time=to_time,
            restored_since=since,
            covered=tuple(covered),
        )
    )


def _trades(day: ArchivedDay) -> Iterator[Trade]:
    count = 0
    try:
        for kept in read_trades(day.path):
            count += 1
            if not day.begin <= kept.event_time < day.end:
                raise ArchiveError(f"{day.path}: a trade of another day: {kept.trade_id!r}")
            yield _trade(kept)
    except (DamagedError, InvalidTradeError, ArithmeticError) as error:
        raise ArchiveError(f"{day.path}: trade {count}: {error}") from error
    if count != day.manifest.rows:
        raise ArchiveError(f"{day.path}: {count} trades; its manifest says {day.manifest.rows}")


def _trade(kept: ArchivedTrade) -> Trade:
    return Trade(
        trade_id=kept.trade_id,
        sequence=kept.sequence,
        event_time=kept.event_time,
        price=Decimal(kept.price),
        amount=Decimal(kept.amount),
        taker_side=cast("TakerSide | None", kept.taker_side),
    )


def _encode(
    trades: Sequence[Trade], rules: IntakeRules, *, covered: tuple[Micros, Micros] | None = None
) -> bytes:
    return encode_trades(
        TradesRecord(
            exchange=rules.market.exchange,
            symbol=rules.market.symbol,
            received_time=rules.received_time,
            origin=Origin.IMPORT,
            job=rules.job,
            trades=tuple(trades),
            covered=covered,
        )
    )
