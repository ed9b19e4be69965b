"""Synthetic rows: inside coverage, between the stored ones, never instead of one."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from vegamite_api.core.fill import AnyCandle, SyntheticCandle, covered_opens, fill
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.time import DAY, LATEST, MINUTE, SECOND
from vegamite_common.domain.timeframe import Timeframe

BEGIN = 1_760_097_600 * SECOND
TIMEFRAMES = st.sampled_from(
    [Timeframe.S1, Timeframe.M1, Timeframe.M3, Timeframe.W1, Timeframe.MO1]
)


def _candle(timeframe: Timeframe, open_time: int, close: int = 100) -> Candle:
    return Candle(
        timeframe=timeframe,
        open_time=open_time,
        open=Decimal(close),
        high=Decimal(close),
        low=Decimal(close),
        close=Decimal(close),
        volume=Decimal(1),
        quote_volume=Decimal(close),
        buy_volume=Decimal(0),
        buy_quote_volume=Decimal(0),
        trade_count=1,
        first_event_time=open_time,
        first_sequence=1,
        first_trade_id="1",
        last_event_time=open_time,
        last_sequence=1,
        last_trade_id="1",
        epoch=1,
        as_of=1,
        updated_at=open_time,
        final=True,
    )


def _spans(bounds: list[int], unit: int) -> SpanSet:
    edges = sorted({BEGIN + bound * unit // 7 for bound in bounds})
    return SpanSet(Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False))


BOUNDS = st.lists(st.integers(0, 300), max_size=8)


@given(timeframe=TIMEFRAMES, bounds=BOUNDS, low=st.integers(0, 40), length=st.integers(0, 40))
def test_covered_intervals_are_exactly_those_inside_a_span_in_both_directions(
    timeframe: Timeframe, bounds: list[int], low: int, length: int
) -> None:
    unit = timeframe.length or 30 * DAY
    spans = _spans(bounds, unit)
    start, end = BEGIN + low * unit, BEGIN + (low + length) * unit
    expected = []
    at = timeframe.open_time(BEGIN)
    while at < end:
        if start <= at and spans.covers(at, timeframe.close_time(at)):
            expected.append(at)
        at = timeframe.close_time(at)
    assert list(covered_opens(spans, timeframe, start, end, descending=False)) == expected
    assert list(covered_opens(spans, timeframe, start, end, descending=True)) == expected[::-1]


@given(
    timeframe=TIMEFRAMES,
    bounds=BOUNDS,
    stored=st.sets(st.integers(0, 40)),
    limit=st.integers(1, 60),
    descending=st.booleans(),
)
def test_stored_rows_stay_and_the_rest_is_filled_in_order(
    timeframe: Timeframe, bounds: list[int], stored: set[int], limit: int, *, descending: bool
) -> None:
    unit = timeframe.length or 30 * DAY
    spans = _spans(bounds, unit)
    opens = sorted({timeframe.open_time(BEGIN + number * unit) for number in stored})
    rows = [_candle(timeframe, at) for at in opens]
    whole: list[AnyCandle] = fill(
        rows[::-1] if descending else rows,
        spans=spans,
        timeframe=timeframe,
        start=0,
        end=LATEST,
        mode="null",
        limit=10_000,
        descending=descending,
    )
    times = [row.open_time for row in whole]
    assert times == sorted(set(times), reverse=descending)
    assert [row for row in whole if isinstance(row, Candle)] == (rows[::-1] if descending else rows)
    for row in whole:
        if isinstance(row, SyntheticCandle):
            assert spans.covers(row.open_time, row.close_time)
            assert row.price is None
    page = fill(
        (rows[::-1] if descending else rows)[:limit],
        spans=spans,
        timeframe=timeframe,
        start=0,
        end=LATEST,
        mode="null",
        limit=limit,
        descending=descending,
    )
    assert page == whole[:limit]


def test_the_last_price_is_carried_as_far_as_nothing_is_unknown() -> None:
    spans = SpanSet([Span(BEGIN, BEGIN + 5 * MINUTE), Span(BEGIN + 6 * MINUTE, BEGIN + 9 * MINUTE)])
    rows = [
        _candle(Timeframe.M1, BEGIN + MINUTE, 101),
        _candle(Timeframe.M1, BEGIN + 7 * MINUTE, 107),
    ]
    before = _candle(Timeframe.M1, BEGIN - MINUTE, 99)
    filled = fill(
        rows,
        spans=spans,
        timeframe=Timeframe.M1,
        start=BEGIN,
        end=BEGIN + 20 * MINUTE,
        mode="prev",
        limit=100,
        descending=False,
        before=before,
    )
    told = [
        (row.open_time - BEGIN) // MINUTE
        if isinstance(row, Candle)
        else ((row.open_time - BEGIN) // MINUTE, row.price)
        for row in filled
    ]
    # Minute 0: the trade before lies outside coverage, so the price is unknown; so it is after the hole.
    assert told == [
        (0, None),
        1,
        (2, Decimal(101)),
        (3, Decimal(101)),
        (4, Decimal(101)),
        (6, None),
        7,
        (8, Decimal(107)),
    ]


def test_a_candle_before_the_range_gives_the_price_where_coverage_reaches_back_to_it() -> None:
    spans = SpanSet([Span(BEGIN - 10 * MINUTE, BEGIN + 2 * MINUTE)])
    filled = fill(
        [],
        spans=spans,
        timeframe=Timeframe.M1,
        start=BEGIN,
        end=BEGIN + 2 * MINUTE,
        mode="prev",
        limit=10,
        descending=True,
        before=_candle(Timeframe.M1, BEGIN - 3 * MINUTE, 97),
    )
    assert [row.price for row in filled if isinstance(row, SyntheticCandle)] == [Decimal(97)] * 2
