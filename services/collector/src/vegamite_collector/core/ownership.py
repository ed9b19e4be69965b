"""Which partitions a collector works on, given what the group assigns: sticky, so that a rebalance drops no socket that stays.

A partition that goes to another member is worked on for a grace time more: two writers for a moment are harmless, since
trades are identified, not counted. While there is no assignment at all everything goes on, for a longer while.
"""

from dataclasses import dataclass, field

from vegamite_common.domain.time import Micros


@dataclass
class Ownership:
    """The partitions held; `grace` is how long one that was lost stays, `patience` how long all stay without an assignment (µs)."""

    grace: Micros
    patience: Micros
    _assigned: frozenset[int] | None = None
    _unassigned_since: Micros | None = None
    _lost: dict[int, Micros] = field(default_factory=dict)
    _held: set[int] = field(default_factory=set)

    def assign(self, assignment: frozenset[int] | None, now: Micros) -> None:
        """Take over what the group says now; None is no assignment."""
        if assignment is None:
            if self._unassigned_since is None:
                self._unassigned_since = now
            return
        self._unassigned_since = None
        self._assigned = assignment
        for partition in assignment:
            self._lost.pop(partition, None)
        for partition in self._held - assignment:
            self._lost.setdefault(partition, now)
        self._held |= assignment

    def held(self, now: Micros) -> frozenset[int]:
        """Return the partitions to work on at `now`."""
        if self._unassigned_since is not None and now - self._unassigned_since >= self.patience:
            self._held.clear()
            self._lost.clear()
            self._assigned = None
        for partition, since in list(self._lost.items()):
            if now - since >= self.grace:
                del self._lost[partition]
                self._held.discard(partition)
        return frozenset(self._held)
