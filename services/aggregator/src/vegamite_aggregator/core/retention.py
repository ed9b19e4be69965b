"""How long what is kept is kept, and how far a market's horizon may move now.

Everything is decided in whole UTC days. The horizon of trades goes first, those of candles follow from short to long, none
beyond the one before it: what is folded above the horizon of trades then never meets a candle that has expired.
"""

from collections.abc import Mapping

import msgspec

from vegamite_aggregator.core.horizon import Horizon
from vegamite_common.domain.time import DAY, Micros
from vegamite_common.domain.timeframe import Timeframe

_FOREVER: Micros = 2**62


class Retention(msgspec.Struct, frozen=True):
    """Days that trades, and candles of each timeframe, are kept; 0, or none, for ever. None shorter than the one before."""

    trades: int = 0
    candles: Mapping[Timeframe, int] = {}

    def trades_cutoff(self, now: Micros) -> Micros | None:
        """Return the midnight before which no trade is wanted any more; None where all are."""
        return _midnight(now - self.trades * DAY) if self.trades else None

    def candles_cutoff(self, timeframe: Timeframe, now: Micros) -> Micros | None:
        """Return the midnight before whose candle none of the timeframe is wanted any more; None where all are."""
        days = self.candles.get(timeframe, 0)
        return _midnight(now - days * DAY) if days else None


class Unfinished(msgspec.Struct, frozen=True):
    """What of a market's past is still at work: nothing there expires.

    `gap`: where the first gap begins that was found less than the retention of trades ago, so may still be filled.
    `candles`: by timeframe the first open time of a stored candle that isn't final, or that a job holds.
    """

    gap: Micros = _FOREVER
    candles: Mapping[Timeframe, Micros] = {}


def advance(
    horizon: Horizon, retention: Retention, *, now: Micros, unfinished: Unfinished
) -> Horizon:
    """Return the market's horizon at `now`, the time up to which its log is read; the same one where it stays.

    A day of trades expires once each candle of that day is final. A candle expires once each longer one over it is final.
    """
    trades = horizon.trades
    cutoff = retention.trades_cutoff(now)
    if cutoff is None:
        return horizon
    day_at_work = unfinished.candles.get(Timeframe.D1, _FOREVER)
    trades = max(trades, _midnight(min(cutoff, unfinished.gap, day_at_work)))
    candles = dict(horizon.candles)
    limit = trades
    for timeframe in Timeframe:
        cutoff = retention.candles_cutoff(timeframe, now)
        if cutoff is None:
            break
        limit = _midnight(min(limit, cutoff, _at_work(unfinished, timeframe)))
        moved = timeframe.open_time(limit)
        candles[timeframe] = max(moved, candles.get(timeframe, moved))
    moved_on = Horizon(trades=trades, candles=candles)
    return horizon if moved_on == horizon else moved_on


def _at_work(unfinished: Unfinished, timeframe: Timeframe) -> Micros:
    """Return where the first candle opens, of this timeframe or a longer one, that isn't final or is held."""
    order = list(Timeframe)
    longer = order[order.index(timeframe) :]
    return min((unfinished.candles.get(each, _FOREVER) for each in longer), default=_FOREVER)


def _midnight(instant: Micros) -> Micros:
    return instant - instant % DAY
