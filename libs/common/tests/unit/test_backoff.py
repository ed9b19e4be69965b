import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.runtime.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_limit_and_starts_anew_after_success() -> None:
    backoff = Backoff(first_seconds=0.5, limit_seconds=3.0, draw=lambda: 1.0)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_delay() == 0.5


def test_the_delay_is_drawn_below_the_ceiling_and_is_never_nothing() -> None:
    draws = iter([0.0, 0.25, 1.0])
    backoff = Backoff(first_seconds=1.0, limit_seconds=8.0, draw=lambda: next(draws))
    assert [backoff.next_delay() for _ in range(3)] == [0.05, 0.5, 4.0]


@given(st.integers(min_value=1, max_value=5000))
def test_it_never_overflows_however_often_it_failed(failures: int) -> None:
    backoff = Backoff(first_seconds=0.1, limit_seconds=30.0, draw=lambda: 1.0)
    delays = [backoff.next_delay() for _ in range(failures)]
    assert delays == sorted(delays)
    assert max(delays) <= 30.0


def test_jitter_differs() -> None:
    assert len({Backoff().next_delay() for _ in range(50)}) > 10
    assert Backoff(limit_seconds=1.0).next_delay() == pytest.approx(0.1, abs=0.1)
