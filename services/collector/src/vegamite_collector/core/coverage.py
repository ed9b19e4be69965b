"""What a writer may claim: how far each open span is proven, and when the clocks allow claiming at all.

A span is proven up to the send time of the latest ping whose answer was read in order behind the trades, less the settling
time. An answer's read time proves nothing: a process that was stopped reads an old one "now".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from vegamite_common.domain.time import Micros


@dataclass
class OpenSpan:
    """One market's open span under the current writer: claims begin at `from_time`, proof reaches to `proven_time`."""

    from_time: Micros
    proven_time: Micros
    settling: Micros

    @property
    def claim(self) -> Micros:
        """The instant up to which the span may be called complete (exclusive)."""
        return self.proven_time - self.settling

    def prove(self, sent_time: Micros) -> None:
        """Take note that a ping sent at `sent_time` was answered behind the trades before it; never goes back."""
        self.proven_time = max(self.proven_time, sent_time)

    def closing(self, limit: Micros | None = None) -> Micros:
        """Return where the span ends when it is closed now: its claim, or `limit` where that is less."""
        return self.claim if limit is None else min(self.claim, limit)


LONGEST_SETTLING_FACTOR = 30


def late_trade_count(span: OpenSpan, event_times: Iterable[Micros], *, claimed: Micros) -> int:
    """Return how many trades came for a time of the span that a heartbeat had claimed, up to `claimed`."""
    return sum(span.from_time <= event_time < claimed for event_time in event_times)


def raised_settling(settling: Micros, *, own: Micros) -> Micros:
    """Return the settling time after a trade came too late: twice as long, at most 30 times the profile's `own`."""
    return min(settling * 2, own * LONGEST_SETTLING_FACTOR)


def heartbeat_time(spans: list[OpenSpan], *, now: Micros, settling: Micros) -> Micros:
    """Return the `to` of one heartbeat: the least claim of the writer's open spans, never later than `now` less `settling`."""
    return min([now - settling, *(span.claim for span in spans)])


class ClockProof(Enum):
    """What an acknowledged heartbeat says of our clock against the log's."""

    AGREES = "agrees"
    UNPROVEN = "unproven"
    DIFFERS = "differs"


def compare_clocks(
    *, sent_time: Micros, acked_time: Micros, append_time: Micros, limit: Micros
) -> ClockProof:
    """Compare our clock with the log's by one record sent and acknowledged between two readings of ours.

    The log appended it somewhere between: so its time, where clocks agree, lies between ours. `AGREES` only where that
    proves a difference of at most `limit`; `DIFFERS` only where it proves a larger one; all in µs.
    """
    if append_time - acked_time > limit or sent_time - append_time > limit:
        return ClockProof.DIFFERS
    if acked_time - append_time <= limit and append_time - sent_time <= limit:
        return ClockProof.AGREES
    return ClockProof.UNPROVEN


@dataclass
class SkewTimer:
    """How long the clocks have differed: `since` is the first of an unbroken row of disagreements."""

    since: Micros | None = None

    def note(self, proof: ClockProof, now: Micros) -> None:
        """Take note of one comparison at `now`."""
        if proof is ClockProof.AGREES:
            self.since = None
        elif proof is ClockProof.DIFFERS and self.since is None:
            self.since = now

    def exceeds(self, limit: Micros, now: Micros) -> bool:
        """Whether the clocks have differed for `limit` µs."""
        return self.since is not None and now - self.since >= limit
