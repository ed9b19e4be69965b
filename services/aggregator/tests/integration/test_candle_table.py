"""What is read of candles in a real PostgreSQL: at the start of a partition, and when a market that left memory is due."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.core.candle_cache import FOREVER, NEVER
from vegamite_aggregator.core.demand import IncompleteRange, OpenCandles, Wants
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, MINUTE, SECOND, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import SpanOpened, TradesRecord

QUIET = Market("sim", "QUIET/USD")
HELD = Market("sim", "HELD/USD")
EMPTY = Market("sim", "EMPTY/USD")
WEEK = "timeframe = '1w'"
ENSURE = "SELECT ensure_market($1, $2, 'spot', 'A', 'B', NULL)"


def record(market: Market, trades: Sequence[Trade], **more: Any) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=max(trade.event_time for trade in trades) + SECOND,
        origin=more.pop("origin", Origin.LIVE),
        trades=tuple(trades),
        **more,
    )


@pytest_asyncio.fixture
async def store(rig: Any, trades: Callable[..., list[Trade]]) -> AsyncIterator[PostgresCandleStore]:
    """A store whose aggregator went away in the middle: one market has open candles, one's are held, one has none."""
    begin = rig.clock.now() - 90 * MINUTE
    live = trades(seed=1, count=200, begin=begin, step=20 * SECOND)
    bulk = trades(seed=2, count=100, begin=begin - 40 * HOUR)
    await rig.publish(
        SpanOpened(exchange="sim", symbol="EMPTY/USD", writer="w", from_time=rig.clock.now()),
        record(QUIET, [trade for trade in live if trade.event_time < rig.clock.now()]),
        record(HELD, bulk, origin=Origin.IMPORT, job="import-1"),
    )
    running = await rig.start(resident_candles=0)
    await rig.settled()
    await running.stop()
    rig.forget(running)
    store = PostgresCandleStore(rig.pool, owner="next")
    await store.open_log(partitions=1, new_epoch=False)
    yield store


async def candles(rig: Any, market: Market, only: str) -> list[asyncpg.Record]:
    key = await rig.pool.fetchval(ENSURE, market.exchange, market.symbol)
    rows: list[asyncpg.Record] = await rig.pool.fetch(
        f"SELECT * FROM candle WHERE market_key = $1 AND {only}", key
    )
    return rows


def keys_of(rows: Sequence[asyncpg.Record]) -> set[tuple[Timeframe, int]]:
    return {(Timeframe(row["timeframe"]), from_datetime(row["open_time"])) for row in rows}


async def test_a_partition_begins_with_what_it_must_know_and_without_candles(
    rig: Any, store: PostgresCandleStore
) -> None:
    markets = (await store.load(0, begin_offset=0)).markets
    still_open = await candles(rig, QUIET, "NOT final")

    assert markets.keys() == {QUIET, HELD, EMPTY}
    assert len(still_open) > 3
    assert not any(known.candles for known in markets.values())
    assert markets[QUIET].open_close_time == min(
        timeframe.close_time(at) for timeframe, at in keys_of(still_open)
    )
    assert (markets[HELD].open_close_time, markets[EMPTY].open_close_time) == (FOREVER, FOREVER)
    assert markets[EMPTY].newest_event_time == NEVER
    for market in (QUIET, HELD):
        rows = await candles(rig, market, "true")
        newest = max(from_datetime(row["last_event_time"]) for row in rows)
        assert markets[market].newest_event_time == newest
        for timeframe in Timeframe:
            at = max(open_time for of, open_time in keys_of(rows) if of is timeframe)
            assert markets[market].resident_from(timeframe) == at + 1


@pytest.mark.parametrize("known", [True, False])
async def test_a_market_that_is_due_gets_its_open_candles_and_no_others(
    rig: Any, store: PostgresCandleStore, known: bool
) -> None:
    state = await store.load(0, begin_offset=0)
    quiet = state.markets[QUIET]
    bounds = (quiet.open_close_time, quiet.newest_event_time) if known else (NEVER, FOREVER)
    wants = Wants(open_candles=[OpenCandles(QUIET, *bounds), OpenCandles(HELD, *bounds)])
    async with store.step(state) as step:
        loaded = await step.load(wants)

    found = loaded.open_candles
    assert found.keys() == {QUIET}
    assert {row.key for row in found[QUIET]} == keys_of(await candles(rig, QUIET, "NOT final"))
    assert loaded.count == len(found[QUIET])


