"""What has expired: counted and not folded, given up, and brought back whole by a job that says so."""

from collections.abc import Callable
from typing import Any

import pytest

from vegamite_aggregator.core.gap_projection import expire_gaps
from vegamite_aggregator.core.horizon import NOTHING_EXPIRED, Horizon
from vegamite_aggregator.core.rows import GapRow
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanOpened,
)

MONDAY = parse_time("2024-02-26T00:00:00Z")
MARKET = Market("kraken", "BTC/USD")
ABOUT: dict[str, Any] = {"exchange": MARKET.exchange, "symbol": MARKET.symbol}
WEEK = 7 * DAY

MakeTrade = Callable[..., Trade]


@pytest.fixture
def world(make_world: Any) -> Any:
    """A world six weeks after a Monday, whose trades of the first two weeks are folded and then expired."""
    made = make_world(start=MONDAY + 6 * WEEK)
    made.store.history_from[MARKET] = MONDAY
    made.restart()
    return made


def expire(world: Any, *, trades: Micros, days: Micros | None = None) -> None:
    """Do what maintenance does: move the horizon, and forget what is below it."""
    candles = {} if days is None else {each: each.open_time(days) for each in Timeframe}
    world.store.horizons[MARKET] = Horizon(trades=trades, candles=candles)
    kept = {key: one for key, one in world.store.trades[MARKET].items() if key[0] >= trades}
    world.store.trades[MARKET] = kept
    rows = world.store.candles[MARKET]
    world.store.candles[MARKET] = {
        key: row for key, row in rows.items() if key[1] >= candles.get(key[0], 0)
    }
    world.restart()


def history(trade: MakeTrade, *, days: int = 14) -> list[Trade]:
    return [trade(n, MONDAY + n * 6 * HOUR, price=str(100 + n % 7)) for n in range(4 * days)]


def numbers(world: Any) -> dict[Any, tuple[Any, ...]]:
    return {
        key: (
            row.candle.open,
            row.candle.high,
            row.candle.low,
            row.candle.close,
            row.candle.volume,
            row.candle.trade_count,
            row.candle.final,
        )
        for key, row in world.store.candles[MARKET].items()
    }


def test_nothing_has_expired_where_there_is_no_horizon(world: Any, trade: MakeTrade) -> None:
    assert NOTHING_EXPIRED.whole_day % DAY == 0
    world.send_trades(MARKET, history(trade))
    world.step()
    world.check_contents()
    assert world.statistics[-1].expired == 0


def test_a_late_trade_below_the_horizon_is_counted_and_neither_stored_nor_folded(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, history(trade))
    world.step()
    expire(world, trades=MONDAY + WEEK)
    before = numbers(world)
    world.send_trades(
        MARKET, [trade(900, MONDAY + WEEK - 1, price="7"), trade(901, MONDAY + WEEK, price="8")]
    )
    world.step()
    assert world.intakes[-1].expired == {MARKET: 1}
    assert world.statistics[-1].expired == 1
    assert world.statistics[-1].inserted == 1
    assert (MONDAY + WEEK - 1, "900") not in world.store.trades[MARKET]
    after = numbers(world)
    assert after[Timeframe.D1, MONDAY + 6 * DAY] == before[Timeframe.D1, MONDAY + 6 * DAY]
    assert after[Timeframe.D1, MONDAY + WEEK] != before[Timeframe.D1, MONDAY + WEEK]
    assert world.candle(MARKET, Timeframe.MO1, MONDAY + WEEK).low == 8, "the longer ones go on"


def test_what_a_record_claims_of_expired_time_is_not_believed(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, history(trade))
    world.step()
    expire(world, trades=MONDAY + WEEK)
    world.send_trades(
        MARKET,
        [trade(900, MONDAY + WEEK - 1)],
        origin=Origin.BACKFILL,
        job="late",
        covered=(MONDAY, MONDAY + WEEK + DAY),
    )
    world.step()
    (span,) = world.store.coverage[MARKET].values()
    assert (span.from_time, span.to_time) == (MONDAY + WEEK, MONDAY + WEEK + DAY)
    job = world.store.jobs["late"]
    assert (job.trades, job.expired) == (0, 1)


