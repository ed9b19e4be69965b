"""What a step asks the store for: nothing in steady state, and all that memory may lack otherwise."""

from collections.abc import Callable
from typing import Any

import pytest

from vegamite_aggregator.core.demand import Wants
from vegamite_aggregator.core.horizon import Horizon
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.plan import prepare
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, MINUTE, SECOND, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import Heartbeat, JobEnded, JobStarted, Rebuild, SpanOpened

NOON = parse_time("2024-02-29T12:00:00Z")
MARKET = Market("kraken", "BTC/USD")
ABOUT: dict[str, Any] = {"exchange": MARKET.exchange, "symbol": MARKET.symbol}

MakeTrade = Callable[..., Trade]


@pytest.fixture
def world(make_world: Any) -> Any:
    """A world at noon whose market is known."""
    made = make_world(start=NOON)
    made.store.history_from[MARKET] = NOON
    made.restart()
    return made


def wants(world: Any) -> Wants:
    """Return what the next step would ask for, without taking it."""
    state = world.state
    intake = read_batch(
        state,
        world.log[state.next_offset :],
        partition_of=lambda _: 0,
        timing=world.timing,
    )
    plan = prepare(state, intake, intake.trades, log_time=world.clock, timing=world.timing)
    return plan.wants


def live(world: Any, trade: MakeTrade, seconds: int) -> None:
    """Let a market trade once a second, covered, and take a step each second."""
    world.send(SpanOpened(**ABOUT, writer="w", from_time=NOON))
    for number in range(seconds):
        world.send_trades(MARKET, [trade(number, world.clock)])
        world.clock += SECOND
        world.send(Heartbeat(writer="w", to_time=world.clock))
        assert wants(world).empty, f"second {number}"
        world.step()


def test_a_live_market_never_asks_for_anything(world: Any, trade: MakeTrade) -> None:
    live(world, trade, 200)

    assert len(world.state.markets[MARKET].candles) < 400


def test_after_a_restart_only_what_may_be_stored_is_asked_for(world: Any, trade: MakeTrade) -> None:
    live(world, trade, 90)
    world.restart()
    world.send_trades(MARKET, [trade(1000, world.clock)])
    asked = wants(world)

    second = (Timeframe.S1, world.clock)
    assert set(asked.keys[MARKET]) == candles_at(world.clock) - {second}
    assert asked.open_candles == ()
    assert asked.incomplete == ()


def test_an_old_trade_asks_for_those_of_its_candles_that_memory_lacks(
    world: Any, trade: MakeTrade
) -> None:
    live(world, trade, 70)
    world.restart()
    world.send_trades(MARKET, [trade(1000, NOON)])
    asked = wants(world)

    assert set(asked.keys[MARKET]) == candles_at(NOON)


@pytest.mark.parametrize("how", ["restart", "eviction"])
def test_a_quiet_market_is_looked_at_again_when_coverage_or_the_clock_comes_to_its_next_candle(
    world: Any, trade: MakeTrade, how: str
) -> None:
    live(world, trade, 10)
    if how == "restart":
        world.restart()
    else:
        world.state.evict(0)

    def asks_after(covered: int, passed: int) -> bool:
        world.log[world.state.next_offset :] = []
        world.send(Heartbeat(writer="w", to_time=NOON + covered))
        world.clock = NOON + passed
        asked = wants(world)
        assert [one.market for one in asked.open_candles] in ([], [MARKET])
        assert not asked.keys
        return bool(asked.open_candles)

    assert not asks_after(MINUTE - 1, MINUTE + 30 * SECOND - 1)
    assert asks_after(MINUTE, MINUTE)
    assert asks_after(MINUTE - 1, MINUTE + 30 * SECOND)


def candles_at(instant: int) -> set[tuple[Timeframe, int]]:
    """Return the key of each timeframe's candle that holds the instant."""
    return {(timeframe, timeframe.open_time(instant)) for timeframe in Timeframe}


def test_late_coverage_asks_for_the_candles_that_it_completes_alone(
    world: Any, trade: MakeTrade
) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(1, NOON), trade(2, NOON + 30 * MINUTE)])
    world.step()
    world.restart()
    world.send_trades(
        MARKET,
        [],
        origin=Origin.BACKFILL,
        job="j",
        covered=(NOON + 90 * SECOND, NOON + 4 * MINUTE),
    )
    asked = wants(world)

    ranges = {one.timeframe: (one.from_time - NOON, one.to_time - NOON) for one in asked.incomplete}
    assert ranges == {
        Timeframe.S1: (90 * SECOND, 4 * MINUTE),
        Timeframe.M1: (90 * SECOND, 4 * MINUTE),
        Timeframe.M3: (90 * SECOND, 3 * MINUTE),
    }
    assert asked.jobs == {"j"}


def test_a_job_that_is_over_asks_for_what_it_holds(world: Any, trade: MakeTrade) -> None:
    world.clock += HOUR
    world.send_trades(MARKET, [trade(1, NOON)], origin=Origin.BACKFILL, job="j")
    world.step()
    assert wants(world).released == frozenset()

    world.send(JobEnded(**ABOUT, job="j"))
    assert wants(world).released == {"j"}


def test_a_rebuild_asks_for_whole_days_and_the_longer_candles_over_them(world: Any) -> None:
    world.send(Rebuild(**ABOUT, from_time=NOON + 2 * HOUR, to_time=NOON + 12 * HOUR + 1))
    (asked,) = wants(world).rebuilds

    midnight = NOON - 12 * HOUR
    assert (asked.from_time, asked.to_time) == (midnight, midnight + 2 * DAY)
    assert asked.days_from == parse_time("2024-02-01T00:00:00Z")
    assert asked.days_to == parse_time("2024-04-01T00:00:00Z")


def test_however_many_rebuilds_wait_a_step_asks_for_one(world: Any, trade: MakeTrade) -> None:
    first = NOON - 412 * DAY
    span = (first, first + 400 * DAY)
    world.store.horizons[MARKET] = Horizon(trades=NOON - 12 * HOUR)
    world.restart()
    world.send(JobStarted(**ABOUT, job="j", origin=Origin.IMPORT, restores=span))
    world.send_trades(MARKET, [trade(1, first + HOUR)], origin=Origin.IMPORT, job="j")
    days = [day - day % DAY for day in range(first, first + 400 * DAY, DAY)][1:]
    for day in days:
        world.send(Rebuild(**ABOUT, from_time=day, to_time=day + DAY, restored_since=days[0]))
    asked = []
    while world.state.next_offset < len(world.log):
        ranges = wants(world).rebuilds
        assert len(ranges) == 1
        asked += [(one.from_time, one.to_time) for one in ranges]
        world.step()

    assert asked == [(day, day + DAY) for day in days]
