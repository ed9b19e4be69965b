"""Consumer groups of the bus inside the process: an even assignment that moves as few partitions as it can."""

from collections.abc import Iterable
from typing import Protocol


class Assignee(Protocol):
    """A member, as its group sees it."""

    @property
    def assignment(self) -> frozenset[int] | None:
        """What it was assigned last."""
        ...

    def assign(self, partitions: frozenset[int]) -> None:
        """Take a new assignment."""
        ...


class MemoryGroup:
    """The members of one group on one topic, in the order they joined, and what they committed."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self._partitions = sorted(partitions)
        self._members: list[Assignee] = []
        self.committed: dict[int, int] = {}

    def add(self, member: Assignee) -> None:
        """A member joins: assign anew."""
        self._members.append(member)
        self._rebalance()

    def remove(self, member: Assignee) -> None:
        """A member leaves: assign anew."""
        if member in self._members:
            self._members.remove(member)
            self._rebalance()

    def _rebalance(self) -> None:
        if not self._members:
            return
        held = [set(member.assignment or ()) for member in self._members]
        shares = balance(self._partitions, held)
        # Those who lose partitions are told first, so that no partition has two owners in between.
        order = sorted(range(len(shares)), key=lambda at: len(shares[at] - held[at]))
        for at in order:
            self._members[at].assign(frozenset(shares[at] & held[at]))
        for at in order:
            self._members[at].assign(frozenset(shares[at]))


def balance(partitions: list[int], held: list[set[int]]) -> list[set[int]]:
    """Return the partitions of each member: sizes differ by at most one, and each keeps what it may of what it held."""
    least, extra = divmod(len(partitions), len(held))
    order = sorted(range(len(held)), key=lambda at: (-len(held[at]), at))
    shares: list[set[int]] = [set() for _ in held]
    room = [0] * len(held)
    for rank, at in enumerate(order):
        room[at] = least + (1 if rank < extra else 0)
        shares[at] = set(sorted(held[at])[: room[at]])
    taken = set().union(*shares)
    free = [partition for partition in partitions if partition not in taken]
    for at in order:
        while free and len(shares[at]) < room[at]:
            shares[at].add(free.pop(0))
    return shares
