"""A served API over a real PostgreSQL and the in-process bus; the real aggregator beside it where a test wants one."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
import websockets.asyncio.client as ws_client
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed

from vegamite_aggregator.adapters.outbox_table import PostgresOutbox
from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.config import AggregatorSection
from vegamite_aggregator.migrate import migrate_database
from vegamite_aggregator.service import AggregatorService
from vegamite_api.adapters.postgres_key_store import PostgresKeyStore
from vegamite_api.bootstrap import open_service
from vegamite_api.config import ApiSection, ApiSettings
from vegamite_api.core.access import Scope
from vegamite_api.service.key_ring import create_key
from vegamite_api.service.lifetime import ApiService
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, STATUS, TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import canonical
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import CandlesRecord, encode_candles
from vegamite_common.messages.status import StatusRecord, encode_status
from vegamite_common.messages.trades import (
    Heartbeat,
    TradesRecord,
    TradesTopicRecord,
    encode_trades,
)
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Resources, Stop
from vegamite_common.runtime.section import PostgresSection
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.manual_clock import ManualClock

NOON = 1_760_097_600 * SECOND  # 2025-10-10 12:00 UTC
DEMO = Market("sim", "DEMO/USD")
BTC = Market("kraken", "BTC/USD")


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
    """The name of a database with the schema and two exchanges in it, copied for each test."""
    name = f"template_{uuid.uuid4().hex}"
    url = _named(postgres_url, name)
    asyncio.run(_command(postgres_url, f'CREATE DATABASE "{name}"'))
    asyncio.run(migrate_database(url))
    asyncio.run(
        _command(
            url,
            "INSERT INTO exchange (exchange, name, simulated, trades) VALUES "
            "('kraken', 'Kraken', false, 'stream'), ('sim', 'Demo', true, 'stream')",
        )
    )
    yield name
    asyncio.run(_command(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


class Stream:
    """A WebSocket client that keeps all it was told."""

    def __init__(self, connection: ws_client.ClientConnection) -> None:
        self.connection = connection
        self.messages: list[dict[str, Any]] = []

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        self.messages.append(message)
        return message

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Receive until a message is as wanted, and return it."""
        while True:
            message = await self.receive()
            if wanted(message):
                return message

    async def ask(self, method: str, req_id: int = 1, **params: Any) -> dict[str, Any]:
        """Send a request and return its reply; what comes between is kept."""
        await self.send(method=method, req_id=req_id, params=params)
        return await self.until(lambda m: m.get("method") == method and m["req_id"] == req_id)

    async def closed(self) -> int:
        """Read to the end; return the close code."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    self.messages.append(json.loads(await self.connection.recv()))
        assert self.connection.close_code is not None
        return self.connection.close_code

    def data(self, channel: str, *types: str) -> list[dict[str, Any]]:
        """Return the rows of all messages of a channel, in the order they came."""
        return [
            row
            for message in self.messages
            if message.get("channel") == channel and message.get("type") in types
            for row in message["data"]
        ]


class World:
    """One database, one log, an API in front of them."""

    def __init__(self, url: str, pool: "asyncpg.Pool[asyncpg.Record]", partitions: int) -> None:
        self.url = url
        self.pool = pool
        self.partitions = partitions
        self.clock = ManualClock(NOON)
        self.bus = MemoryBus(clock=self.clock, partitions=partitions)
        self.stack = AsyncExitStack()
        self.service: ApiService
        self.http: httpx.AsyncClient
        self.stop = Stop()
        self.serving: asyncio.Task[None]

    async def begin_log(self) -> None:
        """Declare the log's epoch, which an aggregator does otherwise."""
        await self.pool.execute(
            "INSERT INTO log_epoch (epoch, partitions) VALUES (1, $1)", self.partitions
        )

    async def serve(self, **section: Any) -> None:
        """Start the API on a port of the system's choice."""
        settings = ApiSettings(
            api=ApiSection(
                **{
                    "port": 0,
                    "management_port": 0,
                    "anonymous_read": True,
                    "drain_ms": 50,
                    "heartbeat_ms": 300,
                }
                | section
            ),
            postgres=PostgresSection(url=SecretStr(self.url)),
        )
        resources = Resources(clock=self.clock, bus=self.bus, pool=self.pool)
        self.service = await self.stack.enter_async_context(
            open_service(settings, resources=resources, probes=Health("probes"))
        )
        self.serving = asyncio.create_task(self.service.run(self.stop))
        self.stack.push_async_callback(self._stop)
        address = f"http://127.0.0.1:{self.service.port}"
        self.http = await self.stack.enter_async_context(
            httpx.AsyncClient(base_url=address, timeout=30)
        )

    async def ready(self) -> None:
        """Wait until the API has reached the end of the log."""
        await eventually(lambda: self.service.health.ready().ok, message="the API becomes ready")

    async def _stop(self) -> None:
        self.stop.request()
        await self.serving

    @asynccontextmanager
    async def stream(
        self, replica: ApiService | None = None, **options: Any
    ) -> AsyncIterator[Stream]:
        """Connect a WebSocket client, to the replica that was started last or to another."""
        await self.ready()
        address = f"ws://127.0.0.1:{(replica or self.service).port}/v1/ws"
        async with ws_client.connect(
            address, proxy=None, **{"max_queue": None, **options}
        ) as connection:
            yield Stream(connection)

    async def admin_key(self, scope: Scope = Scope.ADMIN) -> str:
        key, _ = await create_key(PostgresKeyStore(self.pool), scope=scope, name="test")
        return key

    async def market(self, market: Market = BTC, *, tracked: bool = False) -> int:
        """Make a market's row; return its number."""
        parts = market.parts
        key: int = await self.pool.fetchval(
            "SELECT ensure_market($1, $2, $3, $4, $5, $6)",
            market.exchange,
            market.symbol,
            parts.type,
            parts.base,
            parts.quote,
            parts.settle,
        )
        if tracked:
            await self.pool.execute("INSERT INTO tracked_market (market_key) VALUES ($1)", key)
        return key

    async def aggregate(self) -> AggregatorService:
        """Start the real aggregator on the same log and database."""
        service = AggregatorService(
            bus=self.bus,
            store=PostgresCandleStore(self.pool, owner="aggregator"),
            outbox=PostgresOutbox(self.pool),
            clock=self.clock,
            section=AggregatorSection(tick_interval_ms=50, update_interval_ms=10),
        )
        stop = Stop()
        task = asyncio.create_task(service.run(stop))

        async def end() -> None:
            stop.request()
            await task

        self.stack.push_async_callback(end)
        return service

    def partition(self, market: Market) -> int:
        return partition_for(market.key.encode(), self.partitions)

    async def publish(self, *records: TradesTopicRecord) -> None:
        """Append to the trades topic, each record to its market's partition, heartbeats to all."""
        for record in records:
            if isinstance(record, Heartbeat):
                for partition in range(self.partitions):
                    await self.bus.producer().publish(
                        TRADES, partition, [(None, encode_trades(record))]
                    )
                continue
            key = record.market.key.encode()
            await self.bus.producer().publish(
                TRADES, self.partition(record.market), [(key, encode_trades(record))]
            )

    async def publish_candles(self, *records: CandlesRecord) -> None:
        for record in records:
            key = record.market.key.encode()
            await self.bus.producer().publish(
                CANDLES, self.partition(record.market), [(key, encode_candles(record))]
            )

    async def publish_status(self, *records: StatusRecord) -> None:
        for record in records:
            key = record.market.key.encode()
            await self.bus.producer().publish(
                STATUS, self.partition(record.market), [(key, encode_status(record))]
            )

    async def settled(self) -> None:
        """Wait until the aggregator committed all of the trades topic and published what it committed."""
        reader = await self.bus.reader(TRADES)
        ends = await reader.end_offsets(range(self.partitions))
        await reader.close()

        async def done() -> bool:
            rows = await self.pool.fetch("SELECT partition, next_offset FROM partition_fence")
            fences = {row["partition"]: row["next_offset"] for row in rows}
            left = await self.pool.fetchval("SELECT count(*) FROM outbox")
            return not left and all(fences.get(at) == end for at, end in ends.items())

        await eventually(done, timeout_s=60, message="the aggregator commits all")


