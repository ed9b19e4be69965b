"""Gap rows as a projection of coverage: what lies between spans, from the start of tracking up to the end of coverage.

A hole keeps its row while it lasts: what is covered of it becomes a filled row (one that grows, where a repair goes on from
page to page), what can't be had becomes unfillable, the rest stays open with its cause and the time it was opened.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from vegamite_aggregator.core.horizon import EXPIRED
from vegamite_aggregator.core.rows import GapRow
from vegamite_common.domain.coverage import GapState, Span, SpanSet
from vegamite_common.domain.time import Micros
from vegamite_common.messages.trades import Unfillable

BEFORE_TRACKING = "history"
"""The cause of a gap that begins where tracking should have begun."""

SILENCE = "silence"
"""The cause of a gap before which no writer said why it stopped."""


class Projection(msgspec.Struct, frozen=True):
    """Rows to delete and to upsert, the rows to remember, and the rows of which status records tell."""

    deleted: tuple[Micros, ...] = ()
    upserted: tuple[GapRow, ...] = ()
    remembered: Mapping[Micros, GapRow] = {}
    opened: tuple[GapRow, ...] = ()
    filled: tuple[GapRow, ...] = ()
    unfillable: tuple[GapRow, ...] = ()


def project_gaps(
    before: Mapping[Micros, GapRow],
    *,
    coverage: SpanSet,
    history_from: Micros,
    end_causes: Mapping[Micros, str],
    unfillable: Iterable[Unfillable],
    recovered: Mapping[Micros, int],
    horizon: Micros,
    now: Micros,
) -> Projection:
    """Return the rows after a step, given those remembered before it and the coverage after it.

    `recovered` counts new trades of jobs by the `from_time` of the row that they fell into; nothing below `horizon` can be
    filled any more; `now` stamps what opens and closes, in microseconds.
    """
    end = coverage.end
    holes = SpanSet() if end is None else coverage.missing(history_from, end)
    unresolved: list[GapRow] = []
    filled = [row for row in before.values() if row.state is GapState.FILLED]
    for row in before.values():
        if row.state is not GapState.FILLED:
            counted = replace(row, recovered=row.recovered + recovered.get(row.from_time, 0))
            pieces, rest = _resolve(counted, holes, coverage, now)
            filled += pieces
            unresolved += rest
    unresolved += list(_opened(holes, unresolved, history_from, end_causes, now))
    for gone in unfillable:
        unresolved = [part for row in unresolved for part in _give_up(row, gone, now)]
    unresolved = [part for row in unresolved for part in _expire(row, horizon, now)]
    return _difference(before, unresolved, list(_joined(filled)))


def expire_gaps(before: Mapping[Micros, GapRow], *, horizon: Micros, now: Micros) -> Projection:
    """Return the rows once all below `horizon` has expired, given those remembered before: nothing open is left there."""
    filled = [row for row in before.values() if row.state is GapState.FILLED]
    unresolved = [
        part
        for row in before.values()
        if row.state is not GapState.FILLED
        for part in _expire(row, horizon, now)
    ]
    return _difference(before, unresolved, filled)


def _expire(row: GapRow, horizon: Micros, now: Micros) -> Iterator[GapRow]:
    if row.from_time >= horizon:
        yield row
    else:
        yield from _give_up(row, Unfillable(row.from_time, horizon, EXPIRED), now)


def _difference(
    before: Mapping[Micros, GapRow], unresolved: list[GapRow], filled: list[GapRow]
) -> Projection:
    """Return what the rows of now mean for those of before: the store's, memory's and the readers'."""
    still_open = [row for row in unresolved if row.state is GapState.OPEN]
    edges = {edge for row in still_open for edge in (row.from_time, row.to_time)}
    lasting = {row for row in filled if row.from_time in edges or row.to_time in edges}
    told = SpanSet(Span(row.from_time, row.to_time) for row in before.values())
    after = {row.from_time: row for row in (*filled, *unresolved)}
    known = set(before.values())
    new = [row for row in after.values() if row not in known]
    return Projection(
        deleted=tuple(start for start in before if start not in after),
        upserted=tuple(sorted(new, key=lambda row: row.from_time)),
        remembered={row.from_time: row for row in (*unresolved, *lasting)},
        opened=tuple(row for row in still_open if not told.within(row.from_time, row.to_time)),
        # Remembered ones touched an open row before: those that no longer do are done.
        filled=tuple(row for row in filled if row not in lasting),
        unfillable=tuple(
            row
            for row in new
            if row.state is GapState.UNFILLABLE
            and not any(_same_loss(row, old) for old in before.values())
        ),
    )


