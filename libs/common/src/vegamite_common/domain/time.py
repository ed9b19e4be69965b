"""Instants as whole microseconds since the Unix epoch, UTC, and their other spellings."""

import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Micros: TypeAlias = int
"""An instant (or a length of time) in whole microseconds; instants count from 1970-01-01 00:00 UTC."""

SECOND: Micros = 1_000_000
MINUTE: Micros = 60 * SECOND
HOUR: Micros = 60 * MINUTE
DAY: Micros = 24 * HOUR

EARLIEST: Micros = 1_230_768_000 * SECOND
"""2009-01-01 00:00 UTC: no trade can be older."""

LATEST: Micros = 253_402_300_800 * SECOND
"""10000-01-01 00:00 UTC, exclusive: the end of what RFC 3339 can write."""

LATEST_EVENT: Micros = LATEST - 365 * DAY
"""9999-01-01 00:00 UTC, exclusive: candles of every length that hold an earlier trade end before `LATEST`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?([Zz]|[+-]\d{2}:\d{2})?)?",
    re.ASCII,
)
_MILLIS = re.compile(r"-?\d{1,16}", re.ASCII)


def to_datetime(micros: Micros) -> datetime:
    """Return the aware UTC `datetime` of an instant in microseconds."""
    return _EPOCH + timedelta(microseconds=micros)


def from_datetime(instant: datetime) -> Micros:
    """Return the microseconds of an aware `datetime`; raise `ValueError` for a naive one."""
    if instant.tzinfo is None:
        raise ValueError("a datetime without a time zone names no instant")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def parse_time(text: str) -> Micros:
    """Return the microseconds of an RFC 3339 date or time (UTC where no offset is given) or of milliseconds since the epoch.

    Raise `ValueError`, with a sentence that says what is allowed, for anything else.
    """
    micros = int(text) * 1000 if _MILLIS.fullmatch(text) else _parse_rfc3339(text)
    if not 0 <= micros < LATEST:
        raise ValueError(f"time out of range: {text[:40]!r}; allowed: 1970-01-01 up to 9999-12-31")
    return micros


def _parse_rfc3339(text: str) -> Micros:
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(
            f"not a time: {text[:40]!r}; allowed: RFC 3339 as in 2026-01-31T12:00:00Z, or milliseconds since the epoch"
        )
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        whole = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            tzinfo=UTC,
        )
    except ValueError as error:
        raise ValueError(f"not a time: {text[:40]!r}; {error}") from None
    micros = from_datetime(whole) + int((fraction or "0").ljust(6, "0")[:6])
    if offset and offset not in "Zz":
        sign = -1 if offset[0] == "-" else 1
        shift_hours, shift_minutes = int(offset[1:3]), int(offset[4:6])
        if shift_hours > 23 or shift_minutes > 59:
            raise ValueError(f"not a time: {text[:40]!r}; offsets go up to 23:59")
        micros -= sign * (shift_hours * HOUR + shift_minutes * MINUTE)
    return micros


def format_time(micros: Micros) -> str:
    """Return the RFC 3339 UTC text of an instant, as in `2026-01-31T12:00:00Z`, with a fraction only where there is one."""
    whole, fraction = divmod(micros, SECOND)
    text = to_datetime(whole * SECOND).isoformat()[:19]
    if fraction:
        digits = f"{fraction:06d}"
        text += "." + (digits[:3] if digits.endswith("000") else digits)
    return text + "Z"
