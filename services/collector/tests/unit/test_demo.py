"""The demo market is a pure function of seed and time."""

import itertools
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from vegamite_collector.core.demo import (
    TRADES_PER_HOUR,
    next_trade_time,
    page_from,
    trades_between,
)
from vegamite_common.domain.time import HOUR, MINUTE, SECOND

BEGIN = 1_795_000_000 * SECOND
BEGIN -= BEGIN % HOUR


@given(
    seed=st.integers(0, 2**63 - 1),
    begin=st.integers(0, 3 * 3600),
    cuts=st.lists(st.integers(0, 400_000), min_size=2, max_size=6),
)
def test_any_cut_of_time_gives_the_same_trades(seed: int, begin: int, cuts: list[int]) -> None:
    edges = sorted(BEGIN + begin * SECOND + cut * 1000 for cut in cuts)
    parts = [
        trade
        for low, high in itertools.pairwise(edges)
        for trade in trades_between(seed, low, high)
    ]
    assert parts == trades_between(seed, edges[0], edges[-1])


def test_ids_rise_by_one_over_minutes_hours_and_quiet_times() -> None:
    trades = trades_between(1, BEGIN + 17 * MINUTE, BEGIN + 2 * HOUR + 5 * MINUTE)
    numbers = [trade.sequence for trade in trades]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [trade.trade_id for trade in trades] == [str(number) for number in numbers]
    assert trades == sorted(trades, key=lambda trade: trade.order)


def test_each_hour_has_its_number_and_minutes_differ() -> None:
    trades = trades_between(3, BEGIN, BEGIN + HOUR)
    assert len(trades) == TRADES_PER_HOUR
    per_minute = [
        len(trades_between(3, BEGIN + n * MINUTE, BEGIN + (n + 1) * MINUTE)) for n in range(60)
    ]
    assert max(per_minute) > 3 * min(per_minute) > 0


def test_prices_have_two_decimals_and_move_little_from_trade_to_trade() -> None:
    trades = trades_between(4, BEGIN, BEGIN + HOUR)
    assert all(trade.price == trade.price.quantize(Decimal("0.01")) for trade in trades)
    assert all(trade.amount == trade.amount.quantize(Decimal("0.00001")) for trade in trades)
    steps = [abs(b.price - a.price) for a, b in itertools.pairwise(trades)]
    assert max(steps) < Decimal("1.5")
    assert len({trade.price for trade in trades}) > 100


def test_another_seed_is_another_market() -> None:
    one = [trade.price for trade in trades_between(1, BEGIN, BEGIN + MINUTE)]
    assert one != [trade.price for trade in trades_between(2, BEGIN, BEGIN + MINUTE)]


def test_the_function_never_changes() -> None:
    trades = trades_between(1, BEGIN, BEGIN + 10 * SECOND)
    first = trades[0]
    seen = (first.trade_id, first.event_time, str(first.price), str(first.amount), first.taker_side)
    # Stored trades are fetched again by it: another answer would be another trade with the same id.
    assert seen == ("1794999600", 1794999600700000, "1051.82", "2.29333", "sell")


def test_a_page_is_the_beginning_of_its_span() -> None:
    everything = trades_between(5, BEGIN + 90 * SECOND, BEGIN + HOUR)
    assert page_from(5, BEGIN + 90 * SECOND, to_time=BEGIN + HOUR, limit=500) == everything[:500]
    assert page_from(5, BEGIN, to_time=BEGIN, limit=500) == []


def test_the_next_trade_is_the_first_later_one() -> None:
    trades = trades_between(6, BEGIN, BEGIN + MINUTE)
    later = [trade for trade in trades if trade.event_time > trades[10].event_time]
    assert next_trade_time(6, trades[10].event_time) == later[0].event_time
