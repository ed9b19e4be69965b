"""Spans, the gaps between them, and a log that lost records."""

from collections.abc import Callable
from typing import Any

import pytest

from vegamite_aggregator.core.discontinuity import discontinuity
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, MINUTE, SECOND, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.status import GapFilled, GapOpened, GapUnfillable
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    Unfillable,
    encode_trades,
)

NOON = parse_time("2024-02-29T12:00:00Z")
MARKET = Market("kraken", "BTC/USD")
ABOUT: dict[str, Any] = {"exchange": MARKET.exchange, "symbol": MARKET.symbol}

MakeTrade = Callable[..., Trade]


@pytest.fixture
def world(make_world: Any) -> Any:
    """A world at noon whose market is tracked from noon on."""
    made = make_world(start=NOON)
    made.store.history_from[MARKET] = NOON
    made.restart()
    return made


def open_span(world: Any, start: Micros, writer: str = "w") -> None:
    world.send(SpanOpened(**ABOUT, writer=writer, from_time=start))


def beat(world: Any, to: Micros, writer: str = "w") -> None:
    world.send(Heartbeat(writer=writer, to_time=to))


def second(world: Any, at: Micros = NOON) -> Candle:
    candle: Candle = world.candle(MARKET, Timeframe.S1, at)
    return candle


def standing(candle: Candle) -> tuple[bool, bool, int]:
    return candle.final, candle.complete, candle.revision


def told(world: Any, timeframe: Timeframe = Timeframe.S1) -> list[tuple[str, str | None]]:
    return [
        (record.type, record.reason)
        for record in world.reader.records
        for candle in record.candles
        if candle.timeframe is timeframe
    ]


# --- spans -----------------------------------------------------------------------------------------


def test_heartbeats_of_a_writer_without_a_span_claim_nothing(world: Any) -> None:
    open_span(world, NOON, writer="one")
    world.clock += 10 * SECOND
    beat(world, world.clock, writer="another")
    world.step()

    assert not world.store.coverage.get(MARKET)


def test_a_repeated_opening_is_ignored_while_the_span_is_open(world: Any) -> None:
    open_span(world, NOON)
    world.clock += 10 * SECOND
    beat(world, world.clock)
    open_span(world, world.clock + SECOND)
    world.clock += 10 * SECOND
    beat(world, world.clock)
    world.step()

    rows = world.store.coverage[MARKET].values()
    assert [(row.from_time, row.to_time) for row in rows] == [(NOON, NOON + 20 * SECOND)]


def test_a_closed_span_is_no_longer_extended_and_says_why_it_ended(world: Any) -> None:
    open_span(world, NOON)
    world.clock += 10 * SECOND
    beat(world, NOON + 5 * SECOND)
    world.send(SpanClosed(**ABOUT, writer="w", to_time=NOON + 6 * SECOND, cause="socket_closed"))
    beat(world, NOON + 9 * SECOND)
    world.step()

    (row,) = world.store.coverage[MARKET].values()
    assert (row.from_time, row.to_time, row.end_cause) == (
        NOON,
        NOON + 6 * SECOND,
        "socket_closed",
    )
    assert not world.store.open_spans


@pytest.mark.parametrize("key", [None, b"kraken:ETH/USD"])
def test_a_trade_that_is_refused_for_its_key_is_not_covered_by_the_next_heartbeat(
    world: Any, trade: MakeTrade, key: bytes | None
) -> None:
    open_span(world, NOON)
    beat(world, NOON)
    world.step()
    world.clock += 5 * SECOND
    stray = TradesRecord(
        **ABOUT, received_time=world.clock, origin=Origin.LIVE, trades=(trade(1, NOON),)
    )
    world.send_bytes(key, encode_trades(stray))
    world.send_trades(MARKET, [trade(2, NOON + SECOND)])
    world.clock += 2 * MINUTE
    beat(world, world.clock)
    world.settle()

    assert standing(world.candle(MARKET, Timeframe.M1, NOON)) == (True, False, 0)


def test_the_span_of_a_dead_writer_is_forgotten_and_a_living_one_opens_it_again(
    world: Any,
) -> None:
    open_span(world, NOON, writer="dead")
    open_span(world, NOON, writer="alive")
    for _ in range(10):
        world.clock += MINUTE
        beat(world, world.clock, writer="alive")
        world.step()
    assert len(world.store.open_spans) == 2

    world.clock += MINUTE
    beat(world, world.clock, writer="alive")
    world.step()
    assert [writer for writer, _ in world.store.open_spans] == ["alive"]

    open_span(world, world.clock, writer="dead")
    world.clock += SECOND
    beat(world, world.clock, writer="dead")
    world.step()
    (row,) = world.store.coverage[MARKET].values()
    assert (row.from_time, row.to_time) == (NOON, world.clock)


def test_a_lost_log_ends_spans_where_they_stand_and_later_heartbeats_extend_nothing(
    world: Any,
) -> None:
    open_span(world, NOON)
    world.clock += 10 * SECOND
    beat(world, NOON + 5 * SECOND)
    world.step()
    changes = discontinuity(world.state, next_offset=2)
    world.store.write(changes)
    world.state.apply(changes)
    world.check_memory()
    beat(world, NOON + 9 * SECOND)
    open_span(world, NOON + 9 * SECOND)
    world.clock += 2 * SECOND
    beat(world, NOON + 11 * SECOND)
    world.step()

    rows = [(row.from_time, row.to_time) for row in world.store.coverage[MARKET].values()]
    assert rows == [(NOON, NOON + 5 * SECOND), (NOON + 9 * SECOND, NOON + 11 * SECOND)]
    (gap,) = world.store.gaps[MARKET].values()
    assert (gap.from_time, gap.to_time, gap.cause) == (
        NOON + 5 * SECOND,
        NOON + 9 * SECOND,
        "log_lost",
    )


