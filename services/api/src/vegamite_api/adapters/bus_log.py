"""The log over the bus."""

from collections.abc import AsyncIterator, Sequence

from vegamite_api.core.tail import Topic
from vegamite_api.ports import Bounds
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, Bus, BusError, Message, Reader

_TOPICS: dict[Topic, str] = {"trades": TRADES, "candles": CANDLES, "status": STATUS}
_BATCH = 1_000
_POLL_SECONDS = 1.0
_SILENT_POLLS = 15


class BusLog:
    """`Log` over a started `Bus`, which stays its owner's to close."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def partitions(self) -> int:
        """Return how many partitions each topic has; raises `BusError` where the topics disagree or don't exist."""
        counts = {await self._bus.partition_count(topic) for topic in _TOPICS.values()}
        if len(counts) != 1:
            raise BusError(f"the topics have different numbers of partitions: {sorted(counts)}")
        return counts.pop()

    def partition_of(self, market_key: str, partitions: int) -> int:
        """Return the partition of a market."""
        return partition_for(market_key.encode(), partitions)

    async def bounds(self, topic: Topic, partitions: Sequence[int]) -> dict[int, Bounds]:
        """Return the bounds of these partitions, asked of the log."""
        reader = await self.reader(topic)
        try:
            begins = await reader.begin_offsets(partitions)
            ends = await reader.end_offsets(partitions)
        finally:
            await reader.close()
        return {partition: Bounds(begins[partition], ends[partition]) for partition in partitions}

    async def reader(self, topic: Topic) -> Reader:
        """Return a new reader of the topic."""
        return await self._bus.reader(_TOPICS[topic])

    async def between(
        self, topic: Topic, partition: int, start: int, stop: int
    ) -> AsyncIterator[Message]:
        """Read the records in [start, stop) once; raises `OffsetOutOfRangeError` where `start` is gone."""
        if start >= stop:
            return
        reader = await self.reader(topic)
        silent = 0
        try:
            await reader.seek({partition: start})
            while True:
                fetched = await reader.poll(max_records=_BATCH, timeout=_POLL_SECONDS)
                messages = [message for part in fetched for message in part.messages]
                silent = 0 if messages else silent + 1
                for message in messages:
                    if message.offset >= stop:
                        return
                    yield message
                    if message.offset == stop - 1:
                        return
                if silent >= _SILENT_POLLS:
                    raise BusError(f"partition {partition} brings no records below {stop}")
        finally:
            await reader.close()
