"""The comparison of stored candles with folded trades, however both come in portions."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from vegamite_aggregator.core.fold import fold_records
from vegamite_aggregator.core.verification import (
    LONG,
    SHORT,
    Comparison,
    Difference,
    Scope,
    StoredState,
)
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.time import DAY, HOUR, SECOND, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade

BEGIN = parse_time("2024-02-27")
END = BEGIN + 5 * DAY  # over the end of a month
COVERED = SpanSet([Span(BEGIN - DAY, END - DAY)])
NUMBERS = st.integers(1, 10**6).map(lambda digits: Decimal(digits) / 1000)

Stored = dict[Timeframe, dict[Micros, StoredState]]


@st.composite
def made_trades(draw: st.DrawFn) -> list[Trade]:
    times = draw(st.lists(st.integers(BEGIN, END - 1), min_size=1, max_size=25))
    return [
        Trade(
            trade_id=str(number),
            sequence=number,
            event_time=event_time,
            price=draw(NUMBERS),
            amount=draw(NUMBERS),
            taker_side=draw(st.sampled_from(("buy", "sell", None))),
        )
        for number, event_time in enumerate(times)
    ]


def stored_of(trades: list[Trade], coverage: SpanSet = COVERED) -> Stored:
    return {
        timeframe: {
            at: StoredState(
                at,
                tally,
                final=True,
                complete=coverage.covers(at, timeframe.close_time(at)),
                revision=0,
                held=False,
            )
            for at, tally in series.items()
        }
        for timeframe, series in fold_records([trades], None).items()
    }


def compare(
    trades: list[Trade],
    stored: Stored,
    *,
    bounds: list[Micros] | None = None,
    coverage: SpanSet = COVERED,
    **scope: Any,
) -> list[Difference]:
    """Give both sides to a comparison in portions that end at `bounds`."""
    wanted = Scope(**{"from_time": BEGIN, "to_time": END, **scope})
    comparison = Comparison(wanted, coverage)
    inside = [
        trade
        for trade in trades
        if max(wanted.from_time, wanted.trades_from) <= trade.event_time < wanted.to_time
    ]
    seconds = fold_records([inside], None)[Timeframe.S1] if inside else {}
    found: list[Difference] = []
    given_until: dict[Timeframe, Micros] = {tf: wanted.read_from(tf) for tf in Timeframe}
    before = 0
    ends = [at for at in bounds or [] if wanted.from_time < at < wanted.to_time]
    for bound in [*sorted(set(ends)), wanted.to_time, max(wanted.days_to, wanted.to_time)]:
        rows: dict[Timeframe, list[StoredState]] = {}
        for timeframe in comparison.needed:
            end = min(timeframe.open_time(bound), wanted.read_to(timeframe))
            begin = given_until[timeframe]
            rows[timeframe] = [
                row for at, row in sorted(stored[timeframe].items()) if begin <= at < end
            ]
            given_until[timeframe] = max(begin, end)
        some = {at: tally for at, tally in seconds.items() if before <= at < bound}
        found += comparison.take(bound, some, rows)
        before = bound
    return found


HOURS = st.lists(st.integers(1, 5 * 24 - 1).map(lambda hour: BEGIN + hour * HOUR), max_size=8)


@given(trades=made_trades(), bounds=HOURS)
@settings(deadline=None, max_examples=60)
def test_what_trades_add_up_to_is_equal_however_it_comes(
    trades: list[Trade], bounds: list[Micros]
) -> None:
    assert compare(trades, stored_of(trades), bounds=bounds) == []


@given(trades=made_trades(), bounds=HOURS, data=st.data())
@settings(deadline=None, max_examples=60)
def test_one_wrong_candle_is_told_and_no_other(
    trades: list[Trade], bounds: list[Micros], data: st.DataObject
) -> None:
    stored = stored_of(trades)
    timeframe = data.draw(st.sampled_from(list(Timeframe)))
    at = data.draw(st.sampled_from(sorted(stored[timeframe])))
    row = stored[timeframe][at]
    what = data.draw(st.sampled_from(("volume", "gone", "complete", "extra")))
    where = {(timeframe, at)}
    if what == "volume":
        wrong = replace(row.tally, volume=row.tally.volume + 1)
        stored[timeframe][at] = row._replace(tally=wrong)
    elif what == "gone":
        del stored[timeframe][at]
    elif what == "complete":
        stored[timeframe][at] = row._replace(complete=not row.complete)
    else:
        free = [
            opened
            for opened in range(BEGIN, END, HOUR)
            if timeframe.open_time(opened) == opened and opened not in stored[timeframe]
        ]
        if not free:
            return
        stored[timeframe][free[0]] = row._replace(open_time=free[0])
        where = {(timeframe, free[0])}
    found = compare(trades, stored, bounds=bounds)
    assert {(one.timeframe, one.open_time) for one in found} == where
    fields = {"volume": "volume", "gone": "candle", "complete": "complete", "extra": "candle"}
    assert fields[what] in {one.field for one in found}


@given(trades=made_trades(), bounds=HOURS, data=st.data())
@settings(deadline=None, max_examples=60)
def test_below_the_horizon_shorter_candles_stand_for_the_trades(
    trades: list[Trade], bounds: list[Micros], data: st.DataObject
) -> None:
    horizons = sorted(data.draw(st.tuples(*[st.integers(BEGIN, END)] * 3)), reverse=True)
    raw, seconds, minutes = horizons
    stored = stored_of(trades)
    for timeframe, horizon in ((Timeframe.S1, seconds), (Timeframe.M1, minutes)):
        stored[timeframe] = {at: row for at, row in stored[timeframe].items() if at >= horizon}
    known = [trade for trade in trades if trade.event_time >= raw]
    scope: dict[str, Any] = {
        "bounds": bounds,
        "trades_from": raw,
        "candles_from": {Timeframe.S1: seconds, Timeframe.M1: minutes},
    }
    assert compare(known, stored, **scope) == []
    # What has candles below it that are still there is found, whatever became of the trades.
    for timeframe in (Timeframe.H1, Timeframe.D1, Timeframe.MO1):
        at = data.draw(st.sampled_from(sorted(stored[timeframe])))
        row = stored[timeframe][at]
        wrong = replace(row.tally, trade_count=row.tally.trade_count + 1)
        spoilt = {**stored, timeframe: {**stored[timeframe], at: row._replace(tally=wrong)}}
        told = {(one.timeframe, one.open_time) for one in compare(known, spoilt, **scope)}
        assert (timeframe, at) in told


def trade(number: int, event_time: Micros) -> Trade:
    return Trade(
        trade_id=str(number),
        sequence=number,
        event_time=event_time,
        price=Decimal(5),
        amount=Decimal(1),
    )


def test_a_candle_that_trades_came_to_while_it_was_read_apart_has_no_half_of_them() -> None:
    """A horizon inside a second leaves that second, and whatever it is part of, to the stored ones."""
    trades = [trade(1, BEGIN), trade(2, BEGIN + 400_000)]
    known = [one for one in trades if one.event_time >= BEGIN + 200_000]
    assert compare(known, stored_of(trades), trades_from=BEGIN + 200_000) == []


@pytest.mark.parametrize("held", [True, False])
def test_what_a_job_holds_is_compared_but_not_its_flags(held: bool) -> None:
    trades = [trade(1, BEGIN), trade(2, BEGIN + HOUR)]
    stored = {
        timeframe: {
            at: row._replace(final=False, complete=False, held=held) for at, row in rows.items()
        }
        for timeframe, rows in stored_of(trades).items()
    }
    found = compare(trades, stored)
    assert {one.field for one in found} == (set() if held else {"final"})
    stored[Timeframe.M1].popitem()
    assert "candle" in {one.field for one in compare(trades, stored)}


def test_only_the_timeframes_that_were_asked_for_are_compared_or_read() -> None:
    trades = [trade(number, BEGIN + number * 5 * HOUR) for number in range(20)]
    for timeframe in Timeframe:
        stored: Stored = {other: {} for other in Timeframe}
        days = stored_of(trades)[Timeframe.D1]
        if timeframe in LONG:
            stored[Timeframe.D1] = days
        found = compare(trades, stored, timeframes=frozenset({timeframe}))
        assert {one.timeframe for one in found} == {timeframe}
        assert {(one.stored, one.field) for one in found} == {(None, "candle")}
        scope = Scope(from_time=BEGIN, to_time=END, timeframes=frozenset({timeframe}))
        beside = [Timeframe.D1] if timeframe in LONG else []
        assert Comparison(scope, COVERED).needed == [*beside, timeframe]


def test_a_row_that_nothing_can_be_compared_with_is_held_against_its_limits() -> None:
    trades = [trade(1, BEGIN)]
    stored = stored_of(trades)
    for timeframe in SHORT:
        row = stored[timeframe][BEGIN]
        wrong = replace(row.tally, low=Decimal(9), volume=Decimal("Infinity"))
        stored[timeframe][BEGIN] = row._replace(tally=wrong)
    everything = dict.fromkeys(Timeframe, END)
    found = compare([], stored, trades_from=END, candles_from=everything)
    assert {(one.timeframe, one.field) for one in found} == {(tf, "limits") for tf in SHORT}


def test_a_revision_of_what_was_never_final_is_told() -> None:
    stored = stored_of([trade(1, END - SECOND)])
    row = stored[Timeframe.M1][END - 60 * SECOND]
    stored[Timeframe.M1][END - 60 * SECOND] = row._replace(final=False, revision=3)
    (found,) = compare([trade(1, END - SECOND)], stored)
    assert (found.timeframe, found.field) == (Timeframe.M1, "limits")
    assert "revisions" in str(found.stored)


@pytest.mark.parametrize(("begin", "end"), [(BEGIN + 1, END), (BEGIN, END - HOUR), (END, END)])
def test_a_scope_is_of_whole_days(begin: Micros, end: Micros) -> None:
    with pytest.raises(ValueError, match="whole days"):
        Scope(from_time=begin, to_time=end)
