"""Databases with the schema in them: migrated once a session, copied for each test."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from vegamite_aggregator.adapters.outbox_table import PostgresOutbox
from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.config import AggregatorSection
from vegamite_aggregator.migrate import migrate_database
from vegamite_aggregator.ports import CandleStore
from vegamite_aggregator.service import AggregatorService
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.offset_store import VolatileOffsetStore
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, Message
from vegamite_common.domain.number import canonical
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.candles import CandlesRecord, decode_candles
from vegamite_common.messages.status import StatusRecord, decode_status
from vegamite_common.messages.trades import Heartbeat, TradesTopicRecord, encode_trades
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.runtime.postgres import POSTGRES_FAULTS
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.manual_clock import ManualClock
from vegamite_common.testing.reference_fold import TIMEFRAME_NAMES, RawTrade, fold, plain, rfc3339

NOON = 1_760_097_600 * SECOND  # 2025-10-10 12:00 UTC


def _named(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _command(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    name = f"template_{uuid.uuid4().hex}"
    asyncio.run(_command(postgres_url, f'CREATE DATABASE "{name}"'))
    asyncio.run(migrate_database(_named(postgres_url, name)))
    yield name
    asyncio.run(_command(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@asynccontextmanager
async def _database(postgres_url: str, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    await _command(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield _named(postgres_url, name)
    await _command(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest_asyncio.fixture
async def migrated(postgres_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a database of its own that has the schema and nothing else."""
    async with _database(postgres_url, template) as url:
        yield url


@pytest_asyncio.fixture
async def pool(migrated: str) -> "AsyncIterator[asyncpg.Pool[asyncpg.Record]]":
    """Connections to the migrated database."""
    pool = await asyncpg.create_pool(migrated, min_size=1, max_size=8)
    yield pool
    pool.terminate()


class Rig:
    """One log and one database, and any number of aggregators between them, as processes would be.

    Each aggregator has a pool of its own, so that it can be cut off from the database as a killed process would be.
    """

    def __init__(self, url: str, pool: "asyncpg.Pool[asyncpg.Record]", partitions: int) -> None:
        self.url = url
        self.service_url = url
        """As whom aggregators connect."""
        self.pool = pool
        self.partitions = partitions
        self.clock = ManualClock(NOON)
        self.offsets = VolatileOffsetStore()
        self.bus = MemoryBus(clock=self.clock, partitions=partitions, offsets=self.offsets)
        self._running: list[Running] = []

    async def new_log(self, partitions: int | None = None) -> None:
        """Begin the log anew, as a restart of the embedded bus does; offsets go on where they were reserved."""
        await self.bus.close()
        self.partitions = partitions or self.partitions
        self.bus = MemoryBus(clock=self.clock, partitions=self.partitions, offsets=self.offsets)
        await self.bus.start()

    async def start(
        self,
        *,
        new_log_epoch: bool = False,
        around: Callable[[PostgresCandleStore], CandleStore] = lambda store: store,
        **section: Any,
    ) -> "Running":
        """Start an aggregator; `around` may put something between it and its store."""
        pool = await asyncpg.create_pool(
            self.service_url,
            min_size=1,
            max_size=6,
            server_settings={"application_name": "aggregator"},
        )
        store = PostgresCandleStore(pool, owner=f"aggregator-{len(self._running)}")
        service = AggregatorService(
            bus=self.bus,
            store=around(store),
            outbox=PostgresOutbox(pool),
            clock=self.clock,
            section=AggregatorSection(tick_interval_ms=50, **section),
            new_log_epoch=new_log_epoch,
        )
        running = Running(service, pool)
        self._running.append(running)
        return running

    def forget(self, running: "Running") -> None:
        """One that was ended on purpose is not looked after any more."""
        self._running.remove(running)

    async def publish(self, *records: TradesTopicRecord, partition: int | None = None) -> None:
        """Append records, each to its market's partition; heartbeats to the one given."""
        for record in records:
            key = None if isinstance(record, Heartbeat) else record.market.key.encode()
            at = partition_for(key, self.partitions) if key is not None else partition or 0
            await self.bus.producer().publish(TRADES, at, [(key, encode_trades(record))])

    async def settled(self) -> None:
        """Wait until everything in the log is committed and everything committed is published."""
        reader = await self.bus.reader(TRADES)
        ends = await reader.end_offsets(range(self.partitions))
        await reader.close()

        async def done() -> bool:
            for running in self._running:
                running.raise_if_crashed()
            try:
                rows = await self.pool.fetch("SELECT partition, next_offset FROM partition_fence")
                left = await self.pool.fetchval("SELECT count(*) FROM outbox")
            except POSTGRES_FAULTS:
                return False  # a test took the database away
            fences = {row["partition"]: row["next_offset"] for row in rows}
            return not left and all(fences.get(at) == end for at, end in ends.items())

        await eventually(done, timeout_s=60, message="the aggregator reads and publishes all")

    async def becomes(self, question: str, *arguments: Any) -> None:
        """Wait until the database answers the question with true."""

        async def answer() -> bool:
            for running in self._running:
                running.raise_if_crashed()
            return bool(await self.pool.fetchval(question, *arguments))

        await eventually(answer, timeout_s=60, message=question)

    async def published(self) -> list[CandlesRecord]:
        """Return every record of the candles topic that is still in the log, oldest first within each partition."""
        return [decode_candles(message.value) for message in await self.messages(CANDLES)]

    async def statuses(self) -> list[StatusRecord]:
        """Return every record of the status topic that is still in the log."""
        return [decode_status(message.value) for message in await self.messages(STATUS)]

    async def messages(self, topic: str) -> list[Message]:
        """Return what is still in the log of a topic."""
        reader = await self.bus.reader(topic)
        await reader.seek(await reader.begin_offsets(range(self.partitions)))
        found: list[Message] = []
        while batch := [
            m for f in await reader.poll(max_records=10_000, timeout=0) for m in f.messages
        ]:
            found += batch
        await reader.close()
        return found

    async def rows(self, table: str, *without: str) -> list[dict[str, Any]]:
        """Return a table's rows by its key, without some columns."""
        order = {
            "trade": "market_key, event_time, trade_id",
            "candle": "market_key, timeframe, open_time",
            "outbox": "id",
        }.get(table, "1, 2")
        rows = await self.pool.fetch(f"SELECT * FROM {table} ORDER BY {order}")
        return [{name: value for name, value in row.items() if name not in without} for row in rows]

    async def close(self) -> None:
        """End everything."""
        for running in self._running:
            await running.kill()
        await self.bus.close()


