"""What a step decides: finality, completeness, late trades, what is streamed; case by case."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from vegamite_aggregator.core.state import due
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, MINUTE, SECOND, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
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


# --- final and complete ----------------------------------------------------------------------------


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


# --- late trades -----------------------------------------------------------------------------------


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


# --- in progress -----------------------------------------------------------------------------------


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


# --- the commit ------------------------------------------------------------------------------------


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
