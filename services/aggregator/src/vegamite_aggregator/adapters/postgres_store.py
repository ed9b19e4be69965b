"""The system of record in PostgreSQL, as the aggregator sees it: state of a partition, and steps that change it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from vegamite_aggregator.adapters import candle_table, coverage_table
from vegamite_aggregator.adapters.broken_candle import CandleMender
from vegamite_aggregator.adapters.fence import (
    STORE_FAULTS,
    advance,
    begin_locked,
    commit,
    store_faults,
)
from vegamite_aggregator.adapters.horizon_table import read_horizons
from vegamite_aggregator.adapters.log_table import ensure_epoch
from vegamite_aggregator.adapters.market_table import MarketTable, describe, description
from vegamite_aggregator.adapters.outbox_table import write_outbox
from vegamite_aggregator.adapters.rebuild_range import candles_of_range, fold_range
from vegamite_aggregator.adapters.row import (
    Connection,
    gap_row,
    job_row,
    open_span,
    optional_micros,
    span_row,
)
from vegamite_aggregator.adapters.schema import require_schema
from vegamite_aggregator.adapters.time_partition import TimePartitions
from vegamite_aggregator.adapters.trade_table import TradeTable
from vegamite_aggregator.core.allowance import SetApart
from vegamite_aggregator.core.candle_cache import FOREVER, NEVER
from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.core.demand import Loaded, RebuildRange, Wants
from vegamite_aggregator.core.facts import TradeBatch, TradeKey
from vegamite_aggregator.core.fold import TradeFold
from vegamite_aggregator.core.horizon import Horizon
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.ports import Inserted, Step, StoreError
from vegamite_common.bus.partition import partition_for
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.runtime.postgres import describe as describe_fault

_FENCE = """
    SELECT version, epoch, next_offset, last_append_time, set_apart, set_apart_since FROM partition_fence
    WHERE partition = $1
"""
_NEW_FENCE = """
    INSERT INTO partition_fence (partition, version, epoch, next_offset, owner) VALUES ($1, 0, $2, $3, $4)
    ON CONFLICT DO NOTHING
