"""What waits to be sent on one connection: bounded in bytes for what streams, in order, with candle updates conflated.

Replies and snapshots are outside the bound: they are made no faster than the socket takes them. A queued update of
candles in progress gives way to a newer one of the same candles; trades, finals, revisions and status never do.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from vegamite_api.core.seq import Seq
from vegamite_api.core.stream import Event, Stream
from vegamite_common.domain.time import Micros


class Waiting:
    """A message in the queue; `begins` are the streams that are whole from a place on once it was sent."""

    __slots__ = ("begins", "event", "live", "opens", "size", "text")

    def __init__(
        self,
        text: str,
        event: Event | None,
        *,
        live: bool = False,
        begins: Mapping[Stream, Seq] | None = None,
    ) -> None:
        self.begins = begins or {}
        self.text: str | None = text
        self.event = event
        self.live = live
        self.opens = event.opens if live and event is not None and event.droppable else frozenset()
        self.size = len(text)


class SendBuffer:
    """An ordered queue of messages; live ones count against `max_bytes` (characters of ASCII JSON, near enough)."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[Waiting] = deque()
        self._updates: dict[Stream, list[Waiting]] = {}
        self._sent: dict[Stream, Seq] = {}
        self._queued: dict[Stream, Seq] = {}
        self.live_bytes = 0
        self.reply_bytes = 0
        self.conflated = 0
        """How many updates gave way to newer ones so far."""

    def __bool__(self) -> bool:
        return bool(self._items)

    def begin(self, stream: Stream, seq: Seq) -> None:
        """Say from which place on a stream is whole that begins without a reply of its own."""
        self._sent[stream] = seq
        self._queued[stream] = seq

    def end(self, stream: Stream) -> None:
        """Forget a stream that is not subscribed any more; what is queued is still sent."""
        self._sent.pop(stream, None)
        self._queued.pop(stream, None)

    def put_reply(self, text: str, begins: Mapping[Stream, Seq] | None = None) -> None:
        """Queue a reply or a snapshot, never refused; with it the streams of `begins` are whole after those places."""
        item = Waiting(text, None, begins=begins)
        self._items.append(item)
        self.reply_bytes += item.size
        self._queued.update(item.begins)

    def put_past(self, event: Event) -> None:
        """Queue a stream's message from before it joined the live ones; never refused, never conflated."""
        item = Waiting(event.text, event)
        self.reply_bytes += item.size
        self._items.append(item)
        self._note(event)

    def put_live(self, event: Event) -> bool:
        """Queue a live message; False where the bound is reached, and then nothing was queued."""
        item = Waiting(event.text, event, live=True)
        if event.droppable:
            self._supersede(event.stream, item.opens)
        if self.live_bytes + item.size > self._max_bytes:
            return False
        self.live_bytes += item.size
        self._items.append(item)
        if item.opens:
            self._updates.setdefault(event.stream, []).append(item)
        self._note(event)
        return True

    def _note(self, event: Event) -> None:
        if not event.droppable and event.stream in self._queued:
            self._queued[event.stream] = event.seq

    def _supersede(self, stream: Stream, opens: frozenset[Micros]) -> None:
        waiting = self._updates.get(stream, [])
        kept = []
        for item in waiting:
            if item.opens <= opens:
                item.text = None
                self.live_bytes -= item.size
                self.conflated += 1
            else:
                kept.append(item)
        if kept:
            self._updates[stream] = kept
        else:
            self._updates.pop(stream, None)

    def pop(self) -> tuple[str, Waiting] | None:
        """Return the text of the next message to send and what it was; None where nothing waits."""
        while self._items:
            item = self._items.popleft()
            if item.text is None:
                continue
            self._account(item)
            return item.text, item
        return None

    def _account(self, item: Waiting) -> None:
        if not item.live:
            self.reply_bytes -= item.size
            return
        self.live_bytes -= item.size
        if item.opens and item.event is not None:
            waiting = self._updates[item.event.stream]
            waiting.remove(item)
            if not waiting:
                del self._updates[item.event.stream]

    def sent(self, item: Waiting) -> None:
        """Note that a message went out."""
        for stream, seq in item.begins.items():
            if stream in self._queued:
                self._sent[stream] = seq
        event = item.event
        if event is not None and not event.droppable and event.stream in self._sent:
            self._sent[event.stream] = event.seq

    def sent_seqs(self) -> dict[str, str]:
        """Return, per stream, the last undroppable place that was sent: from there a client resumes."""
        return _named(self._sent.items())

    def queued_seqs(self) -> dict[str, str]:
        """Return, per stream, the last undroppable place that was queued: a heartbeat behind them states these."""
        return _named(self._queued.items())

    def drop(self) -> None:
        """Forget everything that waits: the connection ends."""
        self._items.clear()
        self._updates.clear()
        self.live_bytes = self.reply_bytes = 0


def _named(places: Iterable[tuple[Stream, Seq]]) -> dict[str, str]:
    return {stream.name: str(seq) for stream, seq in places}
