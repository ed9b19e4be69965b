"""What a store that runs for years needs done now and then: tables made ahead, and what has expired taken away.

Each step is whole in itself, and all of them are found out anew each time; so a run may end anywhere, and the next one goes on.
The order is what makes nothing lost: the horizon moves first, after which nobody adds below it; then the day is archived
and read back; then its table is dropped.
"""

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from vegamite_aggregator.core.horizon import NOTHING_EXPIRED, Horizon
from vegamite_aggregator.core.retention import Retention
from vegamite_aggregator.ports import (
    ArchiveError,
    HeldDay,
    MaintenanceStore,
    MaintenanceTotals,
    Move,
    StoreError,
    TradeArchive,
)
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros, format_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.lifecycle import Stop

log = structlog.get_logger(__name__)


class MaintenanceReport(msgspec.Struct):
    """How a maintenance went: what it did, what it could not do, and whether another one was at it."""

    done: MaintenanceTotals = msgspec.field(default_factory=MaintenanceTotals)
    problems: list[str] = []
    busy: bool = False
    stopped: bool = False

    def lines(self) -> list[str]:
        """Return it in plain lines."""
        if self.busy:
            return ["another maintenance is running: nothing was done"]
        done = self.done
        said = (
            f"{done.partitions_made} tables made ahead, {done.horizons_moved} horizons moved, "
            f"{done.archived_trades} trades archived in {done.archived_files} files, "
            f"{done.dropped_partitions} tables dropped, {done.deleted_candles} candles deleted"
        )
        return [*(["stopped before the end"] if self.stopped else []), said, *self.problems]


