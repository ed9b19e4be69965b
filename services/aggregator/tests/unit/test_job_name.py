"""One name, jobs of several markets."""

from collections.abc import Callable
from typing import Any

import pytest

from vegamite_aggregator.core.facts import JobOver, JobSeen
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.job_name import JobNames, mistaken
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, MINUTE, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import JobEnded, JobStarted

NOON = parse_time("2024-02-29T12:00:00Z")
ONE = Market("kraken", "BTC/USD")
OTHER = Market("sim", "DEMO/USD")


def about(market: Market) -> dict[str, Any]:
    return {"exchange": market.exchange, "symbol": market.symbol}


@pytest.fixture
def world(make_world: Any) -> Any:
    """A world of two markets, a day after their trades."""
    made = make_world(start=NOON + DAY)
    for market in (ONE, OTHER):
        made.store.history_from[market] = NOON
    made.restart()
    return made


def test_a_name_is_its_owners_and_everybody_elses_with_the_market_behind_it() -> None:
    names = JobNames((), {"j": OTHER.key, f"k {ONE.key}": OTHER.key, "k": OTHER.key})
    assert names.name_of("j", OTHER) == "j"
    assert names.name_of("j", ONE) == f"j {ONE.key}"
    assert names.name_of("k", ONE) == f"k {ONE.key} {ONE.key}"
    assert names.name_of("new", ONE) == "new"
    assert names.name_of("new", OTHER) == f"new {OTHER.key}"
    assert not mistaken(names.assumed, {})
    assert not mistaken(names.assumed, {"new": ONE.key})
    assert mistaken(names.assumed, {"new": OTHER.key})


def test_every_record_of_a_job_takes_the_same_name(world: Any, trade: Callable[..., Trade]) -> None:
    world.send(JobStarted(**about(ONE), job="j", origin=Origin.IMPORT, restores=(0, NOON)))
    world.send_trades(ONE, [trade(1, NOON)], origin=Origin.IMPORT, job="j")
    world.send(JobEnded(**about(ONE), job="j"))
    intake = read_batch(
        world.state,
        world.log,
        partition_of=lambda key: len(key) * 0,
        timing=world.timing,
        job_owners={"j": OTHER.key},
    )
    seen = [event.job for event in intake.events if isinstance(event, JobSeen | JobOver)]
    assert seen == [f"j {ONE.key}"] * 3
    assert [batch.job for batch in intake.trades] == [f"j {ONE.key}"]
    assert not intake.refused


def test_two_markets_of_a_partition_have_a_job_each(
    world: Any, trade: Callable[..., Trade]
) -> None:
    for market in (ONE, OTHER):
        world.send(JobStarted(**about(market), job="j", origin=Origin.IMPORT))
        world.send_trades(market, [trade(1, NOON)], origin=Origin.IMPORT, job="j")
    world.step()
    world.send(JobEnded(**about(OTHER), job="j"))
    world.settle()
    assert {name: (job.market, job.state) for name, job in world.store.jobs.items()} == {
        "j": (ONE, "open"),
        f"j {OTHER.key}": (OTHER, "ended"),
    }
    assert world.candle(OTHER, Timeframe.M1, NOON).final
    assert not world.candle(ONE, Timeframe.M1, NOON).final, "its job is open"
    world.clock += MINUTE
    world.send(JobEnded(**about(ONE), job="j"))
    world.settle()
    assert world.candle(ONE, Timeframe.M1, NOON).final
