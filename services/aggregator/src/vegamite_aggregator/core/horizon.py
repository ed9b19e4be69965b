"""What has expired: older than a market's horizon, which maintenance moves forward and nobody moves back.

The horizon of trades is the latest of all: no candle expires before its trades have. So whatever is folded above it meets
stored candles only. It is the beginning of a UTC day; those of candles are the beginnings of candles.
"""

from collections.abc import Mapping

import msgspec

from vegamite_common.domain.time import DAY, Micros
from vegamite_common.domain.timeframe import Timeframe

_NEVER: Micros = -(2**62)

EXPIRED = "expired"
"""Why a gap below the horizon can't be filled any more."""


class Horizon(msgspec.Struct, frozen=True):
    """One market's: trades before `trades` have expired, and candles that open before `candles[timeframe]`."""

    trades: Micros = _NEVER
    candles: Mapping[Timeframe, Micros] = {}

    @property
    def whole_day(self) -> Micros:
        """The first midnight from which on no trade has expired."""
        return self.trades + -self.trades % DAY

    def expired_days(self, from_time: Micros, to_time: Micros) -> tuple[Micros, Micros]:
        """Return [from, to) of the whole days of that time whose trades have expired; `to` isn't after `from` if there is none."""
        return from_time + -from_time % DAY, min(
            to_time - to_time % DAY, self.trades - self.trades % DAY
        )

    def of_candles(self, timeframe: Timeframe) -> Micros:
        """Return before which open time candles of the timeframe have expired."""
        return self.candles.get(timeframe, _NEVER)


NOTHING_EXPIRED = Horizon()
"""The horizon of a market that has none."""
