"""What the metrics say of partitions: lag, freshness, coverage and gaps, from what their steps committed."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from vegamite_aggregator.service.measure import PartitionMeasure, export_measures
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, SECOND, parse_time
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import Heartbeat, JobEnded, SpanClosed, SpanOpened, Unfillable
from vegamite_common.testing.manual_clock import ManualClock

NOON = parse_time("2024-02-29T12:00:00Z")
MARKET = Market("kraken", "BTC/USD")
OTHER = Market("binance", "BTC/USDT")

MakeTrade = Callable[..., Trade]


class Bench:
    """A world whose steps a partition's measure follows, and the metrics that come of it."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.measure = PartitionMeasure()
        self.measure.loaded(world.state)
        self.clock = ManualClock(world.clock)

    def step(self) -> None:
        self.measure.committed(self.world.step())

    def restart(self) -> None:
        self.world.restart()
        self.measure.loaded(self.world.state)

    def say(self, record_type: Any, market: Market = MARKET, **fields: Any) -> None:
        self.world.send(record_type(exchange=market.exchange, symbol=market.symbol, **fields))

    def value(self, name: str, **labels: str) -> float | None:
        """Return the metric as it is exported now, by the world's clock."""
        self.clock.set(self.world.clock)
        export_measures({3: self.measure}, self.clock)
        return REGISTRY.get_sample_value(f"vegamite_aggregator_{name}", labels)


@pytest.fixture
def bench(make_world: Any) -> Bench:
    """A world at noon with a market that is tracked from noon on."""
    world = make_world(start=NOON)
    world.store.history_from[MARKET] = NOON
    world.restart()
    return Bench(world)


def test_lag_is_zero_where_a_young_look_showed_that_all_is_committed(
    bench: Bench, trade: MakeTrade
) -> None:
    bench.world.send_trades(MARKET, [trade(1, NOON)])
    bench.step()
    bench.measure.look(end_offset=1, fetched_time=bench.world.clock)

    bench.world.clock += SECOND // 2
    assert bench.value("lag_seconds", partition="3") == 0
    assert bench.value("lag_records", partition="3") == 0


def test_lag_is_the_age_of_the_last_committed_record_while_others_wait(
    bench: Bench, trade: MakeTrade
) -> None:
    bench.world.send_trades(MARKET, [trade(1, NOON)])
    bench.step()
    bench.world.clock += 90 * SECOND
    bench.measure.look(end_offset=8, fetched_time=bench.world.clock)

    assert bench.value("lag_seconds", partition="3") == 90
    assert bench.value("lag_records", partition="3") == 7


def test_lag_grows_from_the_last_look_on_while_the_log_cannot_be_seen(
    bench: Bench, trade: MakeTrade
) -> None:
    bench.world.send_trades(MARKET, [trade(1, NOON)])
    bench.step()
    bench.world.clock += MINUTE
    bench.measure.look(end_offset=1, fetched_time=bench.world.clock)
    bench.world.clock += 40 * SECOND
    bench.measure.look(end_offset=0, fetched_time=0)

    assert bench.value("lag_seconds", partition="3") == 40


def test_a_partition_of_which_nothing_is_known_has_no_lag(bench: Bench) -> None:
    bench.measure.look(end_offset=0, fetched_time=0)

    assert bench.value("lag_seconds", partition="3") is None


def test_a_partition_that_went_is_no_longer_exported(bench: Bench) -> None:
    bench.measure.look(end_offset=0, fetched_time=NOON)
    assert bench.value("lag_records", partition="3") == 0

    export_measures({}, bench.clock)

    assert REGISTRY.get_sample_value("vegamite_aggregator_lag_records", {"partition": "3"}) is None


def test_ages_are_those_of_the_newest_trade_and_of_the_newest_minute_that_is_final(
    bench: Bench, trade: MakeTrade
) -> None:
    bench.world.clock = NOON + 70 * SECOND
    bench.world.send_trades(MARKET, [trade(1, NOON + SECOND), trade(2, NOON + 70 * SECOND)])
    bench.step()
    assert bench.value("newest_candle_age_seconds", exchange="kraken") is None

    bench.world.clock = NOON + 100 * SECOND
    bench.step()
    assert bench.value("newest_trade_age_seconds", exchange="kraken") == 30
    assert bench.value("newest_candle_age_seconds", exchange="kraken") == 40

    bench.world.send_trades(MARKET, [trade(3, NOON + 2 * SECOND)])
    bench.step()
    assert bench.value("newest_trade_age_seconds", exchange="kraken") == 30


