"""From ccxt's words to exact trades, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_collector.core.normalise import (
    ClockSkewCounter,
    Continuity,
    Normalised,
    Quarantined,
    SyntheticIds,
    normalise,
    parse_exchange_time,
)
from vegamite_collector.core.profile import ExchangeProfile, known_profiles, profile_for
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade

NOW = 1_700_000_000 * SECOND
NUMERIC = ExchangeProfile(exchange="x", ids_numeric=True, time_resolution=1000)
NAMED = ExchangeProfile(exchange="x", time_resolution=1000)


def raw(**changes: Any) -> dict[str, Any]:
    return {
        "id": "7",
        "timestamp": NOW // 1000,
        "price": "10.50",
        "amount": "0.25000000",
        "side": "buy",
        "info": {},
        **changes,
    }


def one(item: dict[str, Any], profile: ExchangeProfile = NUMERIC) -> Normalised:
    return normalise(
        [item],
        profile=profile,
        received_time=NOW,
        ahead_limit=5 * SECOND,
        synthetic_ids=SyntheticIds(),
    )


def test_numbers_are_exact_and_canonical() -> None:
    [trade] = one(raw()).trades
    assert (str(trade.price), str(trade.amount)) == ("10.5", "0.25")
    assert trade == Trade("7", 7, NOW, Decimal("10.5"), Decimal("0.25"), "buy")


@given(st.decimals(min_value="0.000000000000000001", max_value=10**17, places=18))
def test_no_digit_of_a_literal_is_lost(value: Decimal) -> None:
    [trade] = one(raw(price=format(value, "f"))).trades
    assert trade.price == value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": "0"}, "price"),
        ({"price": "-1"}, "price"),
        ({"price": None}, "price"),
        ({"price": 1.5}, "price"),
        ({"price": "NaN"}, "price"),
        ({"price": "abc"}, "price"),
        ({"amount": "0.0"}, "amount"),
        ({"amount": "Infinity"}, "amount"),
        ({"timestamp": None}, "event_time"),
        ({"timestamp": True}, "event_time"),
        ({"timestamp": 1_000_000_000_000}, "event_time"),
        ({"timestamp": NOW // 1000 + 5_001}, "event_time"),
        ({"id": "x" * 200}, "trade_id"),
    ],
)
def test_what_cannot_be_believed_is_quarantined_with_its_reason(
    change: dict[str, Any], reason: str
) -> None:
    result = one(raw(**change))
    assert result.trades == ()
    assert [item.reason for item in result.quarantined] == [reason]


def test_a_trade_may_be_ahead_of_our_clock_by_the_limit() -> None:
    assert one(raw(timestamp=NOW // 1000 + 5_000)).trades


def test_a_side_that_is_none_is_absent() -> None:
    for side in (None, "", "unknown"):
        assert one(raw(side=side)).trades[0].taker_side is None


def test_numeric_ids_order_as_numbers_and_not_as_text() -> None:
    items = [raw(id="10"), raw(id="11"), raw(id="9")]
    result = normalise(
        items, profile=NUMERIC, received_time=NOW, ahead_limit=0, synthetic_ids=SyntheticIds()
    )
    assert [trade.trade_id for trade in result.trades] == ["9", "10", "11"]


def test_ids_that_are_no_numbers_are_ranked_within_their_instant() -> None:
    items = [raw(id="b"), raw(id="a"), raw(id="c", timestamp=NOW // 1000 - 1)]
    result = normalise(
        items, profile=NAMED, received_time=NOW, ahead_limit=0, synthetic_ids=SyntheticIds()
    )
    assert [(t.trade_id, t.sequence) for t in result.trades] == [("c", 0), ("b", 0), ("a", 1)]


def test_an_id_beyond_64_bits_is_kept_and_ranked() -> None:
    [trade] = one(raw(id="9" * 25)).trades
    assert trade.trade_id == "9" * 25
    assert trade.sequence == 0


def test_without_ids_equal_trades_differ_by_their_ordinal_and_both_sources_agree() -> None:
    items = [raw(id=None), raw(id=None), raw(id=None, amount="3")]
    streamed = normalise(
        items, profile=NAMED, received_time=NOW, ahead_limit=0, synthetic_ids=SyntheticIds()
    )
    fetched = normalise(
        [*items, raw(id=None)],
        profile=NAMED,
        received_time=NOW,
        ahead_limit=0,
        synthetic_ids=SyntheticIds(),
    )
    ids = {trade.trade_id for trade in streamed.trades}
    assert len(ids) == 3
    assert ids < {trade.trade_id for trade in fetched.trades}
    assert len({trade.trade_id for trade in fetched.trades}) == 4


def test_ordinals_go_on_over_the_messages_of_one_connection() -> None:
    ids = SyntheticIds()
    trades = [
        normalise(
            [raw(id=None)], profile=NAMED, received_time=NOW, ahead_limit=0, synthetic_ids=ids
        ).trades[0]
        for _ in range(3)
    ]
    assert len({trade.trade_id for trade in trades}) == 3


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2023-09-25T07:49:37.708706Z", 1_695_628_177_708_706),
        ("2023-09-25T07:49:37.7Z", 1_695_628_177_700_000),
        ("2023-09-25T07:49:37.708706999Z", 1_695_628_177_708_706),
        ("2023-09-25T07:49:37Z", 1_695_628_177_000_000),
        ("1695628177.7087069", 1_695_628_177_708_706),
        ("1695628177", 1_695_628_177_000_000),
        ("yesterday", None),
        ("2023-99-25T07:49:37Z", None),
        ("1.2.3", None),
        (17, None),
        (None, None),
    ],
)
def test_exchange_times_are_cut_to_microseconds(text: object, micros: int | None) -> None:
    assert parse_exchange_time(text) == micros


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    parse_exchange_time(text)
    parse_exchange_time(f"2023-09-25T{text}")


def test_a_kraken_trade_has_one_event_time_whichever_way_it_came() -> None:
    kraken = profile_for("kraken")
    streamed = one(
        raw(info={"timestamp": "2023-11-14T22:13:19.123987Z"}, timestamp=1_699_999_999_124), kraken
    )
    fetched = one(
        raw(
            info=["10.5", "0.25", "1699999999.1239876", "b", "l", "", 7],
            timestamp=1_699_999_999_123,
        ),
        kraken,
    )
    assert streamed == fetched
    assert streamed.trades[0].event_time == 1_699_999_999_123_000


@pytest.mark.parametrize("profile", known_profiles(), ids=lambda profile: profile.exchange)
def test_each_profiles_event_times_are_floored_to_what_both_sides_carry(
    profile: ExchangeProfile,
) -> None:
    [trade] = one(raw(timestamp=NOW // 1000 - 1), profile).trades
    assert trade.event_time == (NOW - 1000) - (NOW - 1000) % profile.time_resolution
    assert profile.backfill != "by_id" or profile.ids_numeric


def test_ten_refused_times_in_a_row_are_a_clock_that_is_off() -> None:
    counter = ClockSkewCounter()
    ahead = Normalised((), (Quarantined("event_time", ""),))
    assert [counter.skewed(ahead) for _ in range(10)] == [False] * 9 + [True]
    assert not counter.skewed(one(raw()))
    assert not counter.active


def test_other_refusals_say_nothing_of_the_clock() -> None:
    counter = ClockSkewCounter()
    assert not any(counter.skewed(Normalised((), (Quarantined("price", ""),))) for _ in range(50))


def numbered(*numbers: int) -> list[Trade]:
    return [
        Trade(str(n), n, NOW + n * SECOND, Decimal(1), Decimal(1)) for n in numbered_check(numbers)
    ]


def numbered_check(numbers: tuple[int, ...]) -> tuple[int, ...]:
    assert all(number > 0 for number in numbers)
    return numbers


def test_a_skipped_number_is_a_hole_between_its_neighbours() -> None:
    continuity = Continuity(1000)
    assert continuity.first_hole(numbered(5, 6)) is None
    assert continuity.first_hole(numbered(7)) is None
    hole = continuity.first_hole(numbered(9))
    assert hole is not None
    assert (hole.from_time, hole.to_time) == (NOW + 7 * SECOND, NOW + 9 * SECOND + 1000)
    assert continuity.first_hole(numbered(10)) is None


def test_repeats_and_another_order_inside_a_message_are_no_holes() -> None:
    continuity = Continuity(1000)
    assert continuity.first_hole(numbered(5, 7, 6)) is None
    assert continuity.first_hole(numbered(6, 7)) is None
    assert continuity.first_hole(numbered(8, 9)) is None