async def test_ranges_of_several_markets_give_their_final_incomplete_and_free_candles(
    rig: Any, store: PostgresCandleStore
) -> None:
    state = await store.load(0, begin_offset=0)
    now = rig.clock.now()
    wants = Wants(
        incomplete=[
            IncompleteRange(QUIET, Timeframe.M1, now - 80 * MINUTE, now - 70 * MINUTE),
            IncompleteRange(QUIET, Timeframe.M1, now - 60 * MINUTE, now - 55 * MINUTE),
            IncompleteRange(QUIET, Timeframe.M15, now - 2 * HOUR, now),
            IncompleteRange(HELD, Timeframe.M1, now - 50 * HOUR, now),
        ]
    )
    async with store.step(state) as step:
        loaded = await step.load(wants)

    rows = keys_of(await candles(rig, QUIET, "final AND NOT complete"))
    assert loaded.candles.keys() == {QUIET}
    assert {row.key for row in loaded.candles[QUIET]} == {
        (timeframe, at)
        for timeframe, at in rows
        if timeframe is Timeframe.M15
        or (timeframe is Timeframe.M1 and now - 80 * MINUTE <= at < now - 70 * MINUTE)
        or (timeframe is Timeframe.M1 and now - 60 * MINUTE <= at < now - 55 * MINUTE)
    }


async def test_a_new_owner_closes_the_candles_of_a_quiet_market_on_time(
    rig: Any, store: PostgresCandleStore
) -> None:
    before = await candles(rig, QUIET, "final")
    await rig.start(resident_candles=0)
    rig.clock.advance(HOUR // SECOND)

    await rig.becomes(
        "SELECT bool_and(final) FROM candle JOIN market USING (market_key)"
        " WHERE symbol = 'QUIET/USD' AND timeframe NOT IN ('8h', '1d', '3d', '1w', '1M')"
    )
    await rig.settled()
    assert await rig.pool.fetchval("SELECT bool_and(revision = 0) FROM candle")
    assert len(await candles(rig, QUIET, "final")) > len(before)


async def test_a_partition_begins_with_gaps_that_wait_and_those_filled_ones_that_touch_them(
    rig: Any, store: PostgresCandleStore
) -> None:
    key = await rig.pool.fetchval(ENSURE, EMPTY.exchange, EMPTY.symbol)
    states = [
        "filled",
        "filled",
        "open",
        "filled",
        "filled",
        "unfillable",
        "filled",
        "open",
        "open",
        "filled",
    ]
    noon = rig.clock.now()
    begins = [noon + at * MINUTE for at in range(len(states))]
    ends = [at + (MINUTE if number != 6 else MINUTE // 2) for number, at in enumerate(begins)]
    await rig.pool.executemany(
        "INSERT INTO gap (market_key, from_time, to_time, cause, state, reason, opened_time)"
        " VALUES ($1, $2, $3, 'silence', $4, $5, $2)",
        [
            (key, to_datetime(begin), to_datetime(end), state, "gone" if "un" in state else None)
            for begin, end, state in zip(begins, ends, states, strict=True)
        ],
    )
    gaps = (await store.load(0, begin_offset=0)).markets[EMPTY].gaps

    assert sorted(gaps) == [begins[number] for number in (1, 2, 3, 5, 7, 8, 9)]


@pytest.mark.parametrize("timeframe", ["1M", "1d"])
async def test_a_candle_that_somebody_deleted_does_not_make_the_others_look_new(
    rig: Any,
    store: PostgresCandleStore,
    trade: Callable[..., Trade],
    timeframe: str,
) -> None:
    newest = (await store.load(0, begin_offset=0)).markets[QUIET].newest_event_time
    key = await rig.pool.fetchval(ENSURE, QUIET.exchange, QUIET.symbol)
    await rig.pool.execute(
        "DELETE FROM candle WHERE market_key = $1 AND timeframe = $2", key, timeframe
    )
    assert (await store.load(0, begin_offset=0)).markets[QUIET].newest_event_time == newest

    before = {row["open_time"]: row["trade_count"] for row in await candles(rig, QUIET, WEEK)}
    await rig.publish(record(QUIET, [trade(1_000_000, newest)]))
    await rig.start()
    await rig.settled()
    after = {row["open_time"]: row["trade_count"] for row in await candles(rig, QUIET, WEEK)}
    assert sum(after.values()) == sum(before.values()) + 1
