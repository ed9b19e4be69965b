import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.core import written as written_module
from vegamite_aggregator.core.point import home_of
from vegamite_aggregator.core.written import Series, Slots, Window, Written, windows
from vegamite_common.domain.market import Market
from vegamite_common.domain.timeframe import Timeframe

A, B = Market("sim", "A/USD"), Market("sim", "B/USD")
SERIES: Series = (A, None)


def test_only_what_is_not_later_than_all_that_is_there_has_to_be_asked_for() -> None:
    written: Written[Slots] = Written(limit=10)
    assert written.strangers([A, B]) == {A, B}
    written.introduce(A, {None: 50}, asked_from=40)
    assert written.strangers([A, B]) == {B}
    assert written.unknown({SERIES: [10, 50, 51]}) == {SERIES: {10, 50}}
    written.put(SERIES, 50, Slots({"x": 0}))
    written.put(SERIES, 60, Slots({"y": 0}))
    assert written.unknown({SERIES: [10, 50, 55, 60, 61]}) == {SERIES: {10, 55}}


def test_a_market_that_holds_nothing_is_asked_for_what_was_not_asked_yet() -> None:
    written: Written[Slots] = Written(limit=10)
    written.introduce(A, {}, asked_from=40)
    assert written.unknown({SERIES: [39, 40, 41]}) == {SERIES: {39}}


def test_what_is_forgotten_is_asked_for_again() -> None:
    written: Written[Slots] = Written(limit=2)
    written.introduce(A, {}, asked_from=0)
    for time in (1, 2, 3):
        written.put(SERIES, time, Slots())
        assert written.get(SERIES, 1) == {}
    written.shrink(keep=3)
    assert len(written) == 3
    written.shrink(keep=1)
    assert len(written) == 2
    assert written.unknown({SERIES: [1, 2, 3, 4]}) == {SERIES: {2}}
    written.introduce(B, {}, asked_from=0)
    written.put((B, None), 9, Slots())
    written.forget([A])
    assert written.strangers([A, B]) == {A}
    assert len(written) == 1


def test_near_times_are_one_question_and_far_ones_two() -> None:
    unknown: dict[Series, list[int]] = {
        (A, None): [1, 5, 100],
        (B, None): [8],
        (A, Timeframe.M1): [300],
    }
    assert windows(unknown, gap={None: 10, Timeframe.M1: 10}, most=5) == [
        Window(None, (A, B), 1, 8),
        Window(None, (A,), 100, 100),
        Window(Timeframe.M1, (A,), 300, 300),
    ]


@given(
    st.dictionaries(
        st.builds(Market, st.just("sim"), st.sampled_from([f"{c}/USD" for c in "ABCDEFGH"])),
        st.sets(st.integers(0, 200), min_size=1),
    ),
    st.integers(0, 20),
    st.integers(1, 3),
)
def test_every_time_is_inside_a_question_that_names_its_market(
    times: dict[Market, set[int]], gap: int, most: int
) -> None:
    asked = windows(
        {(market, None): found for market, found in times.items()}, gap={None: gap}, most=most
    )
    for market, found in times.items():
        for time in found:
            assert any(market in w.markets and w.first <= time <= w.last for w in asked)
    assert all(len(window.markets) <= most for window in asked)


@given(st.sets(st.integers(0, 5000).map(lambda n: str(n) if n % 3 else f"x{n}"), max_size=40))
def test_no_two_ids_have_the_same_home_and_slot(ids: set[str]) -> None:
    slots = Slots()
    for trade_id in ids:
        assert slots.take(trade_id) == slots[trade_id]
    places = [(home_of(trade_id), slot) for trade_id, slot in slots.items()]
    assert len(set(places)) == len(ids)
    for home, group in itertools.groupby(sorted(places), key=lambda place: place[0]):
        assert [slot for _, slot in group] == list(range(sum(h == home for h, _ in places)))


def test_a_slot_that_is_free_between_others_is_taken_first() -> None:
    slots = Slots({"1007": 0, "2007": 2, "8": 0})
    assert [slots.take("3007"), slots.take("4007"), slots.take("5008")] == [1, 3, 1]
    slots["6007"] = 4
    assert slots.take("7007") == 5


def test_a_crowd_of_one_instant_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counted(trade_id: str) -> int:
        nonlocal looked
        looked += 1
        return home_of(trade_id)

    monkeypatch.setattr(written_module, "home_of", counted)
    slots = Slots({str(number): 0 for number in range(500)})
    for number in range(500, 5000):
        slots.take(str(number))
    assert looked == 5000
