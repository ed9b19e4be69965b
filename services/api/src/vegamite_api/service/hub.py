"""Hands each log record to the connections that subscribed to its streams; a message is written once for all of them."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from vegamite_api import metrics
from vegamite_api.core.access import Identity
from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.session import Wildcard
from vegamite_api.core.stream import Event, Stream
from vegamite_api.core.tail import Entry, Topic, events_of, revised_stream
from vegamite_common.messages.codec import MessageError

log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """A connection, as the hub sees it; no method waits."""

    def offer(self, event: Event) -> None:
        """Take a live message of a subscribed stream."""
        ...

    def adopt(self, stream: Stream) -> bool:
        """Take a stream that a whole-exchange subscription holds; False where it is not wanted."""
        ...

    def finish(self, code: int, reason: str, message: dict[str, object] | None = None) -> None:
        """End the connection with a close code, after a last message."""
        ...

    def announce(self, message: dict[str, object]) -> None:
        """Send a message that belongs to no stream."""
        ...


class Hub:
    """Who receives what, and how many connections there are."""

    def __init__(self, *, max_connections: int, max_connections_per_client: int) -> None:
        self._max_connections = max_connections
        self._max_per_client = max_connections_per_client
        self._clients: dict[Receiver, str] = {}
        self._counts: dict[str, int] = {}
        self._receivers: dict[Stream, dict[Receiver, None]] = {}
        self._wildcards: dict[Wildcard, dict[Receiver, None]] = {}
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def wait_empty(self) -> None:
        """Return once no connection is left."""
        await self._empty.wait()

    def __len__(self) -> int:
        return len(self._clients)

    @staticmethod
    def client_name(identity: Identity | None, address: str) -> str:
        """Return under which name connections are counted: the key, or the address where there is none."""
        if identity is None or identity.name == "anonymous":
            return f"address {address}"
        return identity.name

    def join(self, receiver: Receiver, client: str) -> None:
        """Count a connection in; raise `RefusedError` where there are too many, or none is taken any more."""
        if self._draining:
            raise RefusedError("draining", "the server is about to stop; connect again")
        if len(self._clients) >= self._max_connections:
            raise RefusedError("connection_limit", "the server has no room for another connection")
        if self._counts.get(client, 0) >= self._max_per_client:
            raise RefusedError(
                "connection_limit",
                "too many connections of one client",
                allowed=f"at most {self._max_per_client} connections a client",
            )
        self._clients[receiver] = client
        self._counts[client] = self._counts.get(client, 0) + 1
        self._empty.clear()
        metrics.CONNECTIONS.set(len(self._clients))

    def leave(
        self, receiver: Receiver, streams: Iterable[Stream], wildcards: Iterable[Wildcard]
    ) -> None:
        """Count a connection out, with what it still subscribes to."""
        for stream in streams:
            self.unregister(stream, receiver)
        for wildcard in wildcards:
            self.unregister_wildcard(wildcard, receiver)
        client = self._clients.pop(receiver, None)
        if client is not None:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]
        if not self._clients:
            self._empty.set()
        metrics.CONNECTIONS.set(len(self._clients))

    def register(self, stream: Stream, receiver: Receiver) -> None:
        """Hand the stream's messages to the receiver from now on."""
        receivers = self._receivers.setdefault(stream, {})
        if receiver not in receivers:
            receivers[receiver] = None
            metrics.SUBSCRIPTIONS.labels(stream.channel).inc()

    def unregister(self, stream: Stream, receiver: Receiver) -> None:
        """Hand the receiver no more of the stream."""
        receivers = self._receivers.get(stream)
        if receivers is None or receiver not in receivers:
            return
        del receivers[receiver]
        metrics.SUBSCRIPTIONS.labels(stream.channel).dec()
        if not receivers:
            del self._receivers[stream]

    def register_wildcard(self, wildcard: Wildcard, receiver: Receiver) -> None:
        """Offer the receiver every stream of an exchange that it has not yet."""
        self._wildcards.setdefault(wildcard, {})[receiver] = None

    def unregister_wildcard(self, wildcard: Wildcard, receiver: Receiver) -> None:
        """Offer the receiver no more of the exchange's streams."""
        receivers = self._wildcards.get(wildcard)
        if receivers is not None:
            receivers.pop(receiver, None)
            if not receivers:
                del self._wildcards[wildcard]

    def publish(self, topic: Topic, epoch: int, partition: int, entry: Entry) -> None:
        """Hand on one record, in the order of its partition."""
        wanted = frozenset(link.stream for link in entry.links if self._wanted(link.stream))
        try:
            for event in events_of(topic, entry, epoch, partition, wanted):
                self._deliver(event, event.stream)
            if topic == "status":
                self._deliver_revised(entry, epoch, partition)
        except MessageError as error:
            metrics.TAIL_BROKEN.labels(topic).inc()
            log.warning(
                "a record can't be read",
                topic=topic,
                partition=partition,
                offset=entry.offset,
                error=str(error),
            )

    def _wanted(self, stream: Stream) -> bool:
        if self._wildcards:
            exchange = stream.market.partition(":")[0]
            wildcard = Wildcard(stream.channel, exchange, stream.timeframe)
            for receiver in list(self._wildcards.get(wildcard, ())):
                if receiver.adopt(stream):
                    self.register(stream, receiver)
        return stream in self._receivers

    def _deliver(self, event: Event, to: Stream) -> None:
        for receiver in list(self._receivers.get(to, ())):
            receiver.offer(event)

    def _deliver_revised(self, entry: Entry, epoch: int, partition: int) -> None:
        """Tell a candle stream's receivers that a range is to be read again: they need not follow `status`."""
        stream = revised_stream(entry)
        if stream is None or stream not in self._receivers:
            return
        for event in events_of("status", entry, epoch, partition):
            followers = self._receivers.get(event.stream, {})
            for receiver in list(self._receivers[stream]):
                if receiver not in followers:
                    receiver.offer(event)

    def interrupt(self, reason: str) -> None:
        """End every connection: the thread of the log is lost, and clients begin anew."""
        for receiver in list(self._clients):
            receiver.finish(
                1012,
                "log interrupted",
                {"channel": "error", "code": "STREAM_INTERRUPTED", "message": reason},
            )

    def announce_drain(self, within_ms: int) -> None:
        """Tell every connection that it will be closed, and take no new one."""
        self._draining = True
        for receiver in list(self._clients):
            receiver.announce({"channel": "status", "type": "draining", "within_ms": within_ms})

    def close_all(self) -> None:
        """Close every connection with 1012: come again."""
        self._draining = True
        for receiver in list(self._clients):
            receiver.finish(1012, "service restart")
