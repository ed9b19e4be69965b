"""The state of one WebSocket connection: who it is, what it subscribes to, what it may ask for.

Rules: without anonymous reading nothing but `auth` is answered before a key is accepted; subscribing twice is
harmless; streams and whole-exchange subscriptions count against one quota; inbound messages draw on a bucket of tokens.
"""

from collections.abc import Iterator, Sequence

import msgspec

from vegamite_api.core.access import Identity
from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.stream import Channel, Event, Stream
from vegamite_common.domain.candle import Candle, StateOrder
from vegamite_common.domain.time import Micros


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may do: streams at a time, messages a second (and at once), bytes a message."""

    subscriptions: int = 1_000
    messages_per_second: float = 20.0
    message_burst: int = 100
    message_bytes: int = 65_536


class Wildcard(msgspec.Struct, frozen=True):
    """All markets of an exchange on one channel, those tracked later too."""

    channel: Channel
    exchange: str
    timeframe: str | None

    def holds(self, stream: Stream) -> bool:
        """Whether the stream is one of them."""
        return (
            stream.channel == self.channel
            and stream.timeframe == self.timeframe
            and stream.market.startswith(self.exchange + ":")
        )


class Subscription:
    """One subscribed stream: from which offset on, and the states that its snapshot already showed.

    `until` is the (epoch, as_of) of the snapshot's database state: once an undroppable message shows a later one, all
    that the snapshot held has passed in the log, and the shown states are forgotten.
    """

    __slots__ = ("_chained", "_held", "_until", "from_offset", "stream")

    def __init__(self, stream: Stream, *, from_offset: int) -> None:
        self.stream = stream
        self.from_offset = from_offset
        self._held: dict[Micros, StateOrder] = {}
        self._until = (0, 0)
        self._chained = False

    def hold(self, candles: Sequence[Candle], *, epoch: int, next_offset: int) -> None:
        """Remember the states that a snapshot shows, so that older ones in the log are dropped."""
        self._held = {candle.open_time: candle.state_order for candle in candles}
        self._until = (epoch, next_offset)

    def admit(self, event: Event) -> Event | None:
        """Return what of a live message this subscriber has not seen, None where that is nothing.

        Once a message with a `prev_seq` was passed on, later ones are passed on even when emptied: their chain holds.
        """
        if event.seq.offset < self.from_offset:
            return None
        if not self._held:
            return event
        admitted = event.newer_than(self._held)
        if event.droppable:
            return admitted
        if admitted is None:
            return event.with_candles([]) if self._chained else None
        self._chained = True
        if any((candle.epoch, candle.as_of) >= self._until for candle in admitted.candles):
            self._held = {}
        return admitted


class Session:
    """The subscriptions and the identity of a connection; `identity` None means: not allowed to read yet."""

    def __init__(self, *, limits: Limits, identity: Identity | None) -> None:
        self.limits = limits
        self.identity = identity
        self._streams: dict[Stream, Subscription] = {}
        self._wildcards: set[Wildcard] = set()
        self._excluded: set[Stream] = set()
        self._tokens = float(limits.message_burst)
        self._refilled: float | None = None

    def allow_message(self, now: float) -> bool:
        """Whether one more inbound message is within the rate; `now` in seconds, monotonic."""
        passed = 0.0 if self._refilled is None else max(0.0, now - self._refilled)
        self._refilled = now
        limit = float(self.limits.message_burst)
        self._tokens = min(limit, self._tokens + passed * self.limits.messages_per_second)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def require_identity(self) -> Identity:
        """Return who this is; raise `RefusedError` where nobody may read yet."""
        if self.identity is None:
            raise RefusedError(
                "auth_required",
                "an API key is needed",
                parameter="method",
                allowed='{"method": "auth", "params": {"key": …}} first',
            )
        return self.identity

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The subscribed streams, in the order of their subscription."""
        return tuple(self._streams)

    @property
    def wildcards(self) -> tuple[Wildcard, ...]:
        """The whole-exchange subscriptions, sorted."""
        return tuple(
            sorted(self._wildcards, key=lambda w: (w.channel, w.exchange, w.timeframe or ""))
        )

    def get(self, stream: Stream) -> Subscription | None:
        """Return the subscription to a stream, where there is one."""
        return self._streams.get(stream)

    def check_quota(self, streams: Sequence[Stream]) -> None:
        """Raise `RefusedError` where these streams, with those there are, would be too many."""
        total = len(self._streams.keys() | set(streams)) + len(self._wildcards)
        if total > self.limits.subscriptions:
            raise RefusedError(
                "subscription_limit",
                f"{total} streams would be subscribed on this connection",
                parameter="params.markets",
                allowed=f"at most {self.limits.subscriptions} streams a connection",
            )

    def add(self, subscription: Subscription) -> None:
        """Subscribe; replaces a subscription to the same stream."""
        self._streams[subscription.stream] = subscription
        self._excluded.discard(subscription.stream)

    def add_wildcard(self, wildcard: Wildcard) -> None:
        """Subscribe to all markets of an exchange that appear from now on."""
        self._wildcards.add(wildcard)
        self._excluded = {stream for stream in self._excluded if not wildcard.holds(stream)}

    def adopts(self, stream: Stream) -> bool:
        """Whether a stream not subscribed so far belongs to a whole-exchange subscription, within the quota."""
        return (
            stream not in self._streams
            and stream not in self._excluded
            and len(self._streams) + len(self._wildcards) < self.limits.subscriptions
            and any(wildcard.holds(stream) for wildcard in self._wildcards)
        )

    def remove(self, stream: Stream) -> bool:
        """Unsubscribe; False where the stream was not subscribed. A whole-exchange subscription leaves it out then."""
        if any(wildcard.holds(stream) for wildcard in self._wildcards):
            self._excluded.add(stream)
        return self._streams.pop(stream, None) is not None

    def remove_wildcard(self, wildcard: Wildcard) -> Iterator[Stream]:
        """Unsubscribe from an exchange on one channel: all its streams, which are yielded."""
        self._wildcards.discard(wildcard)
        self._excluded = {stream for stream in self._excluded if not wildcard.holds(stream)}
        for stream in [stream for stream in self._streams if wildcard.holds(stream)]:
            del self._streams[stream]
            yield stream