class Running:
    """An aggregator at work."""

    def __init__(self, service: AggregatorService, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.service = service
        self.pool = pool
        self.stop_request = Stop()
        self.task = asyncio.create_task(service.run(self.stop_request))

    def raise_if_crashed(self) -> None:
        """Show a crash where it happened instead of a time-out elsewhere."""
        if self.task.done() and not self.task.cancelled():
            self.task.result()

    async def stop(self) -> None:
        """Ask it to drain, and wait."""
        self.stop_request.request()
        await self.task
        await self.pool.close()

    async def kill(self) -> None:
        """End it at once, its connections first, whatever it was doing."""
        self.pool.terminate()
        self.task.cancel()
        await asyncio.wait({self.task})


@asynccontextmanager
async def _rig(url: str, *, partitions: int = 1) -> AsyncIterator[Rig]:
    pool = await asyncpg.create_pool(url, min_size=1, max_size=4)
    rig = Rig(url, pool, partitions)
    await rig.bus.start()
    try:
        yield rig
    finally:
        await rig.close()
        pool.terminate()


@pytest.fixture
def open_rig() -> Callable[..., AbstractAsyncContextManager[Rig]]:
    """Opens a log beside a database that the test has."""
    return _rig


@pytest_asyncio.fixture
async def make_rig(
    postgres_url: str, template: str
) -> AsyncIterator[Callable[..., Awaitable[Rig]]]:
    """Makes logs with a database each."""
    async with AsyncExitStack() as stack:

        async def make(*, partitions: int = 1) -> Rig:
            url = await stack.enter_async_context(_database(postgres_url, template))
            return await stack.enter_async_context(_rig(url, partitions=partitions))

        yield make


@pytest_asyncio.fixture
async def rig(make_rig: Callable[..., Awaitable[Rig]]) -> Rig:
    """A log of one partition and a database."""
    return await make_rig()


@pytest.fixture
def trades() -> "Callable[..., list[Trade]]":
    """Makes seeded trades of one market: irregular, several in some milliseconds, numbered in order of time."""

    def make(
        *, seed: int = 1, count: int = 300, begin: int | None = None, step: int = SECOND
    ) -> list[Trade]:
        random = Random(seed)
        made: list[Trade] = []
        event_time = NOON - (count + 60) * SECOND if begin is None else begin
        for number in range(count):
            event_time += random.choice(
                (0, 0, 1000, random.randrange(step), random.randrange(4 * step))
            )
            made.append(
                Trade(
                    trade_id=str(1000 + number),
                    sequence=1000 + number,
                    event_time=event_time,
                    price=canonical(Decimal(random.randrange(90_000, 110_000)) / 1000),
                    amount=canonical(Decimal(random.randrange(1, 10**9)) / 10**8),
                    taker_side=random.choice(("buy", "sell", None)),
                )
            )
        return made

    return make


@pytest.fixture
def assert_equal_fold() -> Callable[[list[dict[str, Any]], Sequence[Trade]], None]:
    """Compares candle rows of one market with a plain fold of its trades, every field to the last digit."""

    def compare(rows: list[dict[str, Any]], trades: Sequence[Trade]) -> None:
        """Compare candle rows of one market with a plain fold of its trades, every field to the last digit."""
        raw = [
            RawTrade(
                trade_id=int(trade.trade_id),
                event_time=trade.event_time // 1000,
                price=trade.price,
                amount=trade.amount,
                taker_buys=trade.taker_side == "buy",
            )
            for trade in trades
        ]
        for timeframe in TIMEFRAME_NAMES:
            wanted = fold(raw, timeframe)
            stored = {
                rfc3339(row["open_time"]): {
                    name: plain(row[name])
                    if name.endswith(("volume", "open", "high", "low", "close"))
                    else str(row[name])
                    for name in next(iter(wanted.values()))
                }
                for row in rows
                if row["timeframe"] == timeframe
            }
            assert stored == wanted, timeframe

    return compare
