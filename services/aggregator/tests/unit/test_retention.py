"""How far horizons move, and which policies are nonsense."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vegamite_aggregator.config import RetentionSection
from vegamite_aggregator.core.horizon import NOTHING_EXPIRED, Horizon
from vegamite_aggregator.core.retention import Retention, Unfinished, advance
from vegamite_common.domain.time import DAY, HOUR, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe

MONDAY = parse_time("2024-02-26T00:00:00Z")
NOTHING = Unfinished()


def moved(
    retention: Retention,
    now: Micros,
    unfinished: Unfinished = NOTHING,
    before: Horizon = NOTHING_EXPIRED,
) -> Horizon:
    return advance(before, retention, now=now, unfinished=unfinished)


def test_without_a_policy_nothing_expires() -> None:
    assert moved(Retention(), MONDAY) is NOTHING_EXPIRED


def test_trades_expire_by_whole_days() -> None:
    horizon = moved(Retention(trades=7), MONDAY + 13 * HOUR)
    assert horizon == Horizon(trades=MONDAY - 7 * DAY)
    assert moved(Retention(trades=7), MONDAY + 20 * HOUR, before=horizon) is horizon


def test_candles_expire_by_what_they_open_and_never_before_trades() -> None:
    policy = Retention(trades=7, candles={Timeframe.S1: 8, Timeframe.M1: 30})
    horizon = moved(policy, MONDAY + HOUR)
    assert horizon.candles == {
        Timeframe.S1: MONDAY - 8 * DAY,
        Timeframe.M1: MONDAY - 30 * DAY,
    }
    held = moved(policy, MONDAY + HOUR, Unfinished(gap=MONDAY - 20 * DAY))
    assert (held.trades, held.candles[Timeframe.S1]) == (MONDAY - 20 * DAY, MONDAY - 20 * DAY)


def test_a_candle_stays_while_a_longer_one_over_it_is_not_final() -> None:
    policy = Retention(trades=1, candles={Timeframe.S1: 1, Timeframe.H1: 1, Timeframe.MO1: 1})
    now = MONDAY + 3 * DAY
    month = Timeframe.MO1.open_time(now)
    horizon = moved(policy, now, Unfinished(candles={Timeframe.MO1: month}))
    assert horizon.trades == MONDAY + 2 * DAY, "of trades only the day's candles ask"
    assert horizon.candles[Timeframe.S1] == month
    week = moved(policy, now, Unfinished(candles={Timeframe.W1: MONDAY}))
    assert week.candles[Timeframe.S1] == MONDAY


def test_a_day_of_trades_stays_while_one_of_its_candles_is_at_work() -> None:
    horizon = moved(
        Retention(trades=1), MONDAY, Unfinished(candles={Timeframe.D1: MONDAY - 9 * DAY})
    )
    assert horizon.trades == MONDAY - 9 * DAY


DAYS = st.lists(st.integers(1, 400), min_size=17, max_size=17).map(sorted)


@given(DAYS, st.integers(0, 4000), st.integers(0, 4000), st.integers(0, 10**9))
def test_horizons_never_go_back_and_candles_never_expire_before_their_trades(
    days: list[int], first: int, second: int, gap: int
) -> None:
    policy = Retention(trades=days[0], candles=dict(zip(Timeframe, days[1:], strict=True)))
    begin = parse_time("2010-01-01T00:00:00Z")
    horizon = NOTHING_EXPIRED
    for passed in (first, second):
        after = moved(policy, begin + passed * DAY, Unfinished(gap=begin + gap * HOUR), horizon)
        assert after.trades >= horizon.trades
        for timeframe in Timeframe:
            at = after.of_candles(timeframe)
            assert at >= horizon.of_candles(timeframe)
            assert at <= after.trades
            assert timeframe.open_time(at) == at
            # Whatever is folded from now on meets no expired candle.
            assert timeframe.open_time(after.trades) >= at
        horizon = after


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"trades_days": -1}, "greater than or equal to 0"),
        ({"trades_days": 7, "candles_1s_days": 3}, "candles_1s_days is 3, but trades_days is 7"),
        ({"candles_1s_days": 3}, r"trades_days is 0 \(for ever\)"),
        (
            {"trades_days": 1, "candles_1m_days": 5},
            r"candles_1m_days is 5, but candles_1s_days is 0 \(for ever\)",
        ),
        ({"trades_days": 1, "candles_1mon_days": 5}, "Extra inputs"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RetentionSection(**keys)


def test_a_policy_may_end_anywhere() -> None:
    section = RetentionSection(trades_days=7, candles_1s_days=7, candles_1m_days=30)
    assert section.retention == Retention(trades=7, candles={Timeframe.S1: 7, Timeframe.M1: 30})
    assert RetentionSection(trades_days=7).retention == Retention(trades=7)
