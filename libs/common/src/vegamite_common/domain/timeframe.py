"""The lengths of candles and where each one starts."""

from datetime import timedelta
from enum import StrEnum

from vegamite_common.domain.time import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Micros,
    from_datetime,
    to_datetime,
)

_MONDAY = 4 * DAY  # 1970-01-05 was a Monday


class Timeframe(StrEnum):
    """A candle's length, by Binance's names; case matters (`1m` is a minute, `1M` a month).

    Up to `3d` a candle starts at a multiple of its length since the epoch, `1w` on Monday 00:00 UTC, `1M` on the first.
    """

    S1 = "1s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    D3 = "3d"
    W1 = "1w"
    MO1 = "1M"

    @property
    def length(self) -> Micros | None:
        """Length in microseconds; None for `1M`, whose months differ."""
        return LENGTHS.get(self)

    @property
    def source(self) -> "Timeframe | None":
        """The shorter timeframe that this one is rolled up from; None for `1s`."""
        return SOURCES[self]

    def open_time(self, instant: Micros) -> Micros:
        """Return the open time of the candle that holds `instant`."""
        length = LENGTHS.get(self)
        if length is None:
            month = to_datetime(instant).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            return from_datetime(month)
        if self is Timeframe.W1:
            return instant - (instant - _MONDAY) % length
        return instant - instant % length

    def close_time(self, open_time: Micros) -> Micros:
        """Return the exclusive end of the candle that opens at `open_time`."""
        length = LENGTHS.get(self)
        if length is None:
            next_month = to_datetime(open_time) + timedelta(days=31)
            return from_datetime(next_month.replace(day=1))
        return open_time + length


LENGTHS: dict[Timeframe, Micros] = {
    Timeframe.S1: SECOND,
    Timeframe.M1: MINUTE,
    Timeframe.M3: 3 * MINUTE,
    Timeframe.M5: 5 * MINUTE,
    Timeframe.M15: 15 * MINUTE,
    Timeframe.M30: 30 * MINUTE,
    Timeframe.H1: HOUR,
    Timeframe.H2: 2 * HOUR,
    Timeframe.H4: 4 * HOUR,
    Timeframe.H6: 6 * HOUR,
    Timeframe.H8: 8 * HOUR,
    Timeframe.H12: 12 * HOUR,
    Timeframe.D1: DAY,
    Timeframe.D3: 3 * DAY,
    Timeframe.W1: 7 * DAY,
}
"""Microseconds of every timeframe of fixed length."""

SOURCES: dict[Timeframe, Timeframe | None] = {
    Timeframe.S1: None,
    Timeframe.M1: Timeframe.S1,
    Timeframe.M3: Timeframe.M1,
    Timeframe.M5: Timeframe.M1,
    Timeframe.M15: Timeframe.M5,
    Timeframe.M30: Timeframe.M15,
    Timeframe.H1: Timeframe.M30,
    Timeframe.H2: Timeframe.H1,
    Timeframe.H4: Timeframe.H2,
    Timeframe.H6: Timeframe.H2,
    Timeframe.H8: Timeframe.H4,
    Timeframe.H12: Timeframe.H6,
    Timeframe.D1: Timeframe.H12,
    Timeframe.D3: Timeframe.D1,
    Timeframe.W1: Timeframe.D1,
    Timeframe.MO1: Timeframe.D1,
}
"""Which shorter timeframe each one is merged from; every source divides its target without a rest."""
