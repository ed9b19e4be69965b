"""How many records may be set apart: so many in a window of the clock, whoever counts."""

from hypothesis import given
from hypothesis import strategies as st

from vegamite_aggregator.core.allowance import SetApart

WINDOW = 3600
LIMIT = 10


def test_the_first_one_begins_a_window_and_its_end_forgets_all() -> None:
    none = SetApart()
    assert none.left(LIMIT, now=5, window=WINDOW) == LIMIT
    assert none.plus(0, now=5, window=WINDOW) is none

    some = none.plus(3, now=100, window=WINDOW).plus(4, now=200, window=WINDOW)
    assert some == SetApart(since=100, count=7)
    assert some.left(LIMIT, now=100 + WINDOW - 1, window=WINDOW) == 3
    assert some.left(LIMIT, now=100 + WINDOW, window=WINDOW) == LIMIT
    assert some.plus(1, now=100 + WINDOW, window=WINDOW) == SetApart(since=100 + WINDOW, count=1)


def test_a_lower_limit_leaves_none_and_a_higher_one_the_rest() -> None:
    some = SetApart(since=100, count=7)
    assert some.left(5, now=101, window=WINDOW) == 0
    assert some.left(0, now=101, window=WINDOW) == 0
    assert some.left(100, now=101, window=WINDOW) == 93


def test_a_clock_that_went_back_keeps_no_window_open() -> None:
    assert SetApart(since=10**9, count=LIMIT).left(LIMIT, now=50, window=WINDOW) == LIMIT


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 20)), max_size=40))
def test_no_two_windows_lengths_hold_more_than_twice_the_limit(
    steps: list[tuple[int, int]],
) -> None:
    counted = SetApart()
    now, done = 0, []
    for pause, wanted in steps:
        now += pause
        taken = min(wanted, counted.left(LIMIT, now=now, window=WINDOW))
        counted = counted.plus(taken, now=now, window=WINDOW)
        done += [now] * taken
    for at in done:
        assert sum(at <= other < at + WINDOW for other in done) <= 2 * LIMIT
