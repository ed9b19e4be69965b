"""Rows for intervals without trades: only inside coverage, since unknown is not "no trades".

`prev` repeats the last price, as long as it is known: back to the beginning of the covered span, not across a hole.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

FillMode = Literal["prev", "null"]


class SyntheticCandle(msgspec.Struct, frozen=True):
    """A covered interval in which nothing traded; `price` is the last known one, absent where none is."""

    timeframe: Timeframe
    open_time: Micros
    price: Decimal | None

    @property
    def close_time(self) -> Micros:
        """The exclusive end of the interval."""
        return self.timeframe.close_time(self.open_time)


AnyCandle = Candle | SyntheticCandle


def covered_opens(
    spans: SpanSet, timeframe: Timeframe, start: Micros, end: Micros, *, descending: bool
) -> Iterator[Micros]:
    """Yield the open times in [start, end) of the intervals that lie wholly inside one span, in the asked order."""
    for span in sorted(spans, reverse=descending):
        if span.to_time <= start or span.from_time >= end:
            continue
        yield from _opens_in(span, timeframe, start, end, descending=descending)


def _opens_in(
    span: Span, timeframe: Timeframe, start: Micros, end: Micros, *, descending: bool
) -> Iterator[Micros]:
    low = _first_open(timeframe, max(start, span.from_time))
    if not descending:
        at = low
        while at < end and timeframe.close_time(at) <= span.to_time:
            yield at
            at = timeframe.close_time(at)
        return
    at = timeframe.open_time(min(end, span.to_time) - 1)
    while at >= low:
        if timeframe.close_time(at) <= span.to_time:
            yield at
        at = timeframe.open_time(at - 1)


def _first_open(timeframe: Timeframe, instant: Micros) -> Micros:
    at = timeframe.open_time(instant)
    return at if at == instant else timeframe.close_time(at)


def fill(
    rows: Sequence[Candle],
    *,
    spans: SpanSet,
    timeframe: Timeframe,
    start: Micros,
    end: Micros,
    mode: FillMode,
    limit: int,
    descending: bool,
    before: Candle | None = None,
) -> list[AnyCandle]:
    """Return at most `limit` rows of [start, end), in the asked order: the stored ones, and synthetic ones between.

    `rows` are all stored candles of the range in that order, or its first `limit` at least. `before` is the stored
    candle next before the earliest row that the answer may hold, for `prev`.
    """
    at = {row.open_time: row for row in rows}
    opens = _merged(
        [row.open_time for row in rows],
        covered_opens(spans, timeframe, start, end, descending=descending),
        descending=descending,
    )
    chosen = [open_time for open_time, _ in zip(opens, range(limit), strict=False)]
    history = sorted([*rows, *([before] if before else [])], key=lambda row: row.open_time)
    times = [row.open_time for row in history]
    filled: list[AnyCandle] = []
    for open_time in chosen:
        row = at.get(open_time)
        if row is not None:
            filled.append(row)
            continue
        price = None
        if mode == "prev":
            index = bisect_right(times, open_time) - 1
            price = _known_price(history[index], spans, open_time) if index >= 0 else None
        filled.append(SyntheticCandle(timeframe, open_time, price))
    return filled


def _known_price(last: Candle, spans: SpanSet, open_time: Micros) -> Decimal | None:
    return last.close if spans.covers(last.last_event_time, open_time) else None


def _merged(
    stored: Sequence[Micros], covered: Iterator[Micros], *, descending: bool
) -> Iterator[Micros]:
    """Merge two sequences in the same order, each open time once."""
    sign = -1 if descending else 1
    waiting = iter(stored)
    left, right = next(waiting, None), next(covered, None)
    while left is not None or right is not None:
        if right is None or (left is not None and sign * left <= sign * right):
            assert left is not None
            yield left
            if right == left:
                right = next(covered, None)
            left = next(waiting, None)
        else:
            yield right
            right = next(covered, None)