def _same_loss(row: GapRow, old: GapRow) -> bool:
    """Whether `row` is what is left of a loss that was told already."""
    return old.state is GapState.UNFILLABLE and (
        old.from_time <= row.from_time and row.to_time <= old.to_time
    )


def _resolve(
    row: GapRow, holes: SpanSet, coverage: SpanSet, now: Micros
) -> tuple[list[GapRow], list[GapRow]]:
    """Return the row's covered pieces, as filled rows, and what is left of it; what precedes tracking is dropped."""
    left = [
        replace(row, from_time=span.from_time, to_time=span.to_time)
        for span in holes.within(row.from_time, row.to_time)
    ]
    pieces = [
        replace(
            row,
            from_time=span.from_time,
            to_time=span.to_time,
            state=GapState.FILLED,
            reason=None,
            closed_time=now,
        )
        for span in coverage.within(row.from_time, row.to_time)
    ]
    # What was recovered is told once: by the first piece that is filled, else by the first that is left.
    parts = [*pieces, *left]
    parts[1:] = [replace(part, recovered=0) for part in parts[1:]]
    return parts[: len(pieces)], parts[len(pieces) :]


def _opened(
    holes: SpanSet,
    unresolved: Iterable[GapRow],
    history_from: Micros,
    end_causes: Mapping[Micros, str],
    now: Micros,
) -> Iterator[GapRow]:
    """Yield rows for those parts of the holes that have none."""
    known = SpanSet(Span(row.from_time, row.to_time) for row in unresolved)
    for hole in holes:
        for span in known.missing(hole.from_time, hole.to_time):
            cause = end_causes.get(span.from_time)
            if cause is None:
                cause = BEFORE_TRACKING if span.from_time == history_from else SILENCE
            yield GapRow(
                from_time=span.from_time,
                to_time=span.to_time,
                cause=cause,
                state=GapState.OPEN,
                opened_time=now,
            )


def _give_up(row: GapRow, gone: Unfillable, now: Micros) -> Iterator[GapRow]:
    """Yield the row, split where what is gone begins and ends."""
    start = max(row.from_time, gone.from_time)
    end = min(row.to_time, gone.to_time)
    if row.state is not GapState.OPEN or start >= end:
        yield row
        return
    recovered = row.recovered
    for from_time, to_time in ((row.from_time, start), (start, end), (end, row.to_time)):
        if from_time < to_time:
            part = replace(row, from_time=from_time, to_time=to_time, recovered=recovered)
            recovered = 0
            if from_time == start:
                part = replace(part, state=GapState.UNFILLABLE, reason=gone.reason, closed_time=now)
            yield part


def _joined(filled: Iterable[GapRow]) -> Iterator[GapRow]:
    """Yield filled rows, those that touch and have one cause as one."""
    last: GapRow | None = None
    for row in sorted(filled, key=lambda row: row.from_time):
        if last is not None and last.to_time == row.from_time and last.cause == row.cause:
            last = replace(
                last,
                to_time=row.to_time,
                opened_time=min(last.opened_time, row.opened_time),
                recovered=last.recovered + row.recovered,
                closed_time=max(last.closed_time or 0, row.closed_time or 0),
            )
        else:
            if last is not None:
                yield last
            last = row
    if last is not None:
        yield last
