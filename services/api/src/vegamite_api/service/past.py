"""What came before a stream's live messages: from a place in the log up to now, without a hole."""

import asyncio
from collections.abc import Awaitable, Callable

from vegamite_api.core.refusal import RefusedError, invalid
from vegamite_api.core.seq import Seq
from vegamite_api.core.stream import Event, Stream
from vegamite_api.core.tail import Chain, Entry, concerned, events_of
from vegamite_api.ports import Log
from vegamite_api.service.tail import Tail
from vegamite_common.messages.codec import MessageError

_ONE_OFF_READERS = 4
_CHUNK = 1_000

Emit = Callable[[Event], Awaitable[None]]


def too_old(stream: Stream, oldest: Seq, *, parameter: str) -> RefusedError:
    """Return the refusal of a place that the log does not reach back to."""
    return RefusedError(
        "resume_too_old",
        f"{stream.name} can't be resumed there: the log begins later, or anew",
        parameter=parameter,
        allowed=f"a seq from {oldest} on, or a snapshot",
        extra={"market": stream.market, "oldest": str(oldest)},
    )


class Past:
    """Reads a stream's messages from a place on: out of the tail's memory, and what is older by a reader of its own."""

    def __init__(self, *, tail: Tail, log_port: Log) -> None:
        self._tail = tail
        self._log = log_port
        self._readers = asyncio.Semaphore(_ONE_OFF_READERS)

    def partition(self, market_key: str) -> int:
        """Return the partition of a market; raises `NotReadyError` before the log's end was reached."""
        _ = self._tail.epoch
        return self._log.partition_of(market_key, self._tail.partitions)

    def position(self, stream: Stream) -> Seq:
        """Return the place of the last record of the stream's partition that this replica has seen."""
        partition = self.partition(stream.market)
        memory = self._tail.memory(stream.channel, partition)
        return Seq(self._tail.epoch, partition, memory.next_offset - 1)

    async def check_resume(self, stream: Stream, seq: Seq, *, parameter: str) -> None:
        """Raise `RefusedError` unless the stream can go on after `seq`; `BusError` while the log can't be asked."""
        partition = self.partition(stream.market)
        epoch = self._tail.epoch
        memory = self._tail.memory(stream.channel, partition)
        if seq.epoch == epoch and seq.partition == partition:
            if memory.first_offset <= seq.offset + 1 <= memory.next_offset:
                return
        elif seq.epoch >= epoch:
            raise invalid(
                parameter, f"{seq} is no place of {stream.name}", "a seq of the same stream"
            )
        bounds = (await self._log.bounds(stream.channel, [partition]))[partition]
        if seq.epoch < epoch or seq.offset + 1 < bounds.begin:
            raise too_old(stream, Seq(epoch, partition, bounds.begin - 1), parameter=parameter)
        if seq.offset >= bounds.end:
            raise invalid(parameter, f"{seq} lies beyond the log's end", "a seq that was received")

    async def catch_up(
        self, stream: Stream, after: Seq, *, emit: Emit, register: Callable[[], None]
    ) -> None:
        """Emit the stream's messages after a place, then call `register` with nothing between the last one and it.

        Raises `RefusedError` where the log has no more what lies after the place.
        """
        partition, position = after.partition, after.offset + 1
        chain = Chain()
        while True:
            memory = self._tail.memory(stream.channel, partition)
            if self._tail.epoch != after.epoch:
                raise too_old(stream, self.position(stream), parameter="params.resume")
            if position >= memory.next_offset:
                register()
                return
            if position < memory.first_offset:
                stop = min(memory.first_offset, position + _CHUNK)
                for entry in await self._older(stream, after, position, stop, chain):
                    await self._emit(stream, after, entry, emit)
                position = stop
                continue
            entries = list(memory.since(position))
            position = memory.next_offset
            for entry in entries:
                await self._emit(stream, after, entry, emit)

    async def _older(
        self, stream: Stream, after: Seq, start: int, stop: int, chain: Chain
    ) -> list[Entry]:
        """Return the stream's records in [start, stop), chained, by a reader that is given back before any is sent."""
        partition = after.partition
        entries = []
        async with self._readers:
            bounds = (await self._log.bounds(stream.channel, [partition]))[partition]
            if start < bounds.begin:
                oldest = Seq(after.epoch, partition, bounds.begin - 1)
                raise too_old(stream, oldest, parameter="params.resume")
            # The record before may be the one that the client saw last: then the chain begins with it.
            first = max(bounds.begin, start - 1)
            async for message in self._log.between(stream.channel, partition, first, stop):
                try:
                    streams, droppable = concerned(stream.channel, message.value)
                except MessageError:
                    continue
                if stream in streams:
                    links = chain.link((stream,), message.offset, droppable=droppable)
                    if message.offset >= start:
                        entries.append(Entry(message.offset, message.value, links))
        return entries

    async def _emit(self, stream: Stream, after: Seq, entry: Entry, emit: Emit) -> None:
        wanted = frozenset((stream,))
        try:
            events = events_of(stream.channel, entry, after.epoch, after.partition, wanted)
        except MessageError:
            return
        for event in events:
            await emit(event)
