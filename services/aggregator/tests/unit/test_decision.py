"""What a step decides: finality, completeness, revisions, jobs, gaps, rebuilds; case by case."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from vegamite_aggregator.core.discontinuity import discontinuity
from vegamite_aggregator.core.state import due
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, MINUTE, SECOND, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.status import GapFilled, GapOpened, GapUnfillable, Revised
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    Unfillable,
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


# --- final and complete ---------------------------------------------------------------------------


def test_a_covered_interval_is_final_and_complete_at_once(world: Any, trade: MakeTrade) -> None:
    open_span(world, NOON)
    world.clock += 2 * SECOND
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.step()
    assert standing(second(world)) == (False, False, 0)

    beat(world, NOON + SECOND)
    world.step()

    assert standing(second(world)) == (True, True, 0)
    assert standing(world.candle(MARKET, Timeframe.M1, NOON)) == (False, False, 0)
    assert told(world) == [("final", None)]


def test_coverage_that_ends_inside_the_interval_does_not_make_it_final(
    world: Any, trade: MakeTrade
) -> None:
    open_span(world, NOON)
    world.clock += 2 * SECOND
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    beat(world, NOON + SECOND - 1)
    world.step()

    assert standing(second(world)) == (False, False, 0)


def test_coverage_that_begins_inside_the_interval_does_not_make_it_complete(
    world: Any, trade: MakeTrade
) -> None:
    open_span(world, NOON + 1)
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.clock += 2 * SECOND
    beat(world, NOON + 2 * SECOND)
    world.step()
    assert standing(second(world)) == (False, False, 0)

    world.clock = NOON + SECOND + world.timing.grace
    world.step()
    assert standing(second(world)) == (True, False, 0)


def test_without_coverage_an_interval_is_final_when_the_grace_has_passed_not_before(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.step()
    world.clock = NOON + SECOND + world.timing.grace - 1
    assert not due(world.state, log_time=world.clock, timing=world.timing)
    assert not world.step().changed
    assert standing(second(world)) == (False, False, 0)

    world.clock += 1
    assert due(world.state, log_time=world.clock, timing=world.timing)
    world.step()

    assert standing(second(world)) == (True, False, 0)


def test_a_backlog_never_closes_early_whatever_the_clock_says(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.clock += SECOND
    world.send_trades(MARKET, [trade(2, NOON + 6)])
    world.clock += HOUR
    world.step(limit=1)
    assert standing(second(world)) == (False, False, 0)

    world.step(limit=1, fresh=False)
    assert standing(second(world)) == (False, False, 0)

    world.step()
    assert standing(second(world)) == (True, False, 0)
    assert second(world).trade_count == 2
    assert told(world) == [("final", None)]


def test_an_evicted_candle_that_waits_is_still_closed_on_time(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.step()
    world.restart()
    world.clock = NOON + SECOND + world.timing.grace
    world.step()

    assert standing(second(world)) == (True, False, 0)


def test_the_end_of_a_heartbeat_is_cut_at_its_append_time(world: Any, trade: MakeTrade) -> None:
    open_span(world, NOON)
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    beat(world, NOON + HOUR)
    world.clock += SECOND
    world.step()

    assert not world.store.coverage.get(MARKET)
    beat(world, NOON + HOUR)
    world.step()
    assert [row.to_time for row in world.store.coverage[MARKET].values()] == [NOON + SECOND]


def test_the_end_of_a_claim_is_cut_at_its_append_time(world: Any, trade: MakeTrade) -> None:
    world.clock += SECOND
    world.send_trades(MARKET, [trade(1, NOON + 5)], covered=(NOON, NOON + HOUR))
    world.step()

    assert [row.to_time for row in world.store.coverage[MARKET].values()] == [NOON + SECOND]


def test_a_long_candle_is_complete_once_its_spans_meet(world: Any, trade: MakeTrade) -> None:
    world.clock += 2 * MINUTE
    world.send_trades(MARKET, [trade(1, NOON)], covered=(NOON, NOON + 20 * SECOND))
    world.send_trades(
        MARKET, [trade(2, NOON + MINUTE - 1)], covered=(NOON + 40 * SECOND, NOON + MINUTE)
    )
    world.step()
    assert standing(world.candle(MARKET, Timeframe.M1, NOON)) == (True, False, 0)

    world.send_trades(
        MARKET,
        [],
        origin=Origin.BACKFILL,
        job="j",
        covered=(NOON + 20 * SECOND, NOON + 40 * SECOND),
    )
    world.send(JobEnded(**ABOUT, job="j"))
    world.step()

    assert standing(world.candle(MARKET, Timeframe.M1, NOON)) == (True, True, 1)
    assert told(world, Timeframe.M1)[-1] == ("revision", "coverage")


def test_coverage_that_comes_late_revises_candles_that_memory_has_lost(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, [trade(1, NOON), trade(2, NOON + MINUTE)])
    world.clock += HOUR
    world.step()
    world.restart()
    world.send_trades(
        MARKET, [], origin=Origin.BACKFILL, job="j", covered=(NOON, NOON + 6 * MINUTE)
    )
    world.step()

    for timeframe in (Timeframe.S1, Timeframe.M1, Timeframe.M3, Timeframe.M5):
        assert standing(world.candle(MARKET, timeframe, NOON)) == (True, True, 1), timeframe
    assert standing(world.candle(MARKET, Timeframe.M15, NOON)) == (True, False, 0)


# --- late trades ----------------------------------------------------------------------------------


def test_a_late_trade_revises_its_candle_and_every_longer_final_one(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, [trade(1, NOON + 5, price="10")])
    world.clock += 2 * MINUTE
    world.step()
    world.send_trades(MARKET, [trade(2, NOON + 6, price="7")])
    changes = world.step()

    for timeframe in (Timeframe.S1, Timeframe.M1):
        candle = world.candle(MARKET, timeframe, NOON)
        assert standing(candle) == (True, False, 1)
        assert (candle.low, candle.close, candle.trade_count) == (Decimal(7), Decimal(7), 2)
        assert candle.as_of == 1
        assert told(world, timeframe)[-1] == ("revision", "late_trade")
    assert standing(world.candle(MARKET, Timeframe.M3, NOON)) == (False, False, 0)
    assert changes.statistics.late == 1
    assert changes.statistics.revisions == 2


def test_a_late_trade_leaves_a_complete_candle_complete_and_is_counted(
    world: Any, trade: MakeTrade
) -> None:
    open_span(world, NOON)
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.clock += 2 * SECOND
    beat(world, NOON + SECOND)
    world.step()
    world.send_trades(MARKET, [trade(2, NOON + 6)])
    changes = world.step()

    assert standing(second(world)) == (True, True, 1)
    assert changes.statistics.late_in_coverage == {MARKET: 1}


def test_a_trade_before_the_heartbeat_of_the_same_batch_is_not_late(
    world: Any, trade: MakeTrade
) -> None:
    open_span(world, NOON)
    world.clock += 2 * SECOND
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    beat(world, NOON + SECOND)
    changes = world.step()

    assert standing(second(world)) == (True, True, 0)
    assert changes.statistics.late_in_coverage == {}


def test_a_trade_delivered_again_changes_nothing(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, [trade(1, NOON + 5), trade(1, NOON + 5)])
    world.step()
    before = dict(world.store.candles[MARKET])
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    changes = world.step()

    assert world.store.candles[MARKET] == before
    assert (changes.statistics.inserted, changes.statistics.duplicate) == (0, 1)


def test_a_late_trade_in_an_interval_memory_never_saw_adds_to_what_is_stored(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(n, NOON + n * SECOND) for n in range(600)])
    world.step()
    assert (Timeframe.S1, NOON) not in world.state.markets[MARKET].candles

    world.send_trades(MARKET, [trade(1000, NOON + 1)])
    world.step()

    assert second(world).trade_count == 2
    world.check_contents()
    world.check_memory()


# --- in progress ----------------------------------------------------------------------------------


def test_changed_candles_in_progress_are_streamed_in_their_newest_state(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, [trade(1, NOON + 5)])
    world.send_trades(MARKET, [trade(2, NOON + 6)])
    streamed = world.step().markets[MARKET].streamed

    assert {candle.timeframe for candle in streamed} == set(Timeframe)
    assert all(candle.trade_count == 2 and not candle.final for candle in streamed)


def test_a_bulk_job_streams_what_is_in_progress_and_not_its_history(
    world: Any, trade: MakeTrade
) -> None:
    world.clock = NOON + 20 * MINUTE
    world.send_trades(MARKET, [trade(1, NOON)], origin=Origin.BACKFILL, job="j")
    streamed = world.step().markets[MARKET].streamed

    names = {candle.timeframe for candle in streamed}
    assert Timeframe.M30 in names
    assert Timeframe.M15 not in names


# --- jobs -----------------------------------------------------------------------------------------


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


# --- spans ----------------------------------------------------------------------------------------


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


# --- gaps -----------------------------------------------------------------------------------------


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


# --- rebuild --------------------------------------------------------------------------------------


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


# --- the commit -----------------------------------------------------------------------------------


def test_deciding_changes_nothing_in_memory_before_the_commit(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, [trade(1, NOON)])
    world.step()
    open_span(world, NOON)
    world.clock += 2 * SECOND
    world.send_trades(MARKET, [trade(2, NOON)], job="j", origin=Origin.BACKFILL)
    beat(world, NOON + SECOND)
    state = world.state
    world.step(commit=False)
    world.state = state

    world.check_memory()
    assert state.next_offset == 1
    world.step()
    assert second(world).trade_count == 2


def test_a_step_without_anything_to_do_needs_no_commit(world: Any) -> None:
    changes = world.step()

    assert not changes.changed
    assert world.store.fence[0] == 0


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