MakeWorld = Callable[..., Awaitable[World]]


@pytest_asyncio.fixture
async def make_world(postgres_url: str, template: str) -> AsyncIterator[MakeWorld]:
    """Makes worlds, not served yet."""
    async with AsyncExitStack() as stack:

        async def make(*, partitions: int = 1) -> World:
            name = f"test_{uuid.uuid4().hex}"
            await _command(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
            stack.push_async_callback(
                _command, postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'
            )
            url = _named(postgres_url, name)
            pool = await asyncpg.create_pool(
                url, min_size=1, max_size=10, server_settings={"TimeZone": "UTC"}
            )
            stack.callback(pool.terminate)
            world = World(url, pool, partitions)
            await world.bus.start()
            stack.push_async_callback(world.bus.close)
            await stack.enter_async_context(world.stack)
            return world

        yield make


@pytest_asyncio.fixture
async def world(make_world: MakeWorld) -> World:
    """A served world with one partition, an epoch, and anonymous reading."""
    made = await make_world()
    await made.begin_log()
    await made.serve()
    return made


def make_trades(
    *, seed: int = 1, count: int = 300, begin: int = NOON - 7_200 * SECOND, step: int = SECOND
) -> list[Trade]:
    """Return seeded trades of one market: irregular, several in some microseconds, ids not in the order of their bytes."""
    random = Random(seed)
    made: list[Trade] = []
    event_time = begin
    for number in range(count):
        event_time += random.choice(
            (0, 0, 1000, random.randrange(step), random.randrange(4 * step))
        )
        made.append(
            Trade(
                trade_id=str(95 + number),
                sequence=95 + number,
                event_time=event_time,
                price=canonical(Decimal(random.randrange(90_000, 110_000)) / 1000),
                amount=canonical(Decimal(random.randrange(1, 10**9)) / 10**8),
                taker_side=random.choice(("buy", "sell", None)),
            )
        )
    return made


def trades_record(
    market: Market, trades: Sequence[Trade], *, covered: tuple[int, int] | None = None
) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=NOON,
        origin=Origin.LIVE,
        trades=tuple(trades),
        covered=covered,
    )


@pytest.fixture(name="make_trades")
def _make_trades() -> Callable[..., list[Trade]]:
    return make_trades


@pytest.fixture(name="trades_record")
def _trades_record() -> Callable[..., TradesRecord]:
    return trades_record
