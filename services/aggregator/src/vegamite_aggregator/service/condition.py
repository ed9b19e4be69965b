"""What keeps this process from its work: said once in the log, counted, and a reason not to be ready when it lasts.

A partition that was not assigned has no condition, so a process that waits for its share is ready. One that goes wrong
for a moment (a database that restarts, a lost connection) is, too.
"""

import time
from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from vegamite_common.runtime.logging import RepeatedFault

PATIENCE_SECONDS = 10.0
"""For so long something may fail before the process isn't ready (real seconds)."""

_NAMED = 5
"""How many partitions a reason names."""


class Cause(StrEnum):
    """What a partition waits for; the text is the label of the metric."""

    FAILING = "failing"
    """Its transactions fail, or the log that it reads."""
    PUBLISHING = "publishing"
    """What it committed can't be published."""
    HELD = "held"
    """It has set apart as many records as it may."""


_EVENTS = {
    Cause.FAILING: ("partition waits", "partition goes on"),
    Cause.PUBLISHING: ("committed candles wait", "committed candles go out"),
    Cause.HELD: (
        "partition stops: too many of its records are refused",
        "partition goes on after refused records",
    ),
}


class _Trouble(msgspec.Struct):
    since: float
    text: str


class Conditions:
    """How the partitions of one process fare; each cause is one line in the log when it begins and one when it is over."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._troubles: dict[Cause, dict[int, _Trouble]] = {cause: {} for cause in Cause}
        self._faults = {cause: _fault(cause) for cause in Cause}

    def failed(self, cause: Cause, partition: int, error: object, **values: object) -> None:
        """Something failed for the partition; `values` are for the line in the log."""
        found = self._troubles[cause].get(partition)
        if found is None:
            self._troubles[cause][partition] = _Trouble(self._monotonic(), str(error))
        else:
            found.text = str(error)
        self._faults[cause].failed(error, partition=partition, **values)

    def went_well(self, cause: Cause, partition: int) -> None:
        """It works for the partition."""
        if self._troubles[cause].pop(partition, None) and not self._troubles[cause]:
            self._faults[cause].went_well()

    def forget(self, partition: int) -> None:
        """The partition is somebody else's: what failed here is no concern of ours any more."""
        for cause, troubles in self._troubles.items():
            if troubles.pop(partition, None) and not troubles:
                self._faults[cause] = _fault(cause)

    def counts(self) -> dict[Cause, int]:
        """Return how many partitions wait, by cause."""
        return {cause: len(troubles) for cause, troubles in self._troubles.items()}

    def reason(self) -> str | None:
        """Return why the process isn't ready; None where it is."""
        limit = self._monotonic() - PATIENCE_SECONDS
        reasons: list[str] = []
        for cause, troubles in self._troubles.items():
            lasting = {
                partition: trouble
                for partition, trouble in sorted(troubles.items())
                if cause is Cause.HELD or trouble.since <= limit
            }
            if lasting:
                oldest = min(lasting.values(), key=lambda trouble: trouble.since)
                reasons.append(f"{_EVENTS[cause][0]} ({_named(lasting)}): {oldest.text}")
        return "; ".join(reasons) or None


def _fault(cause: Cause) -> RepeatedFault:
    event, over = _EVENTS[cause]
    return RepeatedFault(event, over=over)


def _named(partitions: Iterable[int]) -> str:
    numbers = list(partitions)
    named = ", ".join(map(str, numbers[:_NAMED]))
    return named if len(numbers) <= _NAMED else f"{named} and {len(numbers) - _NAMED} more"