class Maintenance:
    """Does what is due; any number of times, beside aggregators, and never two at once."""

    def __init__(
        self,
        *,
        store: MaintenanceStore,
        archive: TradeArchive | None,
        clock: Clock,
        retention: Retention,
        days_ahead: int,
    ) -> None:
        self._store = store
        self._archive = archive
        self._clock = clock
        self._retention = retention
        self._days_ahead = days_ahead

    async def run(self, stop: Stop) -> MaintenanceReport:
        """Do all that is due now, or until `stop`; raise `StoreError` where the store doesn't let it."""
        report = MaintenanceReport()
        async with self._store.alone() as alone:
            if not alone:
                report.busy = True
                return report
            now = self._clock.now()
            report.done.partitions_made = await self._store.make_ahead(self._ahead(now))
            await self._move_horizons(report, now)
            await self._expire_trades(report, stop, now)
            await self._expire_candles(report, stop, now)
            if not report.problems and not report.stopped:
                await self._store.note_completed(report.done, now=now)
        return report

    async def rehearse(self) -> list[str]:
        """Return what a run would do now, in plain lines; change nothing. Raise `StoreError`."""
        now = self._clock.now()
        missing = await self._store.missing_ahead(self._ahead(now))
        lines = [f"would make {len(missing)} tables ahead: {', '.join(missing)}"] if missing else []
        moves = await self._store.plan_moves(self._retention, now=now)
        horizons = dict(await self._store.horizons())
        for move in (move for partition in sorted(moves) for move in moves[partition]):
            horizons[move.market] = move.after
            lines += _tell(move)
        cutoff = self._retention.trades_cutoff(now)
        if cutoff is not None:
            restoring = await self._store.restoring()
            for day in await self._store.days_before(cutoff):
                waiting = _still_needed(day, horizons, restoring)
                lines.append(self._tell_day(day, waiting))
        for timeframe in Timeframe:
            cutoff = self._retention.candles_cutoff(timeframe, now)
            if cutoff is None:
                break
            expired = await self._store.expired_candles(timeframe, cutoff=cutoff, horizons=horizons)
            lines += [f"would drop {name}" for name in expired.tables]
            if expired.rows:
                lines.append(f"would delete {expired.rows} {timeframe.value} candles")
        return lines or ["nothing is to be done"]

    def _ahead(self, now: Micros) -> list[Micros]:
        """An instant of each day that is to have its tables."""
        return [now + day * DAY for day in range(self._days_ahead + 1)]

    def _tell_day(self, day: HeldDay, waiting: Sequence[Market]) -> str:
        if waiting:
            return f"would keep {day.name}: {_some(waiting)} still needs it"
        what = f"{len(day.markets)} markets"
        where = " after archiving" if self._archive is not None and day.markets else ""
        return f"would drop {day.name} ({what}){where}"

    async def _move_horizons(self, report: MaintenanceReport, now: Micros) -> None:
        planned = await self._store.plan_moves(self._retention, now=now)
        for partition in sorted(planned):
            moved = await self._store.move(partition, self._retention, now=now)
            report.done.horizons_moved += len(moved)
            if moved:
                log.info("horizons moved", partition=partition, markets=len(moved))

    async def _expire_trades(self, report: MaintenanceReport, stop: Stop, now: Micros) -> None:
        cutoff = self._retention.trades_cutoff(now)
        if cutoff is None:
            return
        for day in await self._store.days_before(cutoff):
            report.stopped = stop.requested
            if report.stopped:
                return
            waiting = _still_needed(
                day, await self._store.horizons(), await self._store.restoring()
            )
            if waiting:
                log.info("a day of trades is still needed", table=day.name, by=_some(waiting))
                continue
            if not await self._archived(report, day):
                continue
            if await self._store.drop_day(day):
                report.done.dropped_partitions += 1
                log.info("dropped", table=day.name, markets=len(day.markets))

    async def _archived(self, report: MaintenanceReport, day: HeldDay) -> bool:
        """Archive each market's trades of the day; return whether the table may go."""
        if self._archive is None:
            return True
        whole = True
        for market in day.markets:
            times = {"from_time": day.from_time, "to_time": day.to_time}
            try:
                written = await self._archive.store(
                    market,
                    day.from_time,
                    trades=self._store.trades(market, **times),
                    covered=await self._store.covered(market, **times),
                )
            except ArchiveError as error:
                whole = False
                report.problems.append(f"{day.name} stays: {error}")
                log.error("a day can't be archived", market=market.key, error=str(error))
                continue
            if written:
                report.done.archived_files += 1
                report.done.archived_trades += written
        return whole

    async def _expire_candles(self, report: MaintenanceReport, stop: Stop, now: Micros) -> None:
        for timeframe in Timeframe:
            cutoff = self._retention.candles_cutoff(timeframe, now)
            if cutoff is None:
                return
            dropped = await self._store.drop_candles(timeframe, cutoff=cutoff)
            deleted = 0
            async for portion in self._store.delete_candles(timeframe, cutoff=cutoff):
                deleted += portion
                report.stopped = report.stopped or stop.requested
                if report.stopped:
                    break
            report.done.dropped_partitions += dropped
            report.done.deleted_candles += deleted
            if dropped or deleted:
                log.info(
                    "candles expired",
                    timeframe=timeframe.value,
                    dropped_tables=dropped,
                    deleted=deleted,
                )


async def maintain_repeatedly(maintenance: Maintenance, stop: Stop, *, seconds: float) -> None:
    """Run the maintenance now and every `seconds` (real ones) until `stop`; a fault is logged, and the next run tries again."""
    while not stop.requested:
        try:
            report = await maintenance.run(stop)
        except StoreError as error:
            log.warning("maintenance didn't get to its end", error=str(error))
        else:
            for problem in report.problems:
                log.warning("maintenance left something undone", problem=problem)
        await stop.wait_for(seconds)


def _still_needed(
    day: HeldDay,
    horizons: Mapping[Market, Horizon],
    restoring: Mapping[Market, Sequence[tuple[Micros, Micros]]],
) -> list[Market]:
    """Return the markets whose trades of the day haven't expired, or are being brought back."""
    return [
        market
        for market in day.markets
        if horizons.get(market, NOTHING_EXPIRED).trades < day.to_time
        or any(
            begin < day.to_time and day.from_time < end for begin, end in restoring.get(market, ())
        )
    ]


def _some(markets: Sequence[Market]) -> str:
    rest = len(markets) - 1
    return markets[0].key + (f" and {rest} more" if rest else "")


def _tell(move: Move) -> list[str]:
    lines = []
    if move.after.trades != move.before.trades:
        lines.append(f"{move.market.key}: trades before {format_time(move.after.trades)} expire")
    for timeframe, at in move.after.candles.items():
        if at != move.before.candles.get(timeframe):
            lines.append(
                f"{move.market.key}: {timeframe.value} candles before {format_time(at)} expire"
            )
    return lines
