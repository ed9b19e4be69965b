"""Plays one market's trades as the clock passes their times."""

import random
import time
from collections import Counter
from collections.abc import Callable

from vegamite_common.runtime.clock import Clock
from vegamite_common.testing.fake_exchange.faults import Faults
from vegamite_common.testing.fake_exchange.feed import FOREVER_MS, AggregateTrade, Feed

_LONGEST_WAIT_SECONDS = 0.02
_LONGEST_GATHERING_SECONDS = 0.5
_BATCH = 1000


class Playback:
    """Hands each trade that happens from now on to `publish`, once, in order unless a fault says otherwise."""

    def __init__(
        self,
        feed: Feed,
        *,
        clock: Clock,
        faults: Faults,
        counters: Counter[str],
        publish: Callable[[Feed, AggregateTrade], None],
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._faults = faults
        self._counters = counters
        self._publish = publish
        self._rng = random.Random(feed.listing.market_id)
        self._gathered: list[AggregateTrade] = []
        self._gathered_since = 0.0
        past = feed.latest(until=self.played_ms(), limit=1)
        self._next_id = past[0].trade_id + 1 if past else 0

    def played_ms(self) -> int:
        """Return the time in milliseconds up to which trades have been due for streaming."""
        return (self._clock.now() - self._clock.span(self._faults.stream_lag)) // 1000

    async def run(self) -> None:
        """Play until cancelled."""
        while True:
            due = self._feed.from_id(self._next_id, until=self.played_ms(), limit=_BATCH)
            if due:
                self._next_id = due[-1].trade_id + 1
            self._play(due)
            await self._clock.sleep(0 if len(due) == _BATCH else self._wait())

    def _play(self, due: list[AggregateTrade]) -> None:
        kept = [trade for trade in due if not self._faults.take_loss()]
        self._counters["trades_lost"] += len(due) - len(kept)
        if self._faults.reorder or self._gathered:
            kept = self._reordered(kept)
        for trade in kept:
            self._publish(self._feed, trade)

    def _reordered(self, trades: list[AggregateTrade]) -> list[AggregateTrade]:
        """Return the shuffled trades of a full or old enough group, keeping younger ones back."""
        now = time.monotonic()
        if not self._gathered:
            self._gathered_since = now
        self._gathered += trades
        full = len(self._gathered) >= self._faults.reorder
        if not full and now - self._gathered_since < _LONGEST_GATHERING_SECONDS:
            return []
        group, self._gathered = self._gathered, []
        self._rng.shuffle(group)
        return group

    def _wait(self) -> float:
        """Return the real seconds until the next trade is due, short enough for a switch to take effect."""
        following = self._feed.from_id(self._next_id, until=FOREVER_MS, limit=1)
        if not following:
            return _LONGEST_WAIT_SECONDS
        ahead = following[0].time_ms - self.played_ms()
        return min(_LONGEST_WAIT_SECONDS, max(0.001, ahead / 1000 / self._clock.speed))
