"""`MaintenanceStore` in PostgreSQL: horizons moved under the fence, expired tables dropped, expired rows deleted."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from vegamite_aggregator.adapters import coverage_table, rehearsal
from vegamite_aggregator.adapters.fence import store_faults
from vegamite_aggregator.adapters.horizon_table import read_horizons, write_horizons
from vegamite_aggregator.adapters.market_table import MarketTable
from vegamite_aggregator.adapters.outbox_table import write_outbox
from vegamite_aggregator.adapters.row import Connection, gap_row, optional_micros
from vegamite_aggregator.adapters.time_partition import TimePartitions, candle_table, tables_before
from vegamite_aggregator.adapters.trade_table import archived_trades
from vegamite_aggregator.core.changes import MarketChanges
from vegamite_aggregator.core.gap_projection import expire_gaps
from vegamite_aggregator.core.horizon import NOTHING_EXPIRED, Horizon
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_aggregator.core.publication import publish_gaps
from vegamite_aggregator.core.retention import Retention, Unfinished, advance
from vegamite_aggregator.ports import (
    ExpiredCandles,
    HeldDay,
    MaintenanceTotals,
    Move,
    StoreError,
    Upkeep,
)
from vegamite_common.bus.partition import partition_for
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros, from_datetime, to_datetime
from vegamite_common.domain.timeframe import LENGTHS, Timeframe
from vegamite_common.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

LOCK_KEY = 0x7665676D6E74  # any constant does: two maintenances of one database never run at once
LOCK_ATTEMPTS = 30
DELETE_ROWS = 10_000

_EPOCH = "SELECT partitions FROM log_epoch ORDER BY epoch DESC LIMIT 1"
_FENCES = "SELECT partition, last_append_time FROM partition_fence"
_FENCE = "SELECT last_append_time FROM partition_fence WHERE partition = $1"
_RAISE = "UPDATE partition_fence SET version = version + 1 WHERE partition = $1"

# Months expire last: who has anything stored has one of them. A gap may be all that there is of a market.
_MARKETS = """
    SELECT market_key FROM candle_1mo UNION SELECT market_key FROM gap WHERE state = 'open'
    UNION SELECT market_key FROM horizon
"""
_GAPS = """
    SELECT market_key, min(from_time) AS from_time FROM gap
    WHERE state = 'open' AND opened_time > $2 AND market_key = ANY($1::int[]) GROUP BY market_key
"""
_AT_WORK = """
    SELECT market_key, timeframe, min(open_time) AS open_time FROM candle
    WHERE {which} AND market_key = ANY($1::int[]) GROUP BY market_key, timeframe
"""
_NOT_FINAL = _AT_WORK.format(which="NOT final")
_HELD = _AT_WORK.format(which="held_by IS NOT NULL")

# A look at each market's first row: the rows themselves are many.
_MARKETS_OF_DAY = """
    WITH RECURSIVE met AS (
        (SELECT market_key FROM trade WHERE event_time >= $1 AND event_time < $2 ORDER BY market_key LIMIT 1)
        UNION ALL
        SELECT (SELECT t.market_key FROM trade t WHERE t.event_time >= $1 AND t.event_time < $2
                    AND t.market_key > met.market_key ORDER BY t.market_key LIMIT 1)
        FROM met WHERE met.market_key IS NOT NULL
    )
    SELECT market_key FROM met WHERE market_key IS NOT NULL
"""
_RESTORING = """
    SELECT market_key, restores_from, restores_to FROM job WHERE state = 'open' AND restores_from IS NOT NULL
"""
_COVERED = """
    SELECT greatest(from_time, $2) AS from_time, least(to_time, $3) AS to_time FROM coverage_span
    WHERE market_key = $1 AND to_time > $2 AND from_time < $3 ORDER BY from_time