def test_a_new_owner_knows_the_newest_trade_and_minute_from_the_store(
    bench: Bench, trade: MakeTrade
) -> None:
    bench.world.send_trades(MARKET, [trade(1, NOON + SECOND)])
    bench.world.clock = NOON + 100 * SECOND
    bench.step()
    bench.measure = PartitionMeasure()
    bench.restart()

    assert bench.value("newest_trade_age_seconds", exchange="kraken") == 99
    assert bench.value("newest_candle_age_seconds", exchange="kraken") == 40


def test_each_exchange_has_ages_of_its_own(bench: Bench, trade: MakeTrade) -> None:
    bench.world.send_trades(MARKET, [trade(1, NOON)])
    bench.world.send_trades(OTHER, [trade(1, NOON - 5 * SECOND)])
    bench.step()

    assert bench.value("newest_trade_age_seconds", exchange="kraken") == 0
    assert bench.value("newest_trade_age_seconds", exchange="binance") == 5


def test_coverage_lags_behind_the_clock_by_what_the_worst_tracked_market_lacks(
    bench: Bench,
) -> None:
    late = Market("kraken", "ETH/USD")
    bench.world.store.history_from[late] = NOON
    bench.restart()
    assert bench.value("coverage_lag_seconds", exchange="kraken") is None

    bench.world.clock = NOON + MINUTE
    for market, writer, until in ((MARKET, "a", 58), (late, "b", 20)):
        bench.say(SpanOpened, market, writer=writer, from_time=NOON)
        bench.world.send(Heartbeat(writer=writer, to_time=NOON + until * SECOND))
    bench.step()
    assert bench.value("coverage_lag_seconds", exchange="kraken") == 40

    del bench.world.store.history_from[late]
    bench.restart()
    assert bench.value("coverage_lag_seconds", exchange="kraken") == 2


def test_gaps_are_counted_by_state_with_the_age_of_the_oldest_and_their_length(
    bench: Bench,
) -> None:
    bench.say(SpanOpened, writer="a", from_time=NOON)
    bench.world.clock = NOON + 10 * SECOND
    bench.say(SpanClosed, writer="a", to_time=NOON + 10 * SECOND, cause="lost")
    bench.step()
    assert bench.value("gaps", exchange="kraken", state="open") == 0
    assert bench.value("oldest_open_gap_age_seconds", exchange="kraken") == 0

    bench.world.clock = NOON + 40 * SECOND
    bench.say(SpanOpened, writer="b", from_time=NOON + 30 * SECOND)
    bench.world.send(Heartbeat(writer="b", to_time=NOON + 35 * SECOND))
    bench.step()
    bench.world.clock = NOON + MINUTE
    assert bench.value("gaps", exchange="kraken", state="open") == 1
    assert bench.value("oldest_open_gap_age_seconds", exchange="kraken") == 20
    assert bench.value("open_gap_length_seconds", exchange="kraken") == 20

    lost = Unfillable(NOON + 10 * SECOND, NOON + 14 * SECOND, "expired")
    bench.say(JobEnded, job="j", unfillable=lost)
    bench.step()
    assert bench.value("gaps", exchange="kraken", state="open") == 1
    assert bench.value("gaps", exchange="kraken", state="unfillable") == 1
    assert bench.value("open_gap_length_seconds", exchange="kraken") == 16

    bench.restart()
    assert bench.value("gaps", exchange="kraken", state="unfillable") == 1

    bench.world.send_trades(MARKET, [], covered=(NOON + 10 * SECOND, NOON + 30 * SECOND))
    bench.step()
    assert bench.value("gaps", exchange="kraken", state="open") == 0
    assert bench.value("oldest_open_gap_age_seconds", exchange="kraken") == 0


def test_gaps_of_a_market_that_is_not_tracked_any_more_wait_for_nobody(bench: Bench) -> None:
    bench.say(SpanOpened, writer="a", from_time=NOON + 5 * SECOND)
    bench.world.clock = NOON + 20 * SECOND
    bench.world.send(Heartbeat(writer="a", to_time=NOON + 10 * SECOND))
    bench.step()
    assert bench.value("gaps", exchange="kraken", state="open") == 1

    bench.world.state.markets[MARKET].history_from = None
    assert bench.value("gaps", exchange="kraken", state="open") is None
