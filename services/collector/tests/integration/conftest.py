"""A collector over a real database and the bus inside the process, and what the log says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from vegamite_aggregator.migrate import migrate_database
from vegamite_collector.bootstrap import open_service
from vegamite_collector.config import CollectorSettings
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import STATUS, TRADES
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, to_datetime
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.status import StatusRecord, decode_status
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    TradesTopicRecord,
    decode_trades,
)
from vegamite_common.runtime.clock import Clock, SystemClock
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Resources, Stop


@dataclass
class Ledger:
    """What a reader of the trades log knows: trades, coverage as the rules derive it, and every record."""

    records: list[TradesTopicRecord] = field(default_factory=list)
    trades: dict[Market, dict[str, Trade]] = field(default_factory=dict)
    covered: dict[Market, SpanSet] = field(default_factory=dict)
    late: list[tuple[Market, Trade]] = field(default_factory=list)
    conflicts: list[tuple[Trade, Trade]] = field(default_factory=list)
    open_spans: dict[tuple[str, Market], tuple[Micros, Micros]] = field(default_factory=dict)
    statuses: list[StatusRecord] = field(default_factory=list)

    def of(self, market: Market) -> dict[str, Trade]:
        return self.trades.setdefault(market, {})

    def coverage(self, market: Market) -> SpanSet:
        return self.covered.setdefault(market, SpanSet())

    def kinds(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    def apply(self, record: TradesTopicRecord) -> None:
        self.records.append(record)
        match record:
            case TradesRecord():
                self._take_trades(record)
            case SpanOpened():
                self.open_spans.setdefault(
                    (record.writer, record.market), (record.from_time, record.from_time)
                )
            case Heartbeat():
                for writer, market in list(self.open_spans):
                    if writer == record.writer:
                        self._extend((writer, market), record.to_time)
            case SpanClosed():
                key = (record.writer, record.market)
                self._extend(key, record.to_time)
                self.open_spans.pop(key, None)
            case _:
                pass

    def _extend(self, key: tuple[str, Market], to_time: Micros) -> None:
        if key not in self.open_spans:
            return
        from_time, reached = self.open_spans[key]
        if to_time > reached:
            self.open_spans[key] = (from_time, to_time)
            self._cover(key[1], from_time, to_time)

    def _cover(self, market: Market, from_time: Micros, to_time: Micros) -> None:
        self.covered[market] = self.coverage(market).add(from_time, to_time)

    def _take_trades(self, record: TradesRecord) -> None:
        known = self.of(record.market)
        for trade in record.trades:
            if trade.trade_id in known:
                if known[trade.trade_id] != trade:
                    self.conflicts.append((known[trade.trade_id], trade))
                continue
            known[trade.trade_id] = trade
            if self.coverage(record.market).contains(trade.event_time):
                self.late.append((record.market, trade))
        if record.covered is not None:
            self._cover(record.market, *record.covered)


@dataclass
class Rig:
    """A running collector's surroundings."""

    bus: MemoryBus
    pool: asyncpg.Pool[asyncpg.Record]
    ledger: Ledger
    stop: Stop
    task: asyncio.Task[None]
    clock: Clock
    health: Health

    async def finish(self) -> None:
        self.stop.request()
        await asyncio.wait_for(self.task, 20)

    async def track(self, market: Market, *, history_from: Micros | None = None) -> int:
        """Track a market as the API does."""
        parts = market.parts
        key = await self.pool.fetchval(
            "SELECT ensure_market($1, $2, $3, $4, $5, $6)",
            market.exchange,
            market.symbol,
            parts.type,
            parts.base,
            parts.quote,
            parts.settle,
        )
        since = to_datetime(history_from if history_from is not None else self.clock.now())
        await self.pool.execute(
            "INSERT INTO tracked_market (market_key, history_from) VALUES ($1, $2)", key, since
        )
        return int(key)

    async def state(self, market: Market) -> str | None:
        found: str | None = await self.pool.fetchval(
            "SELECT s.state FROM market_state s JOIN market m USING (market_key) WHERE exchange = $1 AND symbol = $2",
            market.exchange,
            market.symbol,
        )
        return found


