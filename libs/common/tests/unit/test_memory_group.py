from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.bus.memory_group import balance


@st.composite
def holdings(draw: st.DrawFn) -> tuple[list[int], list[set[int]]]:
    """Some partitions, and members who each hold some of them, no two the same."""
    count = draw(st.integers(0, 24))
    members = draw(st.integers(1, 8))
    owners = draw(st.lists(st.integers(-1, members - 1), min_size=count, max_size=count))
    return list(range(count)), [
        {partition for partition, owner in enumerate(owners) if owner == member}
        for member in range(members)
    ]


@given(holdings())
def test_every_partition_has_one_owner_and_nobody_has_two_more_than_another(
    case: tuple[list[int], list[set[int]]],
) -> None:
    partitions, held = case
    shares = balance(partitions, held)
    assert sorted(partition for share in shares for partition in share) == partitions
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(holdings())
def test_nobody_gains_while_he_loses_and_as_much_stays_as_can(
    case: tuple[list[int], list[set[int]]],
) -> None:
    partitions, held = case
    shares = balance(partitions, held)
    least, extra = divmod(len(partitions), len(held))
    sizes = sorted(map(len, held), reverse=True)
    can_stay = sum(min(size, least + (rank < extra)) for rank, size in enumerate(sizes))
    assert sum(len(share & own) for share, own in zip(shares, held, strict=True)) == can_stay
    for share, own in zip(shares, held, strict=True):
        assert not (own - share and share - own)


def test_a_balanced_group_keeps_what_it_has() -> None:
    held = [{3, 1}, {0, 2}]
    assert balance([0, 1, 2, 3], held) == held
