"""T: how far the log is known to be read."""

import pytest

from vegamite_aggregator.core.timing import Timing, log_time

TIMING = Timing(fetch_age=10)


@pytest.mark.parametrize(
    ("next_offset", "end_offset", "fetched", "expected"),
    [
        (7, 7, 100, 100),
        (7, 7, 91, 100),
        (7, 7, 90, 40),
        (6, 7, 100, 40),
        (8, 7, 100, 100),
    ],
)
def test_the_clock_counts_only_while_a_young_fetch_showed_the_end(
    next_offset: int, end_offset: int, fetched: int, expected: int
) -> None:
    found = log_time(
        next_offset=next_offset,
        last_append_time=40,
        end_offset=end_offset,
        fetched_time=fetched,
        now=100,
        timing=TIMING,
    )

    assert found == expected


def test_before_anything_was_read_nothing_is_past() -> None:
    found = log_time(
        next_offset=0, last_append_time=None, end_offset=5, fetched_time=100, now=100, timing=TIMING
    )

    assert found is None
