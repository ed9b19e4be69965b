"""Candles computed again from the stored trades."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.status import Revised
from vegamite_common.messages.trades import (
    Heartbeat,
    Rebuild,
    SpanOpened,
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


def spoil(world: Any, timeframe: Timeframe, at: Micros, **fields: Any) -> None:
    """Put a wrong candle into the store, as a bug might have done."""
    key = (timeframe, timeframe.open_time(at))
    row = world.store.candles[MARKET][key]
    wrong = msgspec.structs.replace(row.candle, **fields)
    world.store.candles[MARKET][key] = msgspec.structs.replace(row, candle=wrong)


def test_a_rebuild_corrects_what_differs_and_revises_nothing_else(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += 40 * DAY
    world.send_trades(MARKET, [trade(n, NOON + n * HOUR) for n in range(100)])
    world.step()
    wrong = [(Timeframe.S1, NOON + HOUR), (Timeframe.D1, NOON), (Timeframe.MO1, NOON + 24 * HOUR)]
    for timeframe, at in wrong:
        spoil(world, timeframe, at, high=Decimal(500))
    world.restart()
    world.reader.records.clear()
    world.send(Rebuild(**ABOUT, from_time=NOON, to_time=NOON + DAY))
    world.step()

    world.check_contents()
    revised = [
        (candle.timeframe, candle.open_time, record.reason)
        for record in world.reader.records
        for candle in record.candles
    ]
    assert sorted(revised) == sorted(
        (timeframe, timeframe.open_time(at), "correction") for timeframe, at in wrong
    )
    world.check_reader()
    world.check_memory()


def test_two_rebuilds_of_one_month_give_it_one_right_content_after_the_other(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += 40 * DAY
    march = NOON + 12 * HOUR
    world.send_trades(MARKET, [trade(n, march + n * 6 * HOUR) for n in range(40)])
    world.step()
    for day in (march, march + 3 * DAY):
        spoil(world, Timeframe.D1, day, volume=Decimal(9))
    spoil(world, Timeframe.MO1, march, volume=Decimal(50))
    world.restart()
    world.reader.records.clear()
    for day in (march, march + 3 * DAY):
        world.send(Rebuild(**ABOUT, from_time=day, to_time=day + DAY))
    world.settle()

    world.check_contents()
    revisions = [
        (candle.as_of, candle.revision, candle.volume)
        for record in world.reader.records
        for candle in record.candles
        if candle.timeframe is Timeframe.MO1
    ]
    # One a step, each the sum of the days as they then are.
    assert revisions == [(1, 1, Decimal(45)), (2, 2, Decimal(40))]


def test_a_rebuild_removes_candles_without_trades_and_says_where(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += 2 * DAY
    world.send_trades(MARKET, [trade(1, NOON), trade(2, NOON + HOUR)])
    world.step()
    del world.store.trades[MARKET][(NOON + HOUR, "2")]
    world.restart()
    world.send(Rebuild(**ABOUT, from_time=NOON, to_time=NOON + 1))
    world.step()

    assert (Timeframe.S1, NOON + HOUR) not in world.store.candles[MARKET]
    world.check_contents()
    world.check_memory()
    hours = [
        status
        for status in world.reader.statuses
        if isinstance(status, Revised) and status.timeframe is Timeframe.H1
    ]
    assert [(status.from_time, status.to_time) for status in hours] == [
        (NOON - 12 * HOUR, NOON + 12 * HOUR)
    ]


def test_a_rebuild_and_new_trades_of_one_batch_count_each_trade_once(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += 3 * DAY
    world.send_trades(MARKET, [trade(1, NOON), trade(2, NOON + DAY)])
    world.step()
    world.send_trades(MARKET, [trade(3, NOON + 1), trade(4, NOON + DAY)])
    world.send(Rebuild(**ABOUT, from_time=NOON, to_time=NOON + 1))
    world.step()

    world.check_contents()
    assert second(world).trade_count == 2
    assert world.candle(MARKET, Timeframe.D1, NOON + DAY).trade_count == 2


def test_a_rebuild_puts_back_rows_that_the_store_has_lost(world: Any, trade: MakeTrade) -> None:
    world.clock += DAY
    world.send_trades(MARKET, [trade(1, NOON), trade(2, NOON + HOUR)])
    world.step()
    for key in [key for key in world.store.candles[MARKET] if key[1] == NOON + HOUR]:
        del world.store.candles[MARKET][key]
    world.send(Rebuild(**ABOUT, from_time=NOON, to_time=NOON + 2 * HOUR))
    world.step()

    world.check_contents()
    world.check_memory()
    world.check_reader()
