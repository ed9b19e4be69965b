"""The candles of one market that are in memory: copies of stored rows, with what each of them waits for."""

from collections.abc import Iterable

from vegamite_aggregator.core.rows import CandleKey, StoredCandle
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

NEVER: Micros = -(2**62)
"""Before every instant."""

FOREVER: Micros = 2**62
"""After every instant."""

KEPT_SECONDS = 64
"""How many `1s` candles of a market stay in memory; a minute's, so that late trades mostly find theirs."""

KEPT_OTHERS = 4
"""How many candles of each longer timeframe of a market stay in memory."""

_TRIM_ABOVE = 2 * (KEPT_SECONDS + 15 * KEPT_OTHERS)


class CandleCache:
    """Stored candles of one market by key.

    `unsettled` are the keys, with close times, of those neither final nor held by a job; `incomplete` the keys of those
    that are final and held by no job, but not complete. Every stored candle of a timeframe whose open time is at or after
    `resident_from[timeframe]` is here.
    """

    __slots__ = ("_next_close", "candles", "incomplete", "resident_from", "unsettled")

    def __init__(self, resident_from: dict[Timeframe, Micros]) -> None:
        self.candles: dict[CandleKey, StoredCandle] = {}
        self.unsettled: dict[CandleKey, Micros] = {}
        self.incomplete: set[CandleKey] = set()
        self.resident_from = resident_from
        self._next_close: Micros | None = FOREVER

    def keep(self, stored: StoredCandle) -> None:
        """Put in a row, in place of what was there of it."""
        key = stored.key
        candle = stored.candle
        self.candles[key] = stored
        if stored.held_by or candle.final:
            self._settled(key)
            if not stored.held_by and not candle.complete:
                self.incomplete.add(key)
                return
        elif key not in self.unsettled:
            close_time = self.unsettled[key] = candle.close_time
            if self._next_close is not None and close_time < self._next_close:
                self._next_close = close_time
        self.incomplete.discard(key)

    def drop(self, key: CandleKey) -> None:
        """Take out a row, if it is here."""
        self.candles.pop(key, None)
        self._settled(key)
        self.incomplete.discard(key)

    def _settled(self, key: CandleKey) -> None:
        close_time = self.unsettled.pop(key, None)
        if close_time is not None and close_time == self._next_close:
            self._next_close = None

    def next_close(self) -> Micros:
        """Return the earliest end of a candle here that is neither final nor held; `FOREVER` where there is none."""
        if self._next_close is None:
            self._next_close = min(self.unsettled.values(), default=FOREVER)
        return self._next_close

    def trim(self) -> Iterable[CandleKey]:
        """Drop all but the newest candles of each timeframe once they are many; return the keys dropped that were incomplete.

        Never one that is neither final nor held.
        """
        if len(self.candles) - len(self.unsettled) <= _TRIM_ABOVE:
            return ()
        open_times: dict[Timeframe, list[Micros]] = {}
        for timeframe, open_time in self.candles:
            open_times.setdefault(timeframe, []).append(open_time)
        incomplete: list[CandleKey] = []
        for timeframe, times in open_times.items():
            kept = KEPT_SECONDS if timeframe is Timeframe.S1 else KEPT_OTHERS
            for open_time in sorted(times)[:-kept]:
                key = (timeframe, open_time)
                if key not in self.unsettled:
                    if key in self.incomplete:
                        incomplete.append(key)
                    self.drop(key)
                    self.resident_from[timeframe] = max(
                        self.resident_from[timeframe], open_time + 1
                    )
        return incomplete


NOTHING = CandleCache(dict.fromkeys(Timeframe, FOREVER))
"""What every market that has no candle in memory has of them; nothing is ever put in here."""