def test_a_gap_below_the_horizon_is_never_open(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, history(trade))
    world.step()
    expire(world, trades=MONDAY + WEEK)
    start = MONDAY + 2 * WEEK
    world.send(SpanOpened(**ABOUT, writer="w", from_time=start))
    world.send(Heartbeat(writer="w", to_time=start + HOUR))
    world.step()
    gaps = [
        (gap.from_time, gap.to_time, gap.state, gap.reason)
        for _, gap in sorted(world.store.gaps[MARKET].items())
    ]
    assert gaps == [
        (MONDAY, MONDAY + WEEK, GapState.UNFILLABLE, "expired"),
        (MONDAY + WEEK, start, GapState.OPEN, None),
    ]


def test_expiry_gives_up_what_is_open_below_it_and_tells_so_once() -> None:
    rows = {
        0: GapRow(0, 10, "silence", GapState.UNFILLABLE, 1, "no history", 0, 5),
        20: GapRow(20, 40, "silence", GapState.OPEN, 1, None, 3),
        50: GapRow(50, 60, "silence", GapState.OPEN, 1),
    }
    done = expire_gaps(rows, horizon=30, now=99)
    assert [(gap.from_time, gap.to_time, gap.reason, gap.recovered) for gap in done.unfillable] == [
        (20, 30, "expired", 3)
    ]
    assert [(gap.from_time, gap.to_time, gap.state) for gap in done.upserted] == [
        (20, 30, GapState.UNFILLABLE),
        (30, 40, GapState.OPEN),
    ]
    assert not done.deleted
    again = expire_gaps(done.remembered, horizon=30, now=100)
    assert not again.upserted
    assert not again.unfillable


def test_a_rebuild_leaves_expired_days_alone(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, history(trade))
    world.step()
    before = numbers(world)
    expire(world, trades=MONDAY + WEEK + DAY)
    world.send(Rebuild(**ABOUT, from_time=MONDAY, to_time=MONDAY + 2 * WEEK))
    world.step()
    assert numbers(world) == before


def test_a_rebuild_rolls_up_no_candle_whose_days_have_expired(world: Any, trade: MakeTrade) -> None:
    world.send_trades(MARKET, history(trade))
    world.step()
    expire(world, trades=MONDAY + WEEK + 3 * DAY, days=MONDAY + WEEK + 2 * DAY)
    before = numbers(world)
    world.send(Rebuild(**ABOUT, from_time=MONDAY + WEEK + 3 * DAY, to_time=MONDAY + 2 * WEEK))
    world.step()
    assert numbers(world) == before


def restore(
    world: Any, trades: list[Trade], *, first: Micros, days: int, job: str = "again"
) -> None:
    """Send what an import of whole days sends: each day's trades, then that they are all there."""
    end = first + days * DAY
    world.send(JobStarted(**ABOUT, job=job, origin=Origin.IMPORT, restores=(first, end)))
    for day in range(first, end, DAY):
        of_day = [one for one in trades if day <= one.event_time < day + DAY]
        if of_day:
            world.send_trades(MARKET, of_day, origin=Origin.IMPORT, job=job)
        world.send(Rebuild(**ABOUT, from_time=day, to_time=day + DAY, restored_since=first))
    world.send(JobEnded(**ABOUT, job=job))


def standing(world: Any, timeframe: Timeframe, at: Micros) -> tuple[bool, int, int]:
    candle = world.candle(MARKET, timeframe, at)
    return candle.complete, candle.revision, candle.trade_count


def test_what_a_restore_covers_is_complete_with_its_trades_and_by_one_revision(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, history(trade))
    world.settle()
    expire(world, trades=MONDAY + 10 * DAY)
    span = (MONDAY, MONDAY + DAY)
    world.send(JobStarted(**ABOUT, job="j", origin=Origin.IMPORT, restores=span))
    found = [trade(900 + n, MONDAY + n * HOUR) for n in range(24)]
    world.send_trades(MARKET, found, origin=Origin.IMPORT, job="j")
    world.send_trades(MARKET, [], origin=Origin.IMPORT, job="j", covered=span)
    world.settle()
    assert not world.store.coverage.get(MARKET), "nothing of it is folded yet"
    assert standing(world, Timeframe.D1, MONDAY) == (False, 0, 4)

    wider = (MONDAY - DAY, MONDAY + 2 * DAY)
    world.send(
        Rebuild(
            **ABOUT, from_time=span[0], to_time=span[1], restored_since=MONDAY, covered=(wider,)
        )
    )
    world.send(JobEnded(**ABOUT, job="j"))
    world.settle()
    assert standing(world, Timeframe.D1, MONDAY) == (True, 1, 24)
    assert standing(world, Timeframe.H1, MONDAY) == (True, 1, 1)
    assert standing(world, Timeframe.H1, MONDAY + 23 * HOUR) == (True, 0, 1)
    assert [(row.from_time, row.to_time) for row in world.store.coverage[MARKET].values()] == [span]


