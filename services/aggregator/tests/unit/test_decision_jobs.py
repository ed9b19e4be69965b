"""Bulk jobs: what they hold, how they end, and what is told then."""

from collections.abc import Callable
from typing import Any

import pytest

from vegamite_aggregator.core.state import due
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, MINUTE, SECOND, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.status import Revised
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
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


def test_an_open_job_holds_its_candles_and_its_end_finalises_each_once(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += DAY
    world.send(JobStarted(**ABOUT, job="j", origin=Origin.IMPORT))
    for number in range(3):
        world.send_trades(
            MARKET,
            [trade(number, NOON + number)],
            origin=Origin.IMPORT,
            job="j",
            covered=(NOON, NOON + MINUTE),
        )
        world.step()
    assert standing(second(world)) == (False, False, 0)
    assert told(world) == []

    world.restart()
    world.send(JobEnded(**ABOUT, job="j"))
    world.step()

    assert standing(second(world)) == (True, True, 0)
    assert told(world) == [("final", None)]
    job = world.store.jobs["j"]
    assert (job.state, job.trades, job.origin) == ("ended", 3, Origin.IMPORT)


def test_a_job_revises_a_final_candle_once_with_its_reason(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, [trade(1, NOON)])
    world.clock += HOUR
    world.step()
    for number in (2, 3):
        world.send_trades(MARKET, [trade(number, NOON + 1)], origin=Origin.BACKFILL, job="j")
        world.step()
    assert second(world).revision == 0
    assert second(world).trade_count == 3

    world.send(JobEnded(**ABOUT, job="j"))
    world.step()

    assert standing(second(world)) == (True, False, 1)
    assert told(world)[1:] == [("revision", "backfill")]


def test_a_live_trade_for_a_held_candle_waits_with_it(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, [trade(1, NOON)])
    world.clock += HOUR
    world.step()
    world.send_trades(MARKET, [trade(2, NOON + 1)], origin=Origin.IMPORT, job="j")
    world.send_trades(MARKET, [trade(3, NOON + 2)])
    world.step()
    assert second(world).revision == 0

    world.send(JobEnded(**ABOUT, job="j"))
    world.step()
    assert standing(second(world)) == (True, False, 1)
    assert told(world)[1:] == [("revision", "import")]


def test_a_candle_held_by_two_jobs_waits_for_both(world: Any, trade: MakeTrade) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(1, NOON)], origin=Origin.BACKFILL, job="a")
    world.send_trades(MARKET, [trade(2, NOON)], origin=Origin.BACKFILL, job="b")
    world.send(JobEnded(**ABOUT, job="a"))
    world.step()
    assert not second(world).final
    assert world.store.candles[MARKET][(Timeframe.S1, NOON)].held_by == ("b",)

    world.send(JobEnded(**ABOUT, job="b"))
    world.step()
    assert second(world).final


def test_a_job_is_silent_after_its_time_by_the_log_and_any_record_reopens_it(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(1, NOON)], origin=Origin.BACKFILL, job="j")
    world.step()
    world.clock += world.timing.job_silence
    assert not due(world.state, log_time=world.clock, timing=world.timing)
    world.step()
    assert not second(world).final

    world.clock += 1
    assert due(world.state, log_time=world.clock, timing=world.timing)
    world.restart()
    world.step()
    assert second(world).final
    assert world.store.jobs["j"].state == "silent"

    world.send_trades(MARKET, [trade(2, NOON + 1)], origin=Origin.BACKFILL, job="j")
    world.step()
    job = world.store.jobs["j"]
    assert (job.state, job.ended_time, job.trades) == ("open", None, 2)
    assert second(world).revision == 0
    world.send(JobEnded(**ABOUT, job="j"))
    world.step()
    assert second(world).revision == 1


def test_a_job_that_goes_on_after_its_end_in_one_batch_is_open(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(1, NOON)], origin=Origin.BACKFILL, job="j")
    world.send(JobEnded(**ABOUT, job="j"))
    world.send_trades(MARKET, [trade(2, NOON)], origin=Origin.BACKFILL, job="j")
    world.step()

    assert (world.store.jobs["j"].state, world.store.jobs["j"].ended_time) == ("open", None)
    assert not second(world).final


def test_each_record_of_a_job_puts_its_silence_off(world: Any, trade: MakeTrade) -> None:
    world.clock += HOUR
    for number in range(3):
        world.send_trades(MARKET, [trade(number, NOON)], origin=Origin.BACKFILL, job="j")
        world.step()
        world.clock += world.timing.job_silence
    assert not due(world.state, log_time=world.clock, timing=world.timing)

    world.clock += 1
    assert due(world.state, log_time=world.clock, timing=world.timing)


def test_in_a_backlog_a_job_is_silent_by_append_times_not_by_the_clock(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(1, NOON)], origin=Origin.BACKFILL, job="j")
    world.clock += world.timing.job_silence
    world.send_trades(MARKET, [trade(2, NOON)], origin=Origin.BACKFILL, job="j")
    world.clock += DAY
    world.step(limit=1)

    assert world.store.jobs["j"].state == "open"


def test_a_large_job_is_released_portion_by_portion_and_ends_with_the_last(
    world: Any, trade: MakeTrade
) -> None:
    world.store.release_limit = 30
    world.clock += HOUR
    world.send_trades(
        MARKET,
        [trade(n, NOON + n * SECOND) for n in range(100)],
        origin=Origin.IMPORT,
        job="j",
        covered=(NOON, NOON + HOUR),
    )
    world.step()
    world.send(JobEnded(**ABOUT, job="j"))
    world.step()
    held = [row for row in world.store.candles[MARKET].values() if row.held_by]
    assert held
    assert world.store.jobs["j"].state == "open"

    world.restart()
    steps = 0
    while due(world.state, log_time=world.clock, timing=world.timing):
        world.step()
        steps += 1
    assert steps > 2
    assert not [row for row in world.store.candles[MARKET].values() if row.held_by]
    assert world.store.jobs["j"].state == "ended"
    assert set(told(world)) == {("final", None)}
    assert len(told(world)) == 100


def test_more_than_five_hundred_of_one_timeframe_are_told_by_one_record(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += HOUR
    trades = [trade(n, NOON + n * SECOND) for n in range(501)]
    world.send_trades(MARKET, trades, origin=Origin.IMPORT, job="j", covered=(NOON, NOON + HOUR))
    world.send(JobEnded(**ABOUT, job="j"))
    world.step()

    assert told(world) == []
    assert [s for s in world.reader.statuses if isinstance(s, Revised)] == [
        Revised(
            **ABOUT,
            event_time=world.clock,
            timeframe=Timeframe.S1,
            from_time=NOON,
            to_time=NOON + 501 * SECOND,
            reason="import",
        )
    ]
    assert told(world, Timeframe.M1) == [("final", None)] * 9
    world.check_reader()


def test_five_hundred_are_told_one_by_one(world: Any, trade: MakeTrade) -> None:
    world.clock += HOUR
    trades = [trade(n, NOON + n * SECOND) for n in range(500)]
    world.send_trades(MARKET, trades, origin=Origin.IMPORT, job="j", covered=(NOON, NOON + HOUR))
    world.send(JobEnded(**ABOUT, job="j"))
    world.step()

    assert told(world) == [("final", None)] * 500


def test_live_finals_are_told_one_by_one_however_many(world: Any, trade: MakeTrade) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(n, NOON + n * SECOND) for n in range(900)])
    world.step()

    assert told(world) == [("final", None)] * 900
    assert all(len(record.candles) <= 500 for record in world.reader.records)