"""
_DROP = "SELECT drop_time_partition($1, $2)"
_OLDEST = {
    timeframe: f"""
        SELECT horizon.market_key, least(horizon_time, $1) AS until, (
            SELECT open_time FROM {candle_table(timeframe)} c
            WHERE c.market_key = horizon.market_key AND c.timeframe = '{timeframe.value}'
                AND c.open_time < least(horizon_time, $1)
            ORDER BY open_time LIMIT 1
        ) AS open_time
        FROM horizon WHERE series = '{timeframe.value}'
            AND NOT EXISTS (SELECT FROM job WHERE job.market_key = horizon.market_key AND state = 'open'
                AND restores_from IS NOT NULL)
    """
    for timeframe in Timeframe
}
# The right to delete is one on `candle`; the literal timeframe lets the planner leave out the other tables.
_DELETE = {
    timeframe: f"""
        DELETE FROM candle WHERE market_key = $1 AND timeframe = '{timeframe.value}'
            AND open_time >= $2 AND open_time < $3
    """
    for timeframe in Timeframe
}
_COMPLETED = """
    UPDATE maintenance SET completed_time = $1, archived_files = archived_files + $2,
        archived_trades = archived_trades + $3, dropped_partitions = dropped_partitions + $4,
        deleted_candles = deleted_candles + $5
