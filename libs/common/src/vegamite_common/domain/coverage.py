"""What is known to be complete: half-open spans of time, sets of them, and the gaps between them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from vegamite_common.domain.time import Micros


class Span(msgspec.Struct, frozen=True, order=True):
    """The half-open interval [from_time, to_time) in microseconds; raises `ValueError` unless it has a length."""

    from_time: Micros
    to_time: Micros

    def __post_init__(self) -> None:
        if not self.from_time < self.to_time:
            raise ValueError(f"a span ends after it begins: [{self.from_time}, {self.to_time})")


class GapState(StrEnum):
    """What is known of a gap: still to be fetched, fetched, or never to be had."""

    OPEN = "open"
    FILLED = "filled"
    UNFILLABLE = "unfillable"


class Gap(msgspec.Struct, frozen=True):
    """A hole in one market's coverage: [from_time, to_time), why it came, what became of it, trades recovered."""

    from_time: Micros
    to_time: Micros
    cause: str
    state: GapState = GapState.OPEN
    reason: str | None = None
    recovered: int = 0

    def __post_init__(self) -> None:
        if not self.from_time < self.to_time:
            raise ValueError(f"a gap ends after it begins: [{self.from_time}, {self.to_time})")
        if self.recovered < 0:
            raise ValueError(f"a gap can't have recovered {self.recovered} trades")
        if (self.state is GapState.UNFILLABLE) != (self.reason is not None):
            raise ValueError("a gap has a reason exactly when it is unfillable")


class SpanSet:
    """A set of instants as sorted, disjoint, non-touching half-open spans; every change returns a new set."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        starts: list[Micros] = []
        ends: list[Micros] = []
        for span in sorted(spans):
            if ends and span.from_time <= ends[-1]:
                ends[-1] = max(ends[-1], span.to_time)
            else:
                starts.append(span.from_time)
                ends.append(span.to_time)
        self._starts = starts
        self._ends = ends

    def __iter__(self) -> Iterator[Span]:
        return (Span(start, end) for start, end in zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SpanSet)
            and self._starts == other._starts
            and self._ends == other._ends
        )

    def __hash__(self) -> int:
        return hash((tuple(self._starts), tuple(self._ends)))

    def __repr__(self) -> str:
        return f"SpanSet({list(self)!r})"

    @property
    def end(self) -> Micros | None:
        """The exclusive end of the last span; None when empty."""
        return self._ends[-1] if self._ends else None

    @property
    def last(self) -> Span | None:
        """The last span; None when empty."""
        return Span(self._starts[-1], self._ends[-1]) if self._ends else None

    def add(self, from_time: Micros, to_time: Micros) -> "SpanSet":
        """Return the union with [from_time, to_time); the same set where that adds nothing."""
        if from_time >= to_time or self.covers(from_time, to_time):
            return self
        low = bisect_left(self._ends, from_time)
        high = bisect_right(self._starts, to_time)
        joined = SpanSet()
        start = min(from_time, self._starts[low]) if low < high else from_time
        end = max(to_time, self._ends[high - 1]) if low < high else to_time
        joined._starts = [*self._starts[:low], start, *self._starts[high:]]
        joined._ends = [*self._ends[:low], end, *self._ends[high:]]
        return joined

    def covers(self, from_time: Micros, to_time: Micros) -> bool:
        """Whether every instant of [from_time, to_time) is in the set; true for an empty interval."""
        if from_time >= to_time:
            return True
        at = bisect_right(self._starts, from_time) - 1
        return at >= 0 and self._ends[at] >= to_time

    def contains(self, instant: Micros) -> bool:
        """Whether one instant is in the set."""
        return self.covers(instant, instant + 1)

    def reach(self, instant: Micros) -> Micros:
        """Return the end of the span that holds an instant; the instant itself where none does."""
        at = bisect_right(self._starts, instant) - 1
        return max(instant, self._ends[at]) if at >= 0 else instant

    def within(self, from_time: Micros, to_time: Micros) -> "SpanSet":
        """Return the part of the set that lies inside [from_time, to_time)."""
        inside = SpanSet()
        if from_time >= to_time:
            return inside
        low = bisect_right(self._ends, from_time)
        high = max(low, bisect_left(self._starts, to_time))
        inside._starts = [max(start, from_time) for start in self._starts[low:high]]
        inside._ends = [min(end, to_time) for end in self._ends[low:high]]
        return inside

    def missing(self, from_time: Micros, to_time: Micros) -> "SpanSet":
        """Return the part of [from_time, to_time) that is not in the set."""
        holes: list[Span] = []
        at = from_time
        low = bisect_right(self._ends, from_time)
        high = max(low, bisect_left(self._starts, to_time))
        for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True):
            if start > at:
                holes.append(Span(at, start))
            at = end
        if at < to_time:
            holes.append(Span(at, to_time))
        return SpanSet(holes)
