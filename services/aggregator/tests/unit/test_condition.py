"""What keeps a process from its work: when it is a reason not to be ready, and what the log says of it."""

import pytest
import structlog
from structlog.testing import capture_logs

from vegamite_aggregator.service.condition import Cause, Conditions

PATIENCE_SECONDS = 7.0


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def conditions(clock: Time) -> Conditions:
    structlog.reset_defaults()
    return Conditions(patience_seconds=PATIENCE_SECONDS, monotonic=clock)


def test_a_failure_is_a_reason_once_it_lasts_and_none_when_it_is_over(
    conditions: Conditions, clock: Time
) -> None:
    assert conditions.reason() is None
    conditions.failed(Cause.FAILING, 3, "permission denied for table trade")
    assert conditions.reason() is None
    clock.now += PATIENCE_SECONDS
    conditions.failed(Cause.FAILING, 3, "permission denied for table candle")
    assert conditions.reason() == "partition waits (3): permission denied for table candle"
    conditions.went_well(Cause.FAILING, 3)
    assert conditions.reason() is None


def test_a_failure_that_comes_and_goes_is_none(conditions: Conditions, clock: Time) -> None:
    for _ in range(5):
        conditions.failed(Cause.PUBLISHING, 3, "refused")
        clock.now += PATIENCE_SECONDS - 1
        assert conditions.reason() is None
        conditions.went_well(Cause.PUBLISHING, 3)


def test_a_partition_that_stopped_at_its_limit_is_a_reason_at_once(conditions: Conditions) -> None:
    conditions.failed(Cause.HELD, 3, "record 7 would be one more")
    assert conditions.reason() == (
        "partition stops: too many of its records are refused (3): record 7 would be one more"
    )


def test_a_log_that_does_not_answer_is_a_reason_until_it_does(conditions: Conditions) -> None:
    conditions.watch_log(3, silent_seconds=PATIENCE_SECONDS - 0.1)
    assert conditions.reason() is None
    conditions.watch_log(3, silent_seconds=PATIENCE_SECONDS)
    assert conditions.reason() == "partition gets no answer from the log (3): none for 7 s"
    conditions.watch_log(3, silent_seconds=PATIENCE_SECONDS + 5)
    conditions.watch_log(3, silent_seconds=0.2)
    assert conditions.reason() is None


def test_many_partitions_are_named_in_short_and_counted(
    conditions: Conditions, clock: Time
) -> None:
    for partition in range(7):
        conditions.failed(Cause.FAILING, partition, "away")
    conditions.failed(Cause.PUBLISHING, 2, "no broker")
    clock.now += PATIENCE_SECONDS
    assert conditions.reason() == (
        "partition waits (0, 1, 2, 3, 4 and 2 more): away; committed candles wait (2): no broker"
    )
    assert conditions.counts() == {
        Cause.FAILING: 7,
        Cause.READING: 0,
        Cause.PUBLISHING: 1,
        Cause.HELD: 0,
    }


def test_a_partition_that_is_somebody_elses_is_no_reason(
    conditions: Conditions, clock: Time
) -> None:
    conditions.failed(Cause.FAILING, 3, "away")
    conditions.failed(Cause.HELD, 3, "record 7 would be one more")
    clock.now += PATIENCE_SECONDS
    conditions.forget(3)
    assert conditions.reason() is None


def test_one_line_says_that_something_fails_whichever_partitions_it_is(
    conditions: Conditions,
) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            for partition in (1, 2):
                conditions.failed(Cause.FAILING, partition, "away")
        conditions.went_well(Cause.FAILING, 1)
        conditions.went_well(Cause.FAILING, 1)
        conditions.went_well(Cause.FAILING, 2)
    assert [(line["event"], line.get("partition"), line.get("count")) for line in lines] == [
        ("partition waits", 1, None),
        ("partition goes on", None, 6),
    ]