"""


_UPKEEP = "SELECT *, (SELECT min(horizon_time) FROM horizon WHERE series = 'trade') AS least_horizon FROM maintenance"


class PostgresMaintenanceStore:
    """`MaintenanceStore` and `UpkeepView` over a pool of asyncpg; needs no more than the aggregator's rights."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._markets = MarketTable()
        self._time_partitions = TimePartitions(pool)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Hold the maintenance's advisory lock, if it is free; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            free = bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY))
            try:
                yield free
            finally:
                if free and not connection.is_closed():
                    await connection.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)

    async def make_ahead(self, event_times: Iterable[Micros]) -> int:
        """Make what is missing; see `MaintenanceStore`."""
        async with store_faults():
            self._time_partitions.forget()
            return await self._time_partitions.prepare(event_times)

    async def missing_ahead(self, event_times: Iterable[Micros]) -> Sequence[str]:
        """Return what `make_ahead` would make; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            return await rehearsal.missing_tables(connection, event_times)

    async def plan_moves(
        self, retention: Retention, *, now: Micros
    ) -> Mapping[int, Sequence[Move]]:
        """Return what may move; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            partitions = await connection.fetchval(_EPOCH)
            if partitions is None or not retention.trades:
                return {}
            ends = {
                row["partition"]: row["last_append_time"] for row in await connection.fetch(_FENCES)
            }
            planned: dict[int, Sequence[Move]] = {}
            for partition, markets in (await self._by_partition(connection, partitions)).items():
                if partition in ends:
                    at = _log_time(now, ends[partition])
                    moves = await self._moves(connection, markets, retention, at)
                    if moves:
                        planned[partition] = list(moves.values())
            return planned

    async def move(self, partition: int, retention: Retention, *, now: Micros) -> Sequence[Move]:
        """Move a partition's horizons in one transaction; see `MaintenanceStore`."""
        async with store_faults():
            backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
            for _ in range(LOCK_ATTEMPTS):
                try:
                    async with self._pool.acquire() as connection, connection.transaction():
                        return await self._move(connection, partition, retention, now)
                except asyncpg.LockNotAvailableError:
                    await asyncio.sleep(backoff.next_delay())
        raise StoreError(f"partition {partition}: its fence stays locked")

    async def _move(
        self, connection: Connection, partition: int, retention: Retention, now: Micros
    ) -> Sequence[Move]:
        await connection.execute("SET LOCAL lock_timeout = '2s'")
        # The epoch stays what it is until the end: another one would give markets other partitions.
        partitions = await connection.fetchval(f"{_EPOCH} FOR KEY SHARE")
        fence = await connection.fetchrow(f"{_FENCE} FOR UPDATE", partition)
        if fence is None or partitions is None:
            return ()
        markets = (await self._by_partition(connection, partitions)).get(partition, {})
        at = _log_time(now, fence["last_append_time"])
        moves = await self._moves(connection, markets, retention, at)
        if not moves:
            return ()
        await self._give_up_gaps(connection, partition, moves, now)
        after = {market_key: move.after for market_key, move in moves.items()}
        await write_horizons(connection, after, moved=now)
        await connection.execute(_RAISE, partition)
        return list(moves.values())

    async def _give_up_gaps(
        self, connection: Connection, partition: int, moves: Mapping[int, Move], now: Micros
    ) -> None:
        """Have no gap open below the new horizons, and tell of those that were."""
        gaps: dict[int, list[Any]] = defaultdict(list)
        for row in await coverage_table.read_gaps(connection, list(moves)):
            gaps[row["market_key"]].append(gap_row(row))
        changes: dict[Market, MarketChanges] = {}
        for market_key, rows in gaps.items():
            move = moves[market_key]
            before = {row.from_time: row for row in rows}
            projected = expire_gaps(before, horizon=move.after.trades, now=now)
            if projected.upserted or projected.deleted:
                changes[move.market] = MarketChanges(
                    gaps=projected.upserted, gaps_deleted=projected.deleted
                )
                await write_outbox(connection, partition, publish_gaps(move.market, projected, now))
        await coverage_table.write_gaps(connection, changes, self._markets.keys)

    async def _by_partition(
        self, connection: Connection, partitions: int
    ) -> dict[int, dict[int, Market]]:
        keys = [row["market_key"] for row in await connection.fetch(_MARKETS)]
        named = self._markets.named(await self._markets.rows_of(connection, keys))
        found: dict[int, dict[int, Market]] = defaultdict(dict)
        for market_key, market in named.items():
            found[partition_for(market.key.encode(), partitions)][market_key] = market
        return found

    async def _moves(
        self,
        connection: Connection,
        markets: Mapping[int, Market],
        retention: Retention,
        now: Micros,
    ) -> dict[int, Move]:
        """Return the horizons of these markets that may move at `now`, by the market's number."""
        stored = await read_horizons(connection)
        keys = list(markets)
        found_after = to_datetime(now - retention.trades * DAY)
        gaps = {
            row["market_key"]: from_datetime(row["from_time"])
            for row in await connection.fetch(_GAPS, keys, found_after)
        }
        at_work: dict[int, dict[Timeframe, Micros]] = defaultdict(dict)
        for query in (_NOT_FINAL, _HELD):
            for row in await connection.fetch(query, keys):
                first = at_work[row["market_key"]]
                timeframe, at = Timeframe(row["timeframe"]), from_datetime(row["open_time"])
                first[timeframe] = min(at, first.get(timeframe, at))
        moves: dict[int, Move] = {}
        for market_key, market in markets.items():
            before = stored.get(market_key, NOTHING_EXPIRED)
            unfinished = Unfinished(candles=at_work.get(market_key, {}))
            if market_key in gaps:
                unfinished = Unfinished(gap=gaps[market_key], candles=unfinished.candles)
            after = advance(before, retention, now=now, unfinished=unfinished)
            if after is not before:
                moves[market_key] = Move(market, before, after)
        return moves

    async def horizons(self) -> Mapping[Market, Horizon]:
        """Return every stored horizon; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            found = await read_horizons(connection)
            named = self._markets.named(await self._markets.rows_of(connection, found))
        return {market: found[market_key] for market_key, market in named.items()}

    async def days_before(self, cutoff: Micros) -> Sequence[HeldDay]:
        """Return the days that end by then; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            days: list[HeldDay] = []
            for name, begin, end in await tables_before(
                connection, "trade", before=to_datetime(cutoff)
            ):
                rows = await connection.fetch(_MARKETS_OF_DAY, begin, end)
                keys = [row["market_key"] for row in rows]
                named = self._markets.named(await self._markets.rows_of(connection, keys))
                days.append(
                    HeldDay(
                        name,
                        from_datetime(begin),
                        from_datetime(end),
                        tuple(sorted(named.values())),
                    )
                )
        return days

    async def restoring(self) -> Mapping[Market, Sequence[tuple[Micros, Micros]]]:
        """Return what open jobs bring back; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            rows = await connection.fetch(_RESTORING)
            keys = {row["market_key"] for row in rows}
            named = self._markets.named(await self._markets.rows_of(connection, keys))
        found: dict[Market, list[tuple[Micros, Micros]]] = defaultdict(list)
        for row in rows:
            span = (from_datetime(row["restores_from"]), from_datetime(row["restores_to"]))
            found[named[row["market_key"]]].append(span)
        return found

    async def trades(
        self, market: Market, *, from_time: Micros, to_time: Micros
    ) -> AsyncIterator[Sequence[ArchivedTrade]]:
        """Yield stored trades; see `MaintenanceStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            pages = archived_trades(
                connection,
                market_key=self._markets.keys[market],
                from_time=from_time,
                to_time=to_time,
            )
            async for page in pages:
                yield page

    async def covered(
        self, market: Market, *, from_time: Micros, to_time: Micros
    ) -> Sequence[tuple[Micros, Micros]]:
        """Return what is covered of a time; see `MaintenanceStore`."""
        async with store_faults():
            rows = await self._pool.fetch(
                _COVERED, self._markets.keys[market], to_datetime(from_time), to_datetime(to_time)
            )
        return [(from_datetime(row["from_time"]), from_datetime(row["to_time"])) for row in rows]

    async def drop_day(self, day: HeldDay) -> bool:
        """Drop a day of trades; see `MaintenanceStore`."""
        async with store_faults():
            return await self._drop("trade", day.name)

    async def drop_candles(self, timeframe: Timeframe, *, cutoff: Micros) -> int:
        """Drop tables of candles; see `MaintenanceStore`."""
        parent = candle_table(timeframe)
        async with store_faults():
            async with self._pool.acquire() as connection:
                before = to_datetime(timeframe.open_time(cutoff))
                tables = await tables_before(connection, parent, before=before)
            return sum([await self._drop(parent, name) for name, _, _ in tables])

    async def _drop(self, parent: str, name: str) -> bool:
        """Drop a table once nobody is at it; raise `StoreError` where it stays in use."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
        for _ in range(LOCK_ATTEMPTS):
            try:
                answer: str = await self._pool.fetchval(_DROP, parent, name)
            except asyncpg.LockNotAvailableError:
                await asyncio.sleep(backoff.next_delay())
            else:
                return answer == "dropped"
        raise StoreError(f"{name} has expired, but stays in use; the next run drops it")

    async def delete_candles(self, timeframe: Timeframe, *, cutoff: Micros) -> AsyncIterator[int]:
        """Delete candles; see `MaintenanceStore`."""
        until = to_datetime(timeframe.open_time(cutoff))
        # So many intervals hold at most so many rows: each statement is bounded, and reads one stretch of the index.
        portion = DELETE_ROWS * LENGTHS.get(timeframe, 28 * DAY)
        while True:
            async with store_faults():
                rows = await self._pool.fetch(_OLDEST[timeframe], until)
            oldest = [row for row in rows if row["open_time"] is not None]
            if not oldest:
                return
            for market_key, end, begin in oldest:
                through = min(end, to_datetime(from_datetime(begin) + portion))
                async with store_faults():
                    answer: str = await self._pool.execute(
                        _DELETE[timeframe], market_key, begin, through
                    )
                yield int(answer.rsplit(maxsplit=1)[-1])

    async def expired_candles(
        self, timeframe: Timeframe, *, cutoff: Micros, horizons: Mapping[Market, Horizon]
    ) -> ExpiredCandles:
        """Return what would go; see `MaintenanceStore`."""
        until = {
            self._markets.keys[market]: to_datetime(horizon.candles[timeframe])
            for market, horizon in horizons.items()
            if timeframe in horizon.candles
        }
        async with store_faults(), self._pool.acquire() as connection:
            return await rehearsal.expired_candles(
                connection, timeframe, cutoff=cutoff, until=until
            )

    async def upkeep(self) -> Upkeep:
        """Return what is known of maintenance; see `UpkeepView`."""
        async with store_faults(), self._pool.acquire() as connection:
            row = await connection.fetchrow(_UPKEEP)
            days = await tables_before(connection, "trade", before=None)
        assert row is not None  # the migration made it, and nobody deletes it
        return Upkeep(
            tables_until=from_datetime(days[-1][2]) if days else None,
            completed_time=optional_micros(row["completed_time"]),
            least_horizon=optional_micros(row["least_horizon"]),
            archived_files=row["archived_files"],
            archived_trades=row["archived_trades"],
            dropped_tables=row["dropped_partitions"],
            deleted_candles=row["deleted_candles"],
        )

    async def note_completed(self, done: MaintenanceTotals, *, now: Micros) -> None:
        """Remember a whole maintenance; see `MaintenanceStore`."""
        async with store_faults():
            await self._pool.execute(
                _COMPLETED,
                to_datetime(now),
                done.archived_files,
                done.archived_trades,
                done.dropped_partitions,
                done.deleted_candles,
            )


def _log_time(now: Micros, last_append_time: datetime | None) -> Micros:
    """Return up to when the partition's log is known to be read: what is still in it may not expire unread."""
    return now if last_append_time is None else min(now, from_datetime(last_append_time))
