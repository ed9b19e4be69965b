"""Which partitions are worked on."""

from vegamite_collector.core.ownership import Ownership


def ownership() -> Ownership:
    return Ownership(grace=10, patience=60)


def test_what_is_assigned_is_held_at_once() -> None:
    owner = ownership()
    assert owner.held(0) == frozenset()
    owner.assign(frozenset({1, 2}), 0)
    assert owner.held(0) == {1, 2}


def test_what_goes_to_another_is_held_for_the_grace_time_and_what_stays_is_never_dropped() -> None:
    owner = ownership()
    owner.assign(frozenset({1, 2}), 0)
    owner.assign(frozenset({2, 3}), 100)
    assert owner.held(109) == {1, 2, 3}
    assert owner.held(110) == {2, 3}


def test_what_comes_back_within_the_grace_time_was_never_dropped() -> None:
    owner = ownership()
    owner.assign(frozenset({1}), 0)
    owner.assign(frozenset({2}), 100)
    owner.assign(frozenset({1, 2}), 105)
    assert owner.held(200) == {1, 2}


def test_the_grace_time_runs_from_the_first_loss() -> None:
    owner = ownership()
    owner.assign(frozenset({1, 2}), 0)
    owner.assign(frozenset({2}), 100)
    owner.assign(frozenset({2, 3}), 108)
    assert owner.held(110) == {2, 3}


def test_without_an_assignment_everything_goes_on_until_patience_ends() -> None:
    owner = ownership()
    owner.assign(frozenset({1}), 0)
    owner.assign(None, 100)
    owner.assign(None, 150)
    assert owner.held(159) == {1}
    assert owner.held(160) == frozenset()


def test_a_new_assignment_after_the_revocation_drops_only_what_was_lost() -> None:
    owner = ownership()
    owner.assign(frozenset({1, 2}), 0)
    owner.assign(None, 100)
    owner.assign(frozenset({2}), 101)
    assert owner.held(105) == {1, 2}
    assert owner.held(111) == {2}
    assert owner.held(1_000) == {2}