def test_a_restore_of_part_of_a_day_stores_nothing_and_completes_nothing(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, history(trade))
    world.settle()
    expire(world, trades=MONDAY + 10 * DAY)
    before = numbers(world)
    span = (MONDAY + 9 * HOUR, MONDAY + 15 * HOUR)
    found = [trade(900 + n, MONDAY + 12 * HOUR + n) for n in range(5)]
    world.send(JobStarted(**ABOUT, job="j", origin=Origin.IMPORT, restores=span))
    world.send_trades(MARKET, found, origin=Origin.IMPORT, job="j")
    world.send_trades(MARKET, [], origin=Origin.IMPORT, job="j", covered=span)
    world.send(JobEnded(**ABOUT, job="j"))
    world.settle()
    assert numbers(world) == before
    assert standing(world, Timeframe.H1, MONDAY + 12 * HOUR) == (False, 0, 1)
    assert not world.store.coverage.get(MARKET)
    assert (world.store.jobs["j"].trades, world.store.jobs["j"].expired) == (0, 5)
    assert (found[0].event_time, found[0].trade_id) not in world.store.trades[MARKET]


@pytest.mark.parametrize("portion", [1, 3, None])
def test_restoring_expired_days_brings_the_same_candles_back(
    world: Any, trade: MakeTrade, portion: int | None
) -> None:
    trades = history(trade)
    world.send_trades(MARKET, trades)
    world.step()
    before = numbers(world)
    expire(world, trades=MONDAY + 10 * DAY, days=MONDAY + 10 * DAY)
    assert numbers(world) != before
    # From the month's first day on: only a candle that lies wholly inside is brought back.
    restore(world, trades, first=parse_time("2024-02-01T00:00:00Z"), days=35)
    for _ in range(60):
        world.step(portion)
    assert numbers(world) == before
    world.check_contents()
    world.check_memory()
    assert world.store.jobs["again"].trades == 40
    assert world.store.jobs["again"].expired == 0


def test_a_restore_replaces_what_lies_wholly_inside_and_touches_nothing_else(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, history(trade))
    world.step()
    expire(world, trades=MONDAY + 10 * DAY)
    before = numbers(world)
    restore(world, [trade(77, MONDAY + DAY + HOUR, price="5")], first=MONDAY + DAY, days=2)
    world.settle()
    after = numbers(world)
    day = after.pop((Timeframe.D1, MONDAY + DAY))
    assert (day[2], day[5]) == (5, 1), "another trade than there was: the candle follows it"
    assert (Timeframe.D1, MONDAY + 2 * DAY) not in after, "restored as a day without trades"
    outside = {
        key: row
        for key, row in before.items()
        if key[0].close_time(key[1]) <= MONDAY + DAY
        or key[1] >= MONDAY + 3 * DAY
        or key[1] < MONDAY + DAY
    }
    assert {key: after[key] for key in outside} == outside


def test_a_restore_of_a_part_leaves_each_longer_candle_as_it_was(
    world: Any, trade: MakeTrade
) -> None:
    world.send_trades(MARKET, history(trade))
    world.settle()
    expire(world, trades=MONDAY + 10 * DAY, days=MONDAY)
    longer = {
        key: row
        for key, row in world.store.candles[MARKET].items()
        if key[0] in (Timeframe.D3, Timeframe.W1, Timeframe.MO1)
    }
    # A week day by day, each import for itself, with prices that no candle has seen.
    for day in range(7):
        at = MONDAY + day * DAY
        mine = [trade(900 + day, at + HOUR, price=str(1 + 1000 * day))]
        restore(world, mine, first=at, days=1, job=f"day-{day}")
        world.settle()
        assert world.candle(MARKET, Timeframe.D1, at).trade_count == 1
    assert {key: world.store.candles[MARKET][key] for key in longer} == longer
    # All of it at once: the week is wholly inside, the month isn't.
    found = [trade(950 + day, MONDAY + day * DAY + 2 * HOUR, price="77") for day in range(7)]
    restore(world, found, first=MONDAY, days=7, job="week")
    world.settle()
    week = world.candle(MARKET, Timeframe.W1, MONDAY)
    assert (week.trade_count, week.high, week.close, week.revision) == (14, 6001, 77, 1)
    months = [key for key in longer if key[0] is Timeframe.MO1]
    assert months
    for key in months:
        assert world.store.candles[MARKET][key] == longer[key]