"""

ROLLBACK_SECONDS = 2.0


class PostgresCandleStore:
    """`CandleStore` over a pool of asyncpg; `owner` names this process in the fences it writes."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, owner: str) -> None:
        self._pool = pool
        self._owner = owner
        self._markets = MarketTable()
        self._time_partitions = TimePartitions(pool)
        self._trades = TradeTable()
        self._epoch = 0
        self._partitions = 0

    async def open_log(self, *, partitions: int, new_epoch: bool) -> int:
        """Return the log's epoch; see `CandleStore`."""
        async with store_faults(), self._pool.acquire() as connection, connection.transaction():
            await require_schema(connection)
            self._epoch = await ensure_epoch(connection, partitions=partitions, new_epoch=new_epoch)
        self._partitions = partitions
        return self._epoch

    async def load(self, partition: int, *, begin_offset: int) -> PartitionState:
        """Return the partition's committed state, all of one instant; see `CandleStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            # Looks first: an insertion would wait for whoever has the row locked, for ever if that one is stopped.
            if await connection.fetchrow(_FENCE, partition) is None:
                await connection.execute(
                    _NEW_FENCE, partition, self._epoch, begin_offset, self._owner
                )
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await self._load(connection, partition)

    async def _load(self, connection: Connection, partition: int) -> PartitionState:
        fence = await connection.fetchrow(_FENCE, partition)
        assert fence is not None  # made above, and fences are never deleted
        rows = await self._markets.alive(
            connection, partition=partition, partitions=self._partitions
        )
        names = self._markets.markets
        spans = await coverage_table.read_open_spans(connection, partition)
        jobs = await coverage_table.read_open_jobs(connection, partition)
        return PartitionState(
            partition=partition,
            epoch=fence["epoch"],
            version=fence["version"],
            next_offset=fence["next_offset"],
            last_append_time=optional_micros(fence["last_append_time"]),
            open_spans=[open_span(row, names[row["market_key"]]) for row in spans],
            jobs=[job_row(row, names[row["market_key"]]) for row in jobs],
            markets=await self._market_states(connection, rows),
            horizons=await self._horizons(connection, partition),
            set_apart=SetApart(optional_micros(fence["set_apart_since"]), fence["set_apart"]),
        )

    async def _horizons(self, connection: Connection, partition: int) -> dict[Market, Horizon]:
        found = await read_horizons(connection)
        named = self._markets.named(await self._markets.rows_of(connection, found))
        return {
            market: found[market_key]
            for market_key, market in named.items()
            if partition_for(market.key.encode(), self._partitions) == partition
        }

    async def _market_states(
        self, connection: Connection, rows: Mapping[Market, Any]
    ) -> dict[Market, MarketState]:
        if not rows:
            return {}
        names = self._markets.markets
        market_keys = [row["market_key"] for row in rows.values()]
        first_open = await candle_table.first_open(connection, market_keys)
        newest = await candle_table.newest_event_times(connection, market_keys)
        spans = _by_market(await coverage_table.read_spans(connection, market_keys), names)
        gaps = _by_market(await coverage_table.read_gaps(connection, market_keys), names)
        states: dict[Market, MarketState] = {}
        for market, row in rows.items():
            contract, history_from = description(row)
            states[market] = MarketState(
                contract=contract,
                history_from=history_from,
                coverage=[span_row(span) for span in spans.get(market, ())],
                gaps=[gap_row(gap) for gap in gaps.get(market, ())],
                newest_event_time=newest.get(row["market_key"], NEVER),
                open_close_time=first_open.get(row["market_key"], FOREVER),
            )
        return states

    @asynccontextmanager
    async def step(self, state: PartitionState) -> AsyncIterator[Step]:
        """Open a transaction under the partition's fence; see `CandleStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            step = PostgresStep(self, connection, state)
            ended = False
            try:
                await begin_locked(connection, partition=state.partition, version=state.version)
                yield step
                if step.written:
                    await commit(connection)
                    ended = True
            except asyncpg.CheckViolationError as error:
                # A time partition that was there is gone: it had expired, and now something else belongs there.
                self._time_partitions.forget()
                raise StoreError(describe_fault(error)) from error
            finally:
                if not ended:
                    await _roll_back(connection)

    async def prepare(self, markets: Iterable[Market], event_times: Iterable[Micros]) -> None:
        """Make what trades of these markets and times need; see `CandleStore`."""
        async with store_faults():
            await self._markets.ensure(self._pool, markets)
            await self._time_partitions.prepare(event_times)

    async def job_owners(self, jobs: Iterable[str]) -> Mapping[str, str]:
        """Return whose the jobs of these names are; see `CandleStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            return await coverage_table.read_job_owners(connection, jobs)

    async def refresh(self, state: PartitionState) -> None:
        """Describe the state's markets by what their rows say now; see `CandleStore`."""
        async with store_faults(), self._pool.acquire() as connection:
            rows = await self._markets.rows(connection, list(state.markets))
        for market, row in rows.items():
            describe(state.markets[market], row)

    @property
    def market_table(self) -> MarketTable:
        """The markets' numbers, for the steps."""
        return self._markets

    @property
    def trade_table(self) -> TradeTable:
        """How trades are inserted, for the steps."""
        return self._trades

    @property
    def owner(self) -> str:
        """The name that this process writes into fences."""
        return self._owner

    async def states_of(
        self, connection: Connection, markets: Sequence[Market]
    ) -> dict[Market, MarketState]:
        """Return what is stored of markets met before, read by the connection."""
        rows = await self._markets.rows(connection, markets)
        return await self._market_states(connection, rows)


