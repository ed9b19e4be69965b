"""Trades of an exchange without a stream: its page of latest trades, asked for again and again, and whether pages meet.

Pages meet where one has a trade of the page before it, outside its own oldest unit of time (which may be cut); or where it
has all of them, so that nothing fell off its end. Else trades may lie between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Trade

LONGEST_SECONDS = 5.0
SHORTEST_SECONDS = 1.0


class Polled(msgspec.Struct, frozen=True):
    """What one page brought: the trades not seen before, in total order, and whether nothing can lie between it and the last."""

    trades: tuple[Trade, ...]
    meets: bool


@dataclass
class LatestPages:
    """The pages of one market; `resolution` is that of event times (µs), `wait_seconds` the real time until the next question."""

    resolution: Micros
    wait_seconds: float = LONGEST_SECONDS
    _seen: dict[str, Micros] | None = field(default=None)

    def take(self, trades: Sequence[Trade], *, sent: int) -> Polled:
        """Take the next page, of which the exchange `sent` so many trades; the first one meets whatever came before."""
        seen, page = self._seen, {trade.trade_id: trade.event_time for trade in trades}
        new = tuple(trade for trade in trades if seen is None or trade.trade_id not in seen)
        meets = seen is None or not new or self._meets(seen, page)
        self._pace(new=len(new), sent=sent)
        self._seen = page
        return Polled(new, meets)

    def _meets(self, seen: dict[str, Micros], page: dict[str, Micros]) -> bool:
        if seen and all(trade_id in page for trade_id in seen):
            return True
        oldest = min(page.values())
        begin = oldest - oldest % self.resolution + self.resolution
        return any(
            event_time >= begin and trade_id in seen for trade_id, event_time in page.items()
        )

    def _pace(self, *, new: int, sent: int) -> None:
        """Ask sooner where pages come half new, later where they don't."""
        if sent and new * 2 >= sent:
            self.wait_seconds = max(SHORTEST_SECONDS, self.wait_seconds / 2)
        else:
            self.wait_seconds = min(LONGEST_SECONDS, self.wait_seconds * 1.5)
