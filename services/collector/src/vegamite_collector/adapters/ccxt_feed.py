"""Where ccxt's trades end up: an ordered, bounded queue of events for each symbol, instead of ccxt's ring of the last 1,000.

ccxt hands each parsed trade to `exchange.trades[symbol].append`. `FeedMap` stands in for that dictionary and always gives
a hook, whatever ccxt deletes; the hook notes the trade down and stores nothing. The trades of one frame leave together.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from vegamite_collector.core.normalise import SyntheticIds, normalise
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.ports import Lost, Proved, SourceEvent, Subscribed, TradesArrived
from vegamite_common.messages.trades import MAX_TRADES
from vegamite_common.runtime.clock import Clock

AHEAD_SECONDS = 5.0
"""How far, in real seconds, an event time may be ahead of its received time."""


class Gate:
    """Open while fewer than `limit` trades wait to be taken; a connection reads only while it is open."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = 0
        self._open = asyncio.Event()
        self._open.set()

    def add(self, count: int) -> None:
        """Count trades that were put."""
        self._waiting += count
        if self._waiting >= self._limit:
            self._open.clear()

    def remove(self, count: int) -> None:
        """Count trades that were taken."""
        self._waiting -= count
        if self._waiting <= self._limit // 2:
            self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether there is room."""
        return self._open.is_set()

    async def wait(self) -> None:
        """Return once there is room."""
        await self._open.wait()


class Feed:
    """The events of one symbol's subscription, in the order of its connection."""

    def __init__(self, symbol: str, *, profile: ExchangeProfile, clock: Clock, gate: Gate) -> None:
        self.symbol = symbol
        self.url: str | None = None
        self.subscribed = False
        self.sent_time: int | None = None
        self.frame: list[Mapping[str, Any]] = []
        self._profile = profile
        self._clock = clock
        self._gate = gate
        self._events: deque[SourceEvent] = deque()
        self._ready = asyncio.Event()
        self._error: BaseException | None = None
        self._synthetic_ids = SyntheticIds()

    def put(self, event: SourceEvent) -> None:
        """Append one event."""
        if isinstance(event, TradesArrived):
            self._gate.add(len(event.trades))
            event = self._with_waiting(event)
        self._events.append(event)
        self._ready.set()

    def _with_waiting(self, event: TradesArrived) -> TradesArrived:
        """Join with trades that still wait at the end: so a burst of small frames leaves as few records."""
        last = self._events[-1] if self._events else None
        if not isinstance(last, TradesArrived) or len(last.trades) + len(event.trades) > MAX_TRADES:
            return event
        self._events.pop()
        return TradesArrived(
            event.received_time, last.trades + event.trades, last.quarantined + event.quarantined
        )

    def acknowledge(self, at: int) -> None:
        """Note that the subscription is in force since `at` (clock µs); only the first note counts."""
        if not self.subscribed:
            self.subscribed = True
            self.put(Subscribed(at))

    def end_frame(self) -> None:
        """Pass on what one frame brought for this symbol."""
        raw, self.frame = self.frame, []
        received_time = self._clock.now()
        arrived = normalise(
            raw,
            profile=self._profile,
            received_time=received_time,
            ahead_limit=self._clock.span(AHEAD_SECONDS),
            synthetic_ids=self._synthetic_ids,
        )
        self.acknowledge(received_time)
        self.put(TradesArrived(received_time, arrived.trades, arrived.quarantined))

    def prove(self, sent_time: int) -> None:
        """Note that a ping sent at `sent_time` was answered behind everything put before."""
        if (
            not self.subscribed
            and self._profile.acknowledgement == "ping"
            and self._asked_before(sent_time)
        ):
            # The exchange doesn't say when a subscription begins: a ping sent behind the request was answered; one
            # more settling time is for a front end that answers pings before it has passed the request on.
            now = self._clock.now()
            self.acknowledge(now + self._clock.span(self._profile.settling_seconds))
        if self.subscribed:
            self.put(Proved(sent_time))

    def _asked_before(self, instant: int) -> bool:
        return self.sent_time is not None and self.sent_time <= instant

    def lose(self, cause: str, text: str) -> None:
        """Note that something on the connection couldn't be read."""
        if self.subscribed:
            self.put(Lost(cause, text))

    def fail(self, error: BaseException) -> None:
        """End the feed: what is waiting can still be taken, then `error` is raised."""
        if self._error is None:
            self._error = error
        self._ready.set()

    async def next(self) -> SourceEvent:
        """Return the next event, waiting for it; raise the error that ended the feed once all are taken."""
        while not self._events:
            if self._error is not None:
                raise self._error
            self._ready.clear()
            await self._ready.wait()
        event = self._events.popleft()
        if isinstance(event, TradesArrived):
            self._gate.remove(len(event.trades))
        return event

    def discard(self) -> None:
        """Forget what is waiting, and give its room back."""
        for event in self._events:
            if isinstance(event, TradesArrived):
                self._gate.remove(len(event.trades))
        self._events.clear()


class Feeds:
    """The feeds of one exchange's client, and which of them the frame at hand has touched."""

    def __init__(self, make: Callable[[str], Feed]) -> None:
        self._make = make
        self._feeds: dict[str, Feed] = {}
        self._touched: dict[str, Feed] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    def open(self, symbol: str) -> Feed:
        """Return a new feed of the symbol."""
        feed = self._feeds[symbol] = self._make(symbol)
        return feed

    def close(self, feed: Feed) -> None:
        """Forget the feed."""
        feed.discard()
        if self._feeds.get(feed.symbol) is feed:
            del self._feeds[feed.symbol]

    def get(self, symbol: str) -> Feed | None:
        """Return the feed of the symbol, None where there is none."""
        return self._feeds.get(symbol)

    def of_connection(self, url: str) -> list[Feed]:
        """Return the feeds whose trades come by the connection to `url`."""
        return [feed for feed in self._feeds.values() if feed.url == url]

    def note(self, symbol: str, raw: Mapping[str, Any]) -> None:
        """Take one trade of the frame at hand; one that nobody subscribed to is dropped."""
        feed = self._feeds.get(symbol)
        if feed is not None:
            feed.frame.append(raw)
            self._touched[symbol] = feed

    def end_frame(self) -> None:
        """Pass on what the frame brought."""
        touched, self._touched = self._touched, {}
        for feed in touched.values():
            feed.end_frame()


class FeedMap(dict[str, Any]):
    """Stands in for ccxt's `exchange.trades`: gives a hook for any symbol, and forgets whatever is stored or deleted."""

    def __init__(self, make_hook: Callable[[str], Any]) -> None:
        super().__init__()
        self._make_hook = make_hook
        self._hooks: dict[str, Any] = {}

    def __getitem__(self, symbol: str) -> Any:
        hook = self._hooks.get(symbol)
        if hook is None:
            hook = self._hooks[symbol] = self._make_hook(symbol)
        return hook

    def get(self, symbol: str, default: Any = None) -> Any:  # noqa: ARG002 -- dict's own signature
        """Return the hook of the symbol."""
        return self[symbol]

    def __contains__(self, symbol: object) -> bool:
        return True

    def __setitem__(self, symbol: str, value: Any) -> None:
        """Keep the hook."""

    def __delitem__(self, symbol: str) -> None:
        """Keep the hook."""
