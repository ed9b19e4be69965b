import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.domain.coverage import Gap, GapState, Span, SpanSet

EDGE = 30
pairs = st.tuples(st.integers(0, EDGE), st.integers(0, EDGE))
spans = pairs.filter(lambda p: p[0] < p[1]).map(lambda p: Span(*p))
span_sets = st.lists(spans, max_size=8).map(SpanSet)


def instants(covered: SpanSet) -> set[int]:
    return {i for span in covered for i in range(span.from_time, span.to_time)}


def assert_normal(covered: SpanSet) -> None:
    parts = list(covered)
    assert all(a.to_time < b.from_time for a, b in itertools.pairwise(parts)), parts
    assert len(covered) == len(parts)
    assert covered.end == (parts[-1].to_time if parts else None)


@given(st.lists(spans, max_size=8))
def test_a_set_is_the_union_of_its_spans_sorted_apart_and_not_touching(parts: list[Span]) -> None:
    covered = SpanSet(parts)
    assert_normal(covered)
    assert instants(covered) == {i for p in parts for i in range(p.from_time, p.to_time)}


@given(span_sets, pairs)
def test_adding_is_union_and_leaves_the_old_set_alone(
    covered: SpanSet, pair: tuple[int, int]
) -> None:
    before = list(covered)
    grown = covered.add(*pair)
    assert_normal(grown)
    assert instants(grown) == instants(covered) | set(range(*pair))
    assert list(covered) == before
    assert grown == SpanSet([*before, *([Span(*pair)] if pair[0] < pair[1] else [])])


@given(st.lists(spans, max_size=6), st.randoms())
def test_the_order_of_additions_does_not_matter(parts: list[Span], rng: Any) -> None:
    shuffled = list(parts)
    rng.shuffle(shuffled)
    one, other = SpanSet(), SpanSet()
    for a, b in zip(parts, shuffled, strict=True):
        one, other = one.add(a.from_time, a.to_time), other.add(b.from_time, b.to_time)
    assert one == other
    assert hash(one) == hash(other)
    assert one == SpanSet(parts)


@given(span_sets, pairs)
def test_covers_within_and_missing_agree_with_the_instants(
    covered: SpanSet, pair: tuple[int, int]
) -> None:
    asked = set(range(*pair))
    assert covered.covers(*pair) == (asked <= instants(covered))
    inside, missing = covered.within(*pair), covered.missing(*pair)
    assert_normal(inside)
    assert_normal(missing)
    assert instants(inside) == instants(covered) & asked
    assert instants(missing) == asked - instants(covered)


@given(span_sets, st.integers(-1, EDGE + 1))
def test_contains_is_about_one_instant(covered: SpanSet, instant: int) -> None:
    assert covered.contains(instant) == (instant in instants(covered))


def test_adding_what_is_there_gives_the_same_set() -> None:
    covered = SpanSet([Span(1, 5)])
    assert covered.add(2, 4) is covered
    assert covered.add(4, 4) is covered
    assert covered.add(9, 3) is covered


def test_touching_spans_become_one() -> None:
    assert list(SpanSet([Span(1, 2)]).add(2, 3)) == [Span(1, 3)]
    assert list(SpanSet([Span(2, 3)]).add(1, 2)) == [Span(1, 3)]


def test_an_empty_set_covers_nothing_but_the_empty_interval() -> None:
    empty = SpanSet()
    assert empty.covers(3, 3)
    assert not empty.covers(3, 4)
    assert list(empty.missing(3, 4)) == [Span(3, 4)]
    assert (empty.end, len(empty)) == (None, 0)


def test_a_set_equals_nothing_but_a_set() -> None:
    assert SpanSet([Span(1, 2)]) != [Span(1, 2)]
    assert SpanSet([Span(1, 2)]) != SpanSet([Span(1, 3)])
    assert "Span(from_time=1, to_time=2)" in repr(SpanSet([Span(1, 2)]))


@pytest.mark.parametrize("pair", [(1, 1), (2, 1)])
def test_a_span_has_a_length(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="ends after it begins"):
        Span(*pair)


@pytest.mark.parametrize(
    "changes",
    [
        {"to_time": 1},
        {"to_time": 0},
        {"state": GapState.UNFILLABLE},
        {"state": GapState.OPEN, "reason": "expired"},
        {"state": GapState.FILLED, "reason": "expired"},
        {"recovered": -1},
    ],
)
def test_an_impossible_gap_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="gap"):
        Gap(**{"from_time": 1, "to_time": 2, "cause": "socket_closed", **changes})


def test_an_unfillable_gap_has_a_reason_and_others_have_none() -> None:
    assert Gap(1, 2, "started", GapState.UNFILLABLE, "no history").reason == "no history"
    assert Gap(1, 2, "started").state is GapState.OPEN
