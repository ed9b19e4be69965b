"""Trades into the real table: every way in leaves the same rows, whatever is in them, and says what was there."""

from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import pytest_asyncio
from msgspec.structs import replace

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.adapters.time_partition import TimePartitions
from vegamite_aggregator.adapters.trade_table import COPY_FROM, TradeTable, stored_trades
from vegamite_aggregator.core.block_reader import read_block
from vegamite_aggregator.core.candle_cache import FOREVER
from vegamite_aggregator.core.facts import TradeBatch
from vegamite_aggregator.core.packed_trades import PackedTrades
from vegamite_aggregator.metrics import TRADE_BATCHES
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, SECOND, to_datetime
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord, encode_trades

MARKET = Market("sim", "DEMO/USD")
KEY = 7
NOON = 1_760_097_600 * SECOND
WILD_IDS = ("a\tb", "a\\tb", "line\nbreak", "\\N", "\\.", "\r", "ü", "a b", '{x,"y"}', "0")
MANY = COPY_FROM + 50


def make(first: int, count: int, *, price: str = "0.000000000000000000000000000001") -> list[Trade]:
    return [
        Trade(
            trade_id=f"{WILD_IDS[number % len(WILD_IDS)]}{number}",
            sequence=number - 5,
            event_time=NOON + number * 1_000_001,
            price=Decimal(price) + number % 3,
            amount=Decimal("123456789012345678901234567890")
            if number % 7
            else Decimal("0.0000001"),
            taker_side=("buy", "sell", None)[number % 3],
        )
        for number in range(first, first + count)
    ]


def batch(trades: list[Trade], *, job: str | None = "a \\job") -> TradeBatch:
    return TradeBatch(
        market=MARKET,
        received_time=NOON + 1,
        origin=Origin.BACKFILL,
        job=job,
        offset=0,
        trades=tuple(trades),
    )


def packed(trades: list[Trade]) -> TradeBatch:
    record = TradesRecord(
        exchange=MARKET.exchange,
        symbol=MARKET.symbol,
        received_time=NOON + 1,
        origin=Origin.BACKFILL,
        trades=tuple(trades),
    )
    read = read_block(encode_trades(record))
    assert read is not None
    return replace(batch([], job="a \\job"), trades=PackedTrades(read.trades))


def plain(first: int, count: int) -> list[Trade]:
    """Trades whose numbers have from none to four groups of digits on either side of the point."""
    return [
        Trade(
            trade_id=f"{number}",
            sequence=5 - number,
            event_time=NOON + number * 1_000,
            price=Decimal(7 * 10 ** (number % 16) + number).scaleb(-(number % 13)),
            amount=Decimal(10 ** (number % 17)).scaleb(-(number % 5)),
            taker_side=("buy", "sell", None)[number % 3],
        )
        for number in range(first, first + count)
    ]


