"""How a gap is fetched again, page by page, and what each page proves.

`RepairPlan` is a state machine without I/O: `next_request` says what to ask, `take` is given the answer and returns what
may be published: trades with the claim that they prove, or that a part can't be had. Its rules:

- `since` is floored to the time resolution; the next page by time asks for the last unit again, since a page may end
  inside it. Pages that bring no progress in time are merged with the next, which is asked by id, or a larger one.
- A claim never reaches beyond the start of its fetch less the settling time, nor into the page's last unit of time while
  there may be more of it.
- A full page of the last N trades says nothing of its oldest unit of time: the claim begins one resolution later, and what
  lies before can't be had.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from vegamite_collector.core.profile import ExchangeProfile
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.time import HOUR, Micros
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import Unfillable


class PageRequest(msgspec.Struct, frozen=True):
    """One REST question: trades from `from_id` on; else in [since, until); else, with neither, the last `limit`.

    Without a `limit` the exchange's own holds.
    """

    limit: int | None = None
    since: Micros | None = None
    until: Micros | None = None
    from_id: int | None = None


class Page(msgspec.Struct, frozen=True):
    """One REST answer: its trades in total order, how many the exchange sent, and our clock before the question was sent."""

    trades: tuple[Trade, ...]
    sent: int
    asked_time: Micros
    quarantined: int = 0


class Proven(msgspec.Struct, frozen=True):
    """What one page (or several merged) lets us publish."""

    trades: tuple[Trade, ...]
    covered: tuple[Micros, Micros] | None = None


@dataclass
class RepairPlan:
    """The repair of one gap by one exchange's REST; `settling` in µs."""

    gap: Span
    profile: ExchangeProfile
    settling: Micros
    done: bool = False
    unfillable: Unfillable | None = None
    _low: Micros = 0
    _since: Micros = 0
    _until: Micros | None = None
    _from_id: int | None = None
    _limit: int = 0
    _pending: list[Trade] = field(default_factory=list)
    _tainted: bool = False

    def __post_init__(self) -> None:
        self._low = self.gap.from_time
        self._since = self._floor(self.gap.from_time)
        self._limit = self.profile.page_limit
        if self.profile.backfill == "none":
            self._give_up("no_history")

    def _floor(self, instant: Micros) -> Micros:
        return instant - instant % self.profile.time_resolution

    def _give_up(self, reason: str) -> None:
        self.unfillable = Unfillable(self._low, self.gap.to_time, reason)
        self.done = True

    def next_request(self) -> PageRequest:
        """Return what to ask next; only while not `done`."""
        if self.profile.backfill == "recent_n":
            return PageRequest(limit=self._limit)
        if self._from_id is not None:
            return PageRequest(limit=self._limit, from_id=self._from_id)
        self._until = None
        if self.profile.page_window is not None:
            self._until = self._since + self.profile.page_window
        return PageRequest(limit=self._limit, since=self._since, until=self._until)

    def take(self, page: Page) -> Proven | None:
        """Take the answer to the last request; returns what to publish now, None where this page alone proves nothing."""
        self._tainted = self._tainted or page.quarantined > 0
        if self.profile.backfill == "recent_n":
            return self._take_recent(page)
        begin = self._floor(self.gap.from_time)
        inside = [trade for trade in page.trades if begin <= trade.event_time < self.gap.to_time]
        self._pending += inside
        full = page.sent >= self._limit
        if full and not any(trade.event_time >= self.gap.to_time for trade in page.trades):
            return self._take_full(page)
        end = self.gap.to_time
        if (
            not full
            and self._from_id is None
            and self._until is not None
            and self._until < self.gap.to_time
        ):
            # An empty rest of a window says nothing of the next window.
            end = self._until
            self._since = self._until
        else:
            self.done = True
        return self._publish(page, end)

    def _take_full(self, page: Page) -> Proven | None:
        """A full page, all inside the gap: everything before its last unit of time is there."""
        if not page.trades:
            # Nothing of it could be read: there is no place to go on from.
            self._give_up("quarantined")
            return None
        last = page.trades[-1]
        edge = self._floor(last.event_time)
        if self.profile.backfill == "by_id":
            self._from_id = max(trade.sequence for trade in page.trades) + 1
        elif edge > self._since:
            self._since = edge
        else:
            # A page full of one instant, asked by time: what is left of that instant can't be asked for.
            self._low = max(self._low, edge)
            proven = Proven(tuple(self._pending))
            self._pending = []
            self._skip_instant(edge)
            return proven
        return self._publish(page, edge) if edge > self._low else None

    def _skip_instant(self, edge: Micros) -> None:
        behind = min(edge + self.profile.time_resolution, self.gap.to_time)
        self.unfillable = Unfillable(self._low, behind, "page_limit")
        self.done = True

    def _take_recent(self, page: Page) -> Proven | None:
        self.done = True
        inside = tuple(
            trade
            for trade in page.trades
            if self.gap.from_time <= trade.event_time < self.gap.to_time
        )
        self._pending += inside
        if page.sent >= self._limit:
            if not page.trades:
                self._give_up("quarantined")
                return None
            begin = self._floor(page.trades[0].event_time) + self.profile.time_resolution
            if begin > self._low:
                behind = min(begin, self.gap.to_time)
                self.unfillable = Unfillable(self._low, behind, "last_trades_only")
                self._low = behind
        return self._publish(page, self.gap.to_time)

    def _publish(self, page: Page, end: Micros) -> Proven | None:
        trades, self._pending = tuple(self._pending), []
        end = min(end, self.gap.to_time, page.asked_time - self.settling)
        if self._tainted:
            # A trade was refused: what it stood for is unknown, here and for as long as this page reached.
            if self.done or end > self._low:
                self.unfillable = Unfillable(
                    self.unfillable.from_time if self.unfillable else self._low,
                    max(end, self._low + 1),
                    "quarantined",
                )
                self.done = True
            return Proven(trades) if trades else None
        covered = (self._low, end) if end > self._low else None
        if covered is not None:
            self._low = end
        return Proven(trades, covered) if trades or covered else None


MAX_PLAIN_TRADES = 1_000


def newest_first(gap: Span, *, now: Micros, recent: Micros) -> Span:
    """Return the part of a gap to fetch first: its last hour where it ended within `recent` µs and is long, else all.

    Whoever looks at a market that was just tracked looks at its newest hour; what is left of the gap follows as one.
    """
    if gap.to_time < now - recent or gap.to_time - gap.from_time < 2 * HOUR:
        return gap
    return Span(gap.to_time - HOUR, gap.to_time)


def split_records(trades: Sequence[Trade], size: int = MAX_PLAIN_TRADES) -> list[tuple[Trade, ...]]:
    """Return the trades as runs of at most `size`; one empty run for none."""
    return [tuple(trades[at : at + size]) for at in range(0, len(trades), size)] or [()]
