from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vegamite_common.domain.time import (
    DAY,
    EARLIEST,
    HOUR,
    LATEST,
    LATEST_EVENT,
    MINUTE,
    SECOND,
    format_time,
    from_datetime,
    parse_time,
    to_datetime,
)

instants = st.integers(0, LATEST - 1)


def micros(*parts: int) -> int:
    return from_datetime(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type,misc] # year, month, day and on


def test_the_named_instants_are_what_their_names_say() -> None:
    assert to_datetime(EARLIEST) == datetime(2009, 1, 1, tzinfo=UTC)
    assert to_datetime(LATEST - 1) == datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert to_datetime(LATEST_EVENT) == datetime(9999, 1, 1, tzinfo=UTC)
    assert (MINUTE, HOUR, DAY) == (60 * SECOND, 3600 * SECOND, 86400 * SECOND)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("2019-10-11T00:00:00Z", 1_570_752_000_000_000),
        ("1570752000000", 1_570_752_000_000_000),
        ("2019-10-11t00:00:00z", 1_570_752_000_000_000),
        ("2019-10-11 00:00", 1_570_752_000_000_000),
        ("2019-10-11T02:00:00+02:00", 1_570_752_000_000_000),
        ("2019-10-10T20:30:00-03:30", 1_570_752_000_000_000),
        ("2024-02-29T12:00:00.5Z", 1_709_208_000_500_000),
        ("2024-02-29T12:00:00.123456789Z", 1_709_208_000_123_456),
        ("9999-12-31T23:59:59.999999Z", LATEST - 1),
        ("0", 0),
    ],
)
def test_a_time_is_read_to_the_microsecond(text: str, expected: int) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2019-13-01",
        "2023-02-29",
        "2019-10-11T24:00:00Z",
        "2019-10-11T00:60:00Z",
        "2016-12-31T23:59:60Z",
        "2019-10-11T00:00:00.Z",
        "2019-10-11T00:00:00.1234567890Z",
        "2019-10-11T00:00:00+24:00",
        "2019-10-11T00:00:00+01:60",
        "2019-10-11T00:00:00+0100",
        "2019-10-11T",
        "2019-10-11Z",
        "2019-1-1",
        " 2019-10-11",
        "2019-10-11\n",
        "٢٠١٩-١٠-١١",
        "1570752000.5",
        "-1",
        "1969-12-31T23:59:59Z",
        "0000-01-01",
        "9999-12-31T23:59:59-01:00",
        "99999999999999999999",
        "9999999999999999",
    ],
)
def test_what_names_no_time_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|allowed"):
        parse_time(text)


@given(instants)
@example(0)
@example(LATEST - 1)
def test_writing_and_reading_give_the_instant_back(instant: int) -> None:
    assert parse_time(format_time(instant)) == instant
    assert from_datetime(to_datetime(instant)) == instant
    assert datetime.fromisoformat(format_time(instant)) == to_datetime(instant)


@given(st.integers(0, LATEST // 1000 - 1))
def test_milliseconds_are_read_as_they_are(milliseconds: int) -> None:
    assert parse_time(str(milliseconds)) == milliseconds * 1000


@given(
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 12, 31)),  # noqa: DTZ001 - hypothesis wants them naive
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_an_offset_is_taken_off(wall: datetime, minutes: int) -> None:
    aware = wall.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_time(aware.isoformat()) == from_datetime(aware)


@given(instants, instants)
def test_texts_of_whole_seconds_sort_as_their_instants(one: int, other: int) -> None:
    one, other = one - one % SECOND, other - other % SECOND
    assert (format_time(one) < format_time(other)) == (one < other)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (micros(2026, 1, 31, 12), "2026-01-31T12:00:00Z"),
        (micros(2026, 1, 31, 12) + 1000, "2026-01-31T12:00:00.001Z"),
        (micros(2026, 1, 31, 12) + 1, "2026-01-31T12:00:00.000001Z"),
        (0, "1970-01-01T00:00:00Z"),
    ],
)
def test_a_fraction_is_written_only_where_there_is_one(instant: int, text: str) -> None:
    assert format_time(instant) == text


def test_a_naive_datetime_names_no_instant() -> None:
    with pytest.raises(ValueError, match="time zone"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    instant = refusal = None
    try:
        instant = parse_time(text)
    except ValueError as error:
        refusal = str(error)
    assert (instant is not None and 0 <= instant < LATEST) or (refusal and len(refusal) < 300)