class Table:
    """The table of a database of its own, and what was inserted by which way."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.table = TradeTable()
        self.newest = FOREVER

    async def insert(self, *batches: TradeBatch) -> tuple[set[str], int, str]:
        """Insert in a transaction; return the ids that were there, how many contradict, and the way."""
        before = {way: self._count(way) for way in ("inserted", "copied", "fallback", "looked")}
        async with self.connection.transaction():
            inserted = await self.table.insert(
                self.connection,
                partition=0,
                batches=batches,
                keys={MARKET: KEY},
                newest=lambda _: self.newest,
            )
        (way,) = [way for way, count in before.items() if self._count(way) > count]
        return {trade_id for _, _, trade_id in inserted.stored}, inserted.contradicting, way

    @staticmethod
    def _count(way: str) -> float:
        return float(TRADE_BATCHES.labels(way)._value.get())

    async def stored(self) -> list[Trade]:
        return [
            trade
            async for page in stored_trades(
                self.connection, market_key=KEY, from_time=NOON, to_time=NOON + DAY
            )
            for trade in page
        ]


@pytest_asyncio.fixture
async def table(pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[Table]:
    await TimePartitions(pool).prepare([NOON])
    async with pool.acquire() as connection:
        yield Table(connection)


def by_id(trades: list[Trade]) -> list[Trade]:
    return sorted(trades, key=lambda trade: trade.trade_id)


async def test_every_way_in_keeps_each_value_as_it_is(table: Table) -> None:
    few, many = make(0, 20), make(20, MANY)

    assert await table.insert(batch(few)) == (set(), 0, "inserted")
    assert await table.insert(batch(many[:100]), batch(many[100:])) == (set(), 0, "copied")

    assert by_id(await table.stored()) == by_id([*few, *many])
    rows = await table.connection.fetch(
        "SELECT DISTINCT market_key, received_time, origin, job FROM trade"
    )
    assert [tuple(row) for row in rows] == [(KEY, to_datetime(NOON + 1), "backfill", "a \\job")]
    assert await table.connection.fetchval("SELECT count(*) FROM trade WHERE taker_side IS NULL")


async def test_what_was_there_stays_and_is_told_and_contradictions_are_counted(
    table: Table,
) -> None:
    first = make(0, MANY)
    await table.insert(batch(first, job=None))
    other = make(MANY - 10, 10, price="5")
    again = [*other, *make(MANY, MANY)]
    known = {trade.trade_id for trade in other}

    assert await table.insert(batch(again)) == (known, 10, "fallback")
    assert await table.insert(batch(first[:3])) == ({t.trade_id for t in first[:3]}, 0, "inserted")
    assert by_id(await table.stored()) == by_id([*first, *again[10:]])


async def test_after_a_repetition_trades_are_looked_up_first_until_all_are_new(
    table: Table,
) -> None:
    parts = [make(number * MANY, MANY) for number in range(4)]
    ways = [
        (await table.insert(batch(trades)))[2]
        for trades in (parts[0], parts[0], parts[0], parts[1], parts[2], parts[3][:50] + parts[2])
    ]

    assert ways == ["copied", "fallback", "looked", "looked", "copied", "fallback"]
    assert len(await table.stored()) == 3 * MANY + 50


async def test_packed_and_other_trades_of_one_batch_are_stored_alike(table: Table) -> None:
    some, others = plain(0, MANY), make(2 * MANY, MANY)

    assert await table.insert(packed(some), batch(others)) == (set(), 0, "copied")

    assert by_id(await table.stored()) == by_id([*some, *others])
    shown = await table.connection.fetch(
        "SELECT trade_id, price::text AS price, amount::text AS amount FROM trade"
    )
    assert {row["trade_id"]: (row["price"], row["amount"]) for row in shown} == {
        trade.trade_id: (f"{trade.price:f}", f"{trade.amount:f}")
        for trade in (*packed(some).trades, *others)
    }
    rows = await table.connection.fetch(
        "SELECT DISTINCT market_key, received_time, origin, job FROM trade"
    )
    assert [tuple(row) for row in rows] == [(KEY, to_datetime(NOON + 1), "backfill", "a \\job")]


async def test_only_what_may_be_there_is_looked_up_where_it_is_little(table: Table) -> None:
    first, second = plain(0, MANY), plain(MANY - 10, 2 * MANY)
    await table.insert(packed(first))
    table.newest = first[-1].event_time
    known = {trade.trade_id for trade in first[-10:]}

    assert await table.insert(packed(second[:20]), packed(second[20:])) == (known, 0, "looked")
    table.newest = second[-1].event_time
    assert await table.insert(packed(plain(3 * MANY, MANY))) == (set(), 0, "copied")

    assert len(await table.stored()) == 4 * MANY - 10


async def test_rows_that_came_from_elsewhere_cost_nothing_but_time(table: Table) -> None:
    first, second = plain(0, MANY), plain(MANY, MANY)
    await table.insert(packed([*first, *second[5:8]]))
    table.newest = first[-1].event_time

    found, contradicting, _ = await table.insert(packed(second[:3]), packed(second[3:]))

    assert (found, contradicting) == ({trade.trade_id for trade in second[5:8]}, 0)
    assert len(await table.stored()) == 2 * MANY
