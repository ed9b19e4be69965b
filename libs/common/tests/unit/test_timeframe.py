import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vegamite_common.domain.time import (
    DAY,
    EARLIEST,
    LATEST_EVENT,
    SECOND,
    from_datetime,
    to_datetime,
)
from vegamite_common.domain.timeframe import LENGTHS, SOURCES, Timeframe

instants = st.integers(EARLIEST, LATEST_EVENT - 1)
timeframes = st.sampled_from(Timeframe)


def at(text: str) -> int:
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def test_the_names_are_binances() -> None:
    names = "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M"
    assert " ".join(Timeframe) == names


@pytest.mark.parametrize("name", ["1S", "1H", "1D", "60s", "1mo", "", "2m"])
def test_case_matters_and_other_lengths_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="not a valid Timeframe"):
        Timeframe(name)


def test_a_minute_is_no_month() -> None:
    assert Timeframe("1m").length == 60 * SECOND
    assert Timeframe("1M").length is None


@pytest.mark.parametrize(
    ("timeframe", "instant", "open_time", "close_time"),
    [
        ("1s", "2024-02-29T12:34:56.789", "2024-02-29T12:34:56", "2024-02-29T12:34:57"),
        ("3m", "2024-02-29T12:34:56", "2024-02-29T12:33:00", "2024-02-29T12:36:00"),
        ("4h", "2024-02-29T23:59:59", "2024-02-29T20:00:00", "2024-03-01T00:00:00"),
        ("1d", "2024-02-29T23:59:59", "2024-02-29T00:00:00", "2024-03-01T00:00:00"),
        ("3d", "2019-10-11T05:00:00", "2019-10-11T00:00:00", "2019-10-14T00:00:00"),
        ("1w", "2024-02-29T12:00:00", "2024-02-26T00:00:00", "2024-03-04T00:00:00"),
        ("1w", "2024-02-26T00:00:00", "2024-02-26T00:00:00", "2024-03-04T00:00:00"),
        ("1w", "2024-02-25T23:59:59", "2024-02-19T00:00:00", "2024-02-26T00:00:00"),
        ("1w", "2025-01-01T00:00:00", "2024-12-30T00:00:00", "2025-01-06T00:00:00"),
        ("1M", "2024-02-29T12:00:00", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("1M", "2023-02-28T23:59:59", "2023-02-01T00:00:00", "2023-03-01T00:00:00"),
        ("1M", "2100-02-28T12:00:00", "2100-02-01T00:00:00", "2100-03-01T00:00:00"),
        ("1M", "2024-12-31T23:59:59", "2024-12-01T00:00:00", "2025-01-01T00:00:00"),
        ("1M", "2024-01-31T00:00:00", "2024-01-01T00:00:00", "2024-02-01T00:00:00"),
    ],
)
def test_where_candles_begin_and_end(
    timeframe: str, instant: str, open_time: str, close_time: str
) -> None:
    frame = Timeframe(timeframe)
    opened = frame.open_time(at(instant))
    assert to_datetime(opened) == to_datetime(at(open_time))
    assert to_datetime(frame.close_time(opened)) == to_datetime(at(close_time))


@given(timeframes, instants)
@example(Timeframe.MO1, LATEST_EVENT - 1)
@example(Timeframe.W1, LATEST_EVENT - 1)
def test_every_instant_lies_in_exactly_one_candle(timeframe: Timeframe, instant: int) -> None:
    opened = timeframe.open_time(instant)
    closed = timeframe.close_time(opened)
    assert opened <= instant < closed
    assert timeframe.open_time(opened) == opened
    assert timeframe.open_time(closed - 1) == opened
    assert timeframe.open_time(closed) == closed


@given(timeframes.filter(lambda t: t.source is not None), instants)
def test_a_candle_is_filled_by_whole_candles_of_its_source(
    timeframe: Timeframe, instant: int
) -> None:
    source = timeframe.source
    assert source is not None
    opened = timeframe.open_time(instant)
    closed = timeframe.close_time(opened)
    assert source.open_time(opened) == opened
    assert source.open_time(closed) == closed
    assert (
        opened <= source.open_time(instant) < source.close_time(source.open_time(instant)) <= closed
    )


def test_every_timeframe_but_the_first_comes_from_a_shorter_one() -> None:
    assert set(SOURCES) == set(Timeframe)
    order = list(Timeframe)
    for target, source in SOURCES.items():
        assert (source is None) == (target is Timeframe.S1)
        assert source is None or order.index(source) < order.index(target)
    assert all(SOURCES[t] is Timeframe.D1 for t in (Timeframe.D3, Timeframe.W1, Timeframe.MO1))


@given(instants)
def test_weeks_begin_on_monday_and_months_on_the_first(instant: int) -> None:
    assert to_datetime(Timeframe.W1.open_time(instant)).weekday() == calendar.MONDAY
    month = to_datetime(Timeframe.MO1.open_time(instant))
    assert (month.day, month.hour, month.minute, month.second, month.microsecond) == (1, 0, 0, 0, 0)


@given(instants, st.sampled_from([t for t in Timeframe if t in LENGTHS and t is not Timeframe.W1]))
def test_all_others_begin_at_multiples_of_their_length_since_the_epoch(
    instant: int, timeframe: Timeframe
) -> None:
    assert timeframe.open_time(instant) % LENGTHS[timeframe] == 0


@given(st.integers(2009, 9998), st.integers(1, 12))
def test_a_month_is_as_long_as_the_calendar_says(year: int, month: int) -> None:
    opened = from_datetime(datetime(year, month, 1, tzinfo=UTC))
    days = calendar.monthrange(year, month)[1]
    assert Timeframe.MO1.close_time(opened) == opened + days * DAY
    assert to_datetime(opened) + timedelta(days=days) == to_datetime(
        Timeframe.MO1.close_time(opened)
    )