async def _follow(bus: MemoryBus, ledger: Ledger, partitions: int) -> None:
    """Read both topics as the aggregator and the API do."""
    trades = await bus.reader(TRADES)
    await trades.seek(dict.fromkeys(range(partitions), 0))
    statuses = await bus.reader(STATUS)
    await statuses.seek(dict.fromkeys(range(partitions), 0))
    while True:
        for fetched in await trades.poll(max_records=500, timeout=0.05):
            for message in fetched.messages:
                record = decode_trades(message.value)
                market = getattr(record, "market", None)
                if market is not None:
                    assert message.key is not None
                    assert message.key == market.key.encode()
                    assert partition_for(message.key, partitions) == message.partition
                ledger.apply(record)
        for fetched in await statuses.poll(max_records=500, timeout=0.0):
            ledger.statuses += [decode_status(message.value) for message in fetched.messages]


async def _project_gaps(pool: asyncpg.Pool[asyncpg.Record], ledger: Ledger) -> None:
    """Keep gap and job rows as a projection of what the ledger knows, as the aggregator does."""
    while True:
        rows = await pool.fetch(
            "SELECT t.market_key, m.exchange, m.symbol, t.history_from FROM tracked_market t JOIN market m USING (market_key)"
        )
        lost = {
            (record.market, record.unfillable.from_time): record.unfillable
            for record in ledger.kinds(JobEnded)
            if record.unfillable is not None
        }
        for row in rows:
            market = Market(row["exchange"], row["symbol"])
            begin = round(row["history_from"].timestamp() * 1_000_000)
            known = ledger.coverage(market)
            for (of, _), span in lost.items():
                if of == market:
                    known = known.add(span.from_time, span.to_time)
            end = ledger.coverage(market).end
            holes = list(known.missing(begin, end)) if end is not None and end > begin else []
            jobs = [record.job for record in ledger.kinds(JobEnded) if record.market == market]
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("DELETE FROM gap WHERE market_key = $1", row["market_key"])
                for hole in holes:
                    await connection.execute(
                        "INSERT INTO gap (market_key, from_time, to_time, cause, opened_time) VALUES ($1, $2, $3, 'test', now())",
                        row["market_key"],
                        to_datetime(hole.from_time),
                        to_datetime(hole.to_time),
                    )
                await connection.execute(
                    "INSERT INTO job (job, market_key, partition, origin, state, opened_time, last_append_time)"
                    " SELECT unnest($2::text[]), $1, 0, 'backfill', 'ended', now(), now() ON CONFLICT DO NOTHING",
                    row["market_key"],
                    jobs,
                )
        await asyncio.sleep(0.1)  # how often the projection is made


@pytest.fixture
async def schema(database: str) -> str:
    """An empty database with the schema in it."""
    await migrate_database(database)
    return database


@asynccontextmanager
async def open_rig(
    database: str,
    settings: dict[str, Any],
    *,
    partitions: int = 3,
    bus: MemoryBus | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Rig]:
    """Run a collector with these settings until the block ends."""
    clock = clock or SystemClock()
    bus = bus or MemoryBus(clock=clock, partitions=partitions)
    await bus.start()
    ledger = Ledger()
    async with asyncpg.create_pool(database, min_size=1, max_size=5) as pool:
        merged = CollectorSettings(postgres={"url": SecretStr(database)}, **settings)
        resources = Resources(clock=clock, bus=bus, pool=pool)
        stop = Stop()
        async with open_service(merged, resources=resources) as service:
            helpers = [
                asyncio.create_task(_follow(bus, ledger, partitions)),
                asyncio.create_task(_project_gaps(pool, ledger)),
            ]
            task = asyncio.create_task(service.run(stop))
            try:
                yield Rig(bus, pool, ledger, stop, task, clock, service.health)
            finally:
                stop.request()
                await asyncio.wait({task}, timeout=20)
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                task.result()
        await bus.close()


@pytest.fixture
def rig(schema: str) -> Callable[..., Any]:
    """Open a collector: `async with rig({...settings}) as running`."""

    def opened(settings: dict[str, Any], **more: Any) -> Any:
        return open_rig(schema, settings, **more)

    return opened