def test_a_new_log_begins_with_its_epoch_and_orders_after_the_old_one(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, [trade(1, NOON)])
    world.send_trades(MARKET, [trade(2, NOON)])
    world.step()
    changes = discontinuity(world.state, next_offset=0, epoch=1)
    world.store.write(changes)
    world.state.apply(changes)
    world.log.clear()
    world.send_trades(MARKET, [trade(3, NOON)])
    world.step()

    candle = second(world)
    assert (candle.epoch, candle.as_of, candle.trade_count) == (1, 0, 3)


# --- gaps ------------------------------------------------------------------------------------------


def test_a_gap_is_what_lies_between_spans_and_is_filled_page_by_page(
    world: Any, trade: MakeTrade
) -> None:
    open_span(world, NOON)
    world.clock += 20 * SECOND
    beat(world, NOON + 10 * SECOND)
    world.send(SpanClosed(**ABOUT, writer="w", to_time=NOON + 10 * SECOND, cause="socket_closed"))
    world.step()
    assert not world.store.gaps.get(MARKET)

    open_span(world, NOON + 30 * SECOND)
    world.clock += 20 * SECOND
    beat(world, NOON + 35 * SECOND)
    world.step()
    (gap,) = world.store.gaps[MARKET].values()
    assert (gap.from_time, gap.to_time, gap.cause, gap.state) == (
        NOON + 10 * SECOND,
        NOON + 30 * SECOND,
        "socket_closed",
        GapState.OPEN,
    )
    assert isinstance(world.reader.statuses[-1], GapOpened)

    for page in range(2):
        start = NOON + (10 + 10 * page) * SECOND
        world.restart()
        world.send_trades(
            MARKET,
            [trade(10 * page + n, start + n) for n in range(3)],
            origin=Origin.BACKFILL,
            job="j",
            covered=(start, start + 10 * SECOND),
        )
        world.step()
        world.check_memory()
    (gap,) = world.store.gaps[MARKET].values()
    assert (gap.from_time, gap.to_time, gap.state, gap.recovered) == (
        NOON + 10 * SECOND,
        NOON + 30 * SECOND,
        GapState.FILLED,
        6,
    )
    filled = [status for status in world.reader.statuses if isinstance(status, GapFilled)]
    assert [(status.from_time, status.recovered) for status in filled] == [(NOON + 10 * SECOND, 6)]


def test_tracking_that_begins_before_the_first_span_is_a_gap_of_history(world: Any) -> None:
    world.store.history_from[MARKET] = NOON - HOUR
    world.restart()
    open_span(world, NOON)
    world.clock += 2 * SECOND
    beat(world, NOON + SECOND)
    world.step()

    (gap,) = world.store.gaps[MARKET].values()
    assert (gap.from_time, gap.to_time, gap.cause) == (NOON - HOUR, NOON, "history")


def test_tracking_that_moves_back_opens_what_lies_before(world: Any) -> None:
    open_span(world, NOON)
    world.clock += 2 * SECOND
    beat(world, NOON + SECOND)
    world.step()
    assert not world.store.gaps.get(MARKET)

    world.store.history_from[MARKET] = NOON - HOUR
    world.state.markets[MARKET].history_from = NOON - HOUR
    world.step()

    (gap,) = world.store.gaps[MARKET].values()
    assert (gap.from_time, gap.to_time) == (NOON - HOUR, NOON)


def test_what_cannot_be_had_is_told_once_and_the_rest_stays_open(world: Any) -> None:
    world.store.history_from[MARKET] = NOON - HOUR
    world.restart()
    world.send_trades(MARKET, [], origin=Origin.BACKFILL, job="j", covered=(NOON - MINUTE, NOON))
    lost = Unfillable(NOON - 2 * HOUR, NOON - 10 * MINUTE, "last trades only")
    world.send(JobEnded(**ABOUT, job="j", unfillable=lost))
    world.step()
    world.restart()
    world.clock += SECOND
    world.send_trades(
        MARKET, [], origin=Origin.BACKFILL, job="k", covered=(NOON - HOUR, NOON - HOUR + MINUTE)
    )
    world.step()

    rows = sorted(world.store.gaps[MARKET].values(), key=lambda row: row.from_time)
    assert [(row.from_time - NOON, row.to_time - NOON, row.state, row.reason) for row in rows] == [
        (-HOUR, -HOUR + MINUTE, GapState.FILLED, None),
        (-HOUR + MINUTE, -10 * MINUTE, GapState.UNFILLABLE, "last trades only"),
        (-10 * MINUTE, -MINUTE, GapState.OPEN, None),
    ]
    gone = [status for status in world.reader.statuses if isinstance(status, GapUnfillable)]
    assert [(status.from_time, status.to_time) for status in gone] == [
        (NOON - HOUR, NOON - 10 * MINUTE)
    ]


def test_an_untracked_market_has_coverage_and_no_gaps(make_world: Any, trade: MakeTrade) -> None:
    world = make_world(start=NOON)
    for start in (NOON - HOUR, NOON - MINUTE):
        world.send_trades(
            MARKET,
            [trade(1, start)],
            origin=Origin.IMPORT,
            job="j",
            covered=(start, start + SECOND),
        )
    world.step()

    assert len(world.store.coverage[MARKET]) == 2
    assert not world.store.gaps.get(MARKET)