def test_without_an_open_job_that_restores_expired_time_stays_as_it_is(
    world: Any, trade: MakeTrade
) -> None:
    trades = history(trade)
    world.send_trades(MARKET, trades)
    world.step()
    expire(world, trades=MONDAY + 10 * DAY)
    before = numbers(world)
    world.send(Rebuild(**ABOUT, from_time=MONDAY, to_time=MONDAY + DAY, restored_since=MONDAY))
    world.send(JobStarted(**ABOUT, job="plain", origin=Origin.IMPORT))
    world.send_trades(MARKET, trades[:4], origin=Origin.IMPORT, job="plain")
    world.send(Rebuild(**ABOUT, from_time=MONDAY, to_time=MONDAY + DAY, restored_since=MONDAY))
    world.send(JobEnded(**ABOUT, job="plain"))
    world.settle()
    assert numbers(world) == before
    assert world.store.jobs["plain"].expired == 4


def test_a_restore_that_pauses_for_less_than_an_hour_goes_on(world: Any, trade: MakeTrade) -> None:
    trades = history(trade)
    world.send_trades(MARKET, trades)
    world.step()
    expire(world, trades=MONDAY + 10 * DAY, days=MONDAY + 10 * DAY)
    span = (MONDAY, MONDAY + DAY)
    world.send(JobStarted(**ABOUT, job="slow", origin=Origin.IMPORT, restores=span))
    world.send_trades(MARKET, trades[:2], origin=Origin.IMPORT, job="slow")
    world.settle()
    world.clock += world.timing.restore_silence
    world.settle()
    world.restart()
    world.send_trades(MARKET, trades[2:4], origin=Origin.IMPORT, job="slow")
    world.send(Rebuild(**ABOUT, from_time=span[0], to_time=span[1], restored_since=MONDAY))
    world.send(JobEnded(**ABOUT, job="slow"))
    world.settle()
    job = world.store.jobs["slow"]
    assert (job.state, job.trades, job.expired, job.restores) == ("ended", 4, 0, span)
    assert world.candle(MARKET, Timeframe.D1, MONDAY).trade_count == 4


def test_a_job_that_restores_nothing_that_has_expired_is_silent_as_soon_as_any_other(
    world: Any, trade: MakeTrade
) -> None:
    span = (MONDAY, MONDAY + DAY)
    world.send(JobStarted(**ABOUT, job="slow", origin=Origin.IMPORT, restores=span))
    world.send_trades(MARKET, history(trade)[:4], origin=Origin.IMPORT, job="slow")
    world.settle()
    world.clock += world.timing.job_silence + 1
    world.settle()
    assert world.store.jobs["slow"].state == "silent"


def test_a_restore_that_was_given_up_for_dead_does_not_go_on(world: Any, trade: MakeTrade) -> None:
    trades = history(trade)
    world.send_trades(MARKET, trades)
    world.step()
    expire(world, trades=MONDAY + 10 * DAY)
    before = numbers(world)
    start = JobStarted(
        **ABOUT, job="slow", origin=Origin.IMPORT, restores=(MONDAY, MONDAY + 10 * DAY)
    )
    world.send(start)
    world.settle()
    world.clock += world.timing.restore_silence + 1
    world.settle()
    assert world.store.jobs["slow"].state == "silent"
    world.send_trades(MARKET, trades[:4], origin=Origin.IMPORT, job="slow")
    world.send(Rebuild(**ABOUT, from_time=MONDAY, to_time=MONDAY + DAY, restored_since=MONDAY))
    world.settle()
    assert numbers(world) == before
    assert world.store.jobs["slow"].expired == 4
