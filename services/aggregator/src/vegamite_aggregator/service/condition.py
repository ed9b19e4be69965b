"""What keeps this process from its work: said once in the log, counted, and a reason not to be ready when it lasts.

A partition that was not assigned has no condition, so a process that waits for its share is ready. One that goes wrong
for a moment (a database that restarts, a lost connection) is, too.
"""

import time
from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from vegamite_common.runtime.logging import RepeatedFault

LEAST_SILENCE_SECONDS = 5.0
"""A log that doesn't answer for less may just have nothing to say between two polls."""

_NAMED = 5
"""How many partitions a reason names."""


class Cause(StrEnum):
    """What a partition waits for; the text is the label of the metric."""

    FAILING = "failing"
    """Its transactions fail, or the log that it begins to read."""
    READING = "reading"
    """The log that it reads gives no answer."""
    PUBLISHING = "publishing"
    """What it committed can't be published."""
    HELD = "held"
    """It has set apart as many records as it may."""


_EVENTS = {
    Cause.FAILING: ("partition waits", "partition goes on"),
    Cause.READING: ("partition gets no answer from the log", "the log answers again"),
    Cause.PUBLISHING: ("committed candles wait", "committed candles go out"),
    Cause.HELD: (
        "partition stops: too many of its records are refused",
        "partition goes on after refused records",
    ),
}


_AT_ONCE = frozenset({Cause.HELD, Cause.READING})
"""What lasts already when it is told."""


class _Trouble(msgspec.Struct):
    since: float
    text: str


class Conditions:
    """How the partitions of one process fare; each cause is one line in the log when it begins and one when it is over.

    What fails for `patience_seconds` (real ones) is a reason not to be ready.
    """

    def __init__(
        self, *, patience_seconds: float = 10.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience = patience_seconds
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

    def watch_log(self, partition: int, *, silent_seconds: float) -> None:
        """Take note of how long the log hasn't answered for the partition."""
        if silent_seconds < max(self._patience, LEAST_SILENCE_SECONDS):
            self.went_well(Cause.READING, partition)
        elif partition not in self._troubles[Cause.READING]:
            self.failed(Cause.READING, partition, f"none for {silent_seconds:.0f} s")

    def counts(self) -> dict[Cause, int]:
        """Return how many partitions wait, by cause."""
        return {cause: len(troubles) for cause, troubles in self._troubles.items()}

    def reason(self) -> str | None:
        """Return why the process isn't ready; None where it is."""
        limit = self._monotonic() - self._patience
        reasons: list[str] = []
        for cause, troubles in self._troubles.items():
            lasting = {
                partition: trouble
                for partition, trouble in sorted(troubles.items())
                if cause in _AT_ONCE or trouble.since <= limit
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
