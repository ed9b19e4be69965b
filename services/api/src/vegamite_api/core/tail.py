"""What a replica remembers of the log's end: recent records per partition, within a bound, and how streams chain.

A record is kept as its bytes, with the streams it concerns and, for each, the offset of the stream's message before it;
messages are made from it when somebody wants them.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from vegamite_api.core.seq import Seq
from vegamite_api.core.stream import Event, Stream, candles_event, status_event, trades_event
from vegamite_common.domain.market import Market
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.status import Revised, decode_status
from vegamite_common.messages.trades import TradesRecord, decode_trades

Topic = Literal["trades", "candles", "status"]

_ENTRY_OVERHEAD = 300


class Link(NamedTuple):
    """A stream that a record concerns; `prev` is the offset of its undroppable message before, None where not seen."""

    stream: Stream
    prev: int | None


class Entry(NamedTuple):
    """A record of the log with the streams that it concerns."""

    offset: int
    value: bytes
    links: tuple[Link, ...]


class _Timed(msgspec.Struct):
    timeframe: str


class _CandlesHead(msgspec.Struct):
    exchange: str
    symbol: str
    type: str
    candles: list[_Timed]


class _TradesHead(msgspec.Struct):
    kind: str
    exchange: str = ""
    symbol: str = ""
    trades: list[msgspec.Raw] = []


class _StatusHead(msgspec.Struct):
    kind: str
    exchange: str
    symbol: str
    timeframe: str | None = None


_CANDLES_HEAD = msgspec.json.Decoder(_CandlesHead)
_TRADES_HEAD = msgspec.json.Decoder(_TradesHead)
_STATUS_HEAD = msgspec.json.Decoder(_StatusHead)


def concerned(topic: Topic, value: bytes) -> tuple[tuple[Stream, ...], bool]:
    """Return the streams that a record concerns, and whether its messages may be superseded unseen.

    Reads no more than the record's head; raises `MessageError` for bytes that are no record.
    """
    try:
        if topic == "trades":
            trades = _TRADES_HEAD.decode(value)
            if trades.kind != "trades" or not trades.trades:
                return (), False
            return (Stream("trades", f"{trades.exchange}:{trades.symbol}"),), False
        if topic == "candles":
            candles = _CANDLES_HEAD.decode(value)
            key = f"{candles.exchange}:{candles.symbol}"
            names = dict.fromkeys(candle.timeframe for candle in candles.candles)
            return tuple(Stream("candles", key, name) for name in names), candles.type == "update"
        status = _STATUS_HEAD.decode(value)
    except msgspec.MsgspecError as error:
        raise MessageError(str(error)) from error
    return (Stream("status", f"{status.exchange}:{status.symbol}"),), False


def events_of(
    topic: Topic, entry: Entry, epoch: int, partition: int, wanted: frozenset[Stream] | None = None
) -> list[Event]:
    """Return the messages of a record, for all its streams or those wanted; raise `MessageError` for a broken record."""
    links = [link for link in entry.links if wanted is None or link.stream in wanted]
    if not links:
        return []
    seq = Seq(epoch, partition, entry.offset)

    def before(link: Link) -> Seq | None:
        return None if link.prev is None else Seq(epoch, partition, link.prev)

    if topic == "trades":
        trades = decode_trades(entry.value)
        assert isinstance(trades, TradesRecord)
        return [trades_event(trades, seq, before(link)) for link in links]
    if topic == "candles":
        candles = decode_candles(entry.value)
        return [
            candles_event(candles, link.stream.timeframe, seq, before(link))
            for link in links
            if link.stream.timeframe is not None
        ]
    status = decode_status(entry.value)
    return [status_event(status, seq, before(link)) for link in links]


def revised_stream(entry: Entry) -> Stream | None:
    """Return the candle stream that a status record says to read again; None for any other status."""
    status = decode_status(entry.value)
    if not isinstance(status, Revised):
        return None
    return Stream("candles", Market(status.exchange, status.symbol).key, status.timeframe.value)


class Chain:
    """Remembers each stream's last undroppable offset, to name it in the next message."""

    def __init__(self) -> None:
        self._last: dict[Stream, int] = {}

    def link(
        self, streams: tuple[Stream, ...], offset: int, *, droppable: bool
    ) -> tuple[Link, ...]:
        """Return the links of the record at `offset`, and remember it unless it is droppable."""
        links = tuple(Link(stream, self._last.get(stream)) for stream in streams)
        if not droppable:
            for stream in streams:
                self._last[stream] = offset
        return links

    def last(self, stream: Stream) -> int | None:
        """Return the offset of the stream's last undroppable message; None where none was seen."""
        return self._last.get(stream)


class Memory:
    """The recent records of one partition: those in [first_offset, next_offset), the oldest leave first at `max_bytes`."""

    def __init__(self, next_offset: int, *, max_bytes: int) -> None:
        self.first_offset = next_offset
        self.next_offset = next_offset
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: deque[Entry] = deque()
        self._chain = Chain()

    def append(self, topic: Topic, offset: int, value: bytes) -> Entry | None:
        """Remember the record at `offset` and return it with its links; None where it concerns no stream.

        Raises `MessageError` for a broken record, which is then passed by like one that concerns nobody.
        """
        self.next_offset = offset + 1
        streams, droppable = concerned(topic, value)
        if not streams:
            return None
        entry = Entry(offset, value, self._chain.link(streams, offset, droppable=droppable))
        self._entries.append(entry)
        self._bytes += len(value) + _ENTRY_OVERHEAD
        while self._bytes > self._max_bytes and self._entries:
            oldest = self._entries.popleft()
            self._bytes -= len(oldest.value) + _ENTRY_OVERHEAD
            self.first_offset = oldest.offset + 1
        return entry

    def last(self, stream: Stream) -> int | None:
        """Return the offset of the stream's last undroppable message; None where none was seen."""
        return self._chain.last(stream)

    def since(self, offset: int) -> Iterator[Entry]:
        """Return the entries from `offset` on; what is older than `first_offset` is gone."""
        entries = self._entries
        start = bisect_left(entries, offset, key=lambda entry: entry.offset)
        return iter([entries[index] for index in range(start, len(entries))])
