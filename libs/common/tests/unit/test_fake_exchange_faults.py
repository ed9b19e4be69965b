from typing import Any

import msgspec
import pytest

from vegamite_common.testing.fake_exchange import Faults, RestFailure


def test_all_switches_are_off_at_first() -> None:
    faults = Faults()
    assert faults.take_rest_failure() is None
    assert faults.take_loss() is False
    assert not any(msgspec.to_builtins(faults).values())


def test_changes_are_made_by_name_and_keep_the_rest() -> None:
    faults = Faults(lose=2)
    faults.change({"silent": True, "rest_failure": {"status": 429, "count": 1, "retry_after": 3}})
    assert faults.silent is True
    assert faults.lose == 2
    assert faults.rest_failure == RestFailure(429, 1, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"slent": True},
        {"silent": "yes"},
        {"lose": -1},
        {"lose": 1.5},
        {"stream_lag": -0.1},
        {"rest_failure": {"status": 200, "count": 1}},
        {"rest_failure": {"status": 500}},
        {"silent": True, "lose": None},
    ],
)
def test_an_impossible_change_changes_nothing(changes: dict[str, Any]) -> None:
    faults = Faults()
    with pytest.raises(msgspec.ValidationError):
        faults.change(changes)
    assert faults == Faults()


def test_failures_and_losses_count_down() -> None:
    faults = Faults(lose=2, rest_failure=RestFailure(500, 2))
    assert [faults.take_loss() for _ in range(3)] == [True, True, False]
    taken = [faults.take_rest_failure() for _ in range(3)]
    assert [failure and failure.status for failure in taken] == [500, 500, None]