class PostgresStep:
    """`Step` over a connection whose transaction holds the fence; `written` says that it may be committed."""

    def __init__(
        self, store: PostgresCandleStore, connection: Connection, state: PartitionState
    ) -> None:
        self._store = store
        self._connection = connection
        self._state = state
        self._keys = store.market_table.keys
        self._batches: Sequence[TradeBatch] = ()
        self._stored: Set[TradeKey] = frozenset()
        self.written = False

    async def markets(self, markets: Sequence[Market]) -> Mapping[Market, MarketState]:
        """Return what the store has of these markets."""
        return await self._store.states_of(self._connection, markets)

    async def insert_trades(self, batches: Sequence[TradeBatch]) -> Inserted:
        """Insert those trades that aren't stored yet."""
        inserted = await self._store.trade_table.insert(
            self._connection,
            partition=self._state.partition,
            batches=batches,
            keys=self._keys,
            newest=lambda market: self._state.markets[market].newest_event_time,
        )
        self._batches, self._stored = batches, inserted.stored
        return inserted

    async def load(self, wants: Wants) -> Loaded:
        """Read what is wanted, a query for each timeframe or range."""
        names = self._store.market_table.markets
        candles: candle_table.Candles = {}
        opened: candle_table.Candles = {}
        release_rest = False
        if wants.open_candles:
            found = await candle_table.open_candles(
                self._connection, wants.open_candles, self._keys
            )
            await self._collect(opened, found)
        if wants.keys:
            rows = await candle_table.candles_by_key(self._connection, wants.keys, self._keys)
            await self._collect(candles, rows)
        if wants.incomplete:
            rows = await candle_table.incomplete_candles(
                self._connection, wants.incomplete, self._keys
            )
            await self._collect(candles, rows)
        if wants.released:
            held = await self._held(wants)
            release_rest = len(held) > wants.release_limit
            await self._collect(candles, held[: wants.release_limit])
        rebuilt = [await self._rebuild(wanted, candles) for wanted in wants.rebuilds]
        jobs = await coverage_table.read_jobs(self._connection, wants.jobs) if wants.jobs else []
        return Loaded(
            candles={market: list(rows.values()) for market, rows in candles.items()},
            open_candles={market: list(rows.values()) for market, rows in opened.items()},
            release_rest=release_rest,
            rebuilt=rebuilt,
            # A market that nobody here has met has none of the jobs asked for; to write one of them will be refused.
            jobs=[
                job_row(row, names[row["market_key"]]) for row in jobs if row["market_key"] in names
            ],
        )

    async def _held(self, wants: Wants) -> Sequence[Any]:
        return await candle_table.held_candles(
            self._connection,
            jobs=wants.released,
            market_keys=[self._keys[market] for market in self._state.markets],
            limit=wants.release_limit + 1,
        )

    async def _rebuild(self, wanted: RebuildRange, candles: candle_table.Candles) -> TradeFold:
        market_key = self._keys[wanted.market]
        found = await candles_of_range(
            self._connection, wanted, market_key=market_key, mender=self._mender(wanted.market)
        )
        candle_table.collect_stored(candles, wanted.market, found)
        contract = self._state.markets[wanted.market].contract
        return await fold_range(self._connection, wanted, market_key=market_key, contract=contract)

    async def _collect(self, candles: candle_table.Candles, rows: Iterable[Any]) -> None:
        """Add rows to `candles`, those that no trades can give with what they should say."""
        names = self._store.market_table.markets
        for row in await candle_table.collect(candles, rows, names):
            market = names[row["market_key"]]
            mended = await self._mender(market).mend(row)
            if mended is not None:
                candle_table.collect_stored(candles, market, [mended])

    def _mender(self, market: Market) -> CandleMender:
        return CandleMender(
            self._connection,
            market,
            market_key=self._keys[market],
            contract=self._state.markets[market].contract,
            trades_from=self._state.horizon(market).trades,
            new={
                key
                for batch in self._batches
                if batch.market == market
                for trade in batch.trades
                if (key := (market, trade.event_time, trade.trade_id)) not in self._stored
            },
        )

    async def write(self, changes: Changes) -> None:
        """Write all changes and the fence's next version."""
        partition = self._state.partition
        await coverage_table.write_coverage(
            self._connection, changes, partition=partition, keys=self._keys
        )
        await candle_table.write_candles(self._connection, changes.markets, self._keys)
        await write_outbox(self._connection, partition, changes.outbox)
        await advance(
            self._connection,
            partition=partition,
            epoch=changes.epoch,
            next_offset=changes.next_offset,
            last_append_time=changes.last_append_time,
            owner=self._store.owner,
            set_apart=changes.set_apart or self._state.set_apart,
        )
        self.written = True


def _by_market(rows: Iterable[Any], names: Mapping[int, Market]) -> dict[Market, list[Any]]:
    found: dict[Market, list[Any]] = {}
    for row in rows:
        found.setdefault(names[row["market_key"]], []).append(row)
    return found


async def _roll_back(connection: Connection) -> None:
    """End the transaction; a connection that can't do so any more is thrown away, and the server ends it."""
    try:
        if not connection.is_closed():
            await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS)
    except STORE_FAULTS:
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise
