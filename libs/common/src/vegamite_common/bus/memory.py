"""The bus inside one process: the port's contract without a broker, for standalone and for tests.

It keeps no records over a restart, but no offset is ever used twice: blocks of offsets are reserved in an `OffsetStore`
before the first of them is used, and a new start begins after the last reserved one. The log of a partition is
bounded by bytes. What a group has not read yet is never dropped: `publish` waits for it; what it has read is kept
while there is room, so that a member can go back a little.
"""

import asyncio
from collections.abc import Mapping, Sequence

from vegamite_common.bus.memory_group import MemoryGroup
from vegamite_common.bus.memory_log import MemoryLog
from vegamite_common.bus.offset_store import OffsetStore, VolatileOffsetStore
from vegamite_common.bus.port import (
    TOPICS,
    Ack,
    BusError,
    Fetched,
    OffsetOutOfRangeError,
    Record,
    TopicSpec,
)
from vegamite_common.runtime.clock import Clock

RETAINED_BYTES = 16 * 1024 * 1024
"""What one partition may hold, its records' overhead included."""

PUBLISH_SECONDS = 30.0
"""How long `publish` waits for a reader that is behind before it gives up."""

OFFSET_BLOCK = 65_536
"""How many offsets one durable reservation covers."""


class MemoryBus:
    """A bus for one process and one event loop. All topics exist from `start` on, with `partitions` each."""

    def __init__(
        self,
        *,
        clock: Clock,
        partitions: int = 1,
        offsets: OffsetStore | None = None,
        retained_bytes: int = RETAINED_BYTES,
        publish_seconds: float = PUBLISH_SECONDS,
        offset_block: int = OFFSET_BLOCK,
    ) -> None:
        self._clock = clock
        self._partitions = partitions
        self._offsets = offsets or VolatileOffsetStore()
        self._retained_bytes = retained_bytes
        self._publish_seconds = publish_seconds
        self._offset_block = offset_block
        self._topics: dict[str, list[MemoryLog]] = {}
        self._groups: dict[tuple[str, str], MemoryGroup] = {}
        self._readers: set[MemoryReader] = set()
        self._reserved: dict[str, dict[int, int]] = {}
        self._open = False

    async def start(self) -> None:
        """Load the reserved offsets and make the topics; raise `BusError` where the store can't be read."""
        self._reserved = await self._offsets.load()
        self._open = True
        for topic in TOPICS:
            self._make_topic(topic, self._partitions)

    async def close(self) -> None:
        """End the bus; every reader, member and waiting publish gets a `BusError`."""
        self._open = False
        for reader in list(self._readers):
            await reader.close()
        for logs in self._topics.values():
            for log in logs:
                log.close()

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions the topic has; raise `BusError` where it doesn't exist."""
        return len(self._logs(topic))

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that don't exist yet; retention is the bus's own bound, whatever the spec says."""
        self._require_open()
        for spec in specs:
            if spec.topic not in self._topics:
                self._make_topic(spec.topic, spec.partitions)

    async def check_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Raise `BusError` unless each topic exists with its number of partitions."""
        for spec in specs:
            count = len(self._logs(spec.topic))
            if count != spec.partitions:
                raise BusError(
                    f"topic {spec.topic}: partitions is {count}, {spec.partitions} are needed"
                )

    def producer(self) -> "MemoryProducer":
        """Return a producer."""
        return MemoryProducer(self)

    async def reader(self, topic: str) -> "MemoryReader":
        """Return a reader of the topic that holds nobody up: records that it is too slow for are dropped."""
        reader = MemoryReader(self, topic, self._logs(topic))
        self._readers.add(reader)
        return reader

    async def join(self, topic: str, group: str, *, fetch: bool = True) -> "MemoryMember":
        """Join the group; the assignment is made at once."""
        logs = self._logs(topic)
        owner = self._groups.setdefault((topic, group), MemoryGroup(range(len(logs))))
        member = MemoryMember(self, topic, logs, owner, fetch=fetch)
        self._readers.add(member)
        owner.add(member)
        return member

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        """Append in order, once there is room and the offsets are reserved; see `Producer.publish`."""
        logs = self._logs(topic)
        if not 0 <= partition < len(logs):
            raise BusError(f"topic {topic} has no partition {partition}")
        if not records:
            raise ValueError("nothing to publish")
        log = logs[partition]
        try:
            async with log.lock:
                await log.make_room(
                    sum(map(log.size_of, records)), patience_seconds=self._publish_seconds
                )
                end = log.end + len(records)
                if end > log.reserved:
                    reserved = end + self._offset_block
                    await self._offsets.reserve(topic, partition, reserved)
                    log.reserved = reserved
                self._require_open()
                ack = log.append(partition, records, self._clock.now())
        except TimeoutError:
            raise BusError(
                f"topic {topic}, partition {partition}: full, and its readers did not read for "
                f"{self._publish_seconds:g} s"
            ) from None
        for reader in self._readers:
            reader.wake(topic)
        # As over a network: whoever publishes in a loop lets the others run.
        await asyncio.sleep(0)
        return ack

    def now(self) -> int:
        """The clock's instant."""
        return self._clock.now()

    def forget_reader(self, reader: "MemoryReader") -> None:
        """Drop a closed reader."""
        self._readers.discard(reader)

    def _make_topic(self, topic: str, partitions: int) -> None:
        reserved = self._reserved.get(topic, {})
        self._topics[topic] = [
            MemoryLog(begin=reserved.get(at, 0), retained_bytes=self._retained_bytes)
            for at in range(partitions)
        ]

    def _logs(self, topic: str) -> list[MemoryLog]:
        self._require_open()
        try:
            return self._topics[topic]
        except KeyError:
            raise BusError(f"topic {topic} does not exist") from None

    def _require_open(self) -> None:
        if not self._open:
            raise BusError("the bus is not running")


class MemoryProducer:
    """Writes to the bus of this process."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        """Append `records` in order; waits while a group is too far behind, then raises `BusError`."""
        return await self._bus.append(topic, partition, records)


class MemoryReader:
    """Reads chosen partitions of one topic; see the port."""

    def __init__(self, bus: MemoryBus, topic: str, logs: Sequence[MemoryLog]) -> None:
        self._bus = bus
        self._topic = topic
        self._logs = logs
        self._positions: dict[int, int] = {}
        self._wake = asyncio.Event()
        self._closed = False

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, each from this offset on."""
        self._require_open()
        for partition, offset in positions.items():
            self._log(partition)
            self._positions[partition] = offset
            self._moved(partition)
        self._wake.set()

    async def forget(self, partitions: Sequence[int]) -> None:
        """Stop reading these partitions."""
        for partition in partitions:
            self._positions.pop(partition, None)
            self._moved(partition)

    async def poll(
        self,
        *,
        max_records: int,
        timeout: float,  # noqa: ASYNC109 -- how long to wait is part of what a poll is asked
    ) -> Sequence[Fetched]:
        """Return what is there, at most `max_records`, shared evenly; else wait up to `timeout` seconds."""
        self._require_open()
        await asyncio.sleep(0)
        fetched = self._take(max_records)
        if timeout > 0 and not any(item.messages for item in fetched):
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._require_open()
            fetched = self._take(max_records)
        return fetched

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset of the oldest record still there, or the end."""
        self._require_open()
        return {partition: self._log(partition).begin for partition in partitions}

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset that the next record will get."""
        self._require_open()
        return {partition: self._log(partition).end for partition in partitions}

    async def close(self) -> None:
        """Stop reading; a poll that waits ends with a `BusError`."""
        self._closed = True
        self._bus.forget_reader(self)
        self._wake.set()

    def wake(self, topic: str) -> None:
        """Something was appended to the topic."""
        if topic == self._topic:
            self._wake.set()

    def _readable(self) -> list[int]:
        return sorted(self._positions)

    def _moved(self, partition: int) -> None:
        """The position of a partition changed; a plain reader holds nobody up."""

    def _take(self, max_records: int) -> list[Fetched]:
        partitions = self._readable()
        left = max_records
        fetched = []
        for at, partition in enumerate(partitions):
            log = self._logs[partition]
            position = self._positions[partition]
            if not log.begin <= position <= log.end:
                raise OffsetOutOfRangeError(
                    partition=partition, offset=position, begin=log.begin, end=log.end
                )
            share = -(-left // (len(partitions) - at))
            messages = log.read(position, share)
            left -= len(messages)
            fetched.append(Fetched(partition, messages, log.end, self._bus.now()))
        for item in fetched:
            if item.messages:
                self._positions[item.partition] = item.messages[-1].offset + 1
                self._moved(item.partition)
        return fetched

    def _log(self, partition: int) -> MemoryLog:
        if not 0 <= partition < len(self._logs):
            raise BusError(f"topic {self._topic} has no partition {partition}")
        return self._logs[partition]

    def _require_open(self) -> None:
        if self._closed:
            raise BusError("the reader is closed")


class MemoryMember(MemoryReader):
    """A reader whose partitions its group assigns; with `fetch`, `publish` waits for what it has not read yet."""

    def __init__(
        self,
        bus: MemoryBus,
        topic: str,
        logs: Sequence[MemoryLog],
        group: MemoryGroup,
        *,
        fetch: bool,
    ) -> None:
        super().__init__(bus, topic, logs)
        self._group = group
        self._fetch = fetch
        self._assignment: frozenset[int] | None = None
        self._changed = asyncio.Event()

    @property
    def assignment(self) -> frozenset[int] | None:
        """The partitions that the group assigned to this member."""
        return self._assignment

    async def assignment_changed(self) -> frozenset[int] | None:
        """Wait for a change since the last call, and return the assignment."""
        self._require_open()
        await self._changed.wait()
        self._require_open()
        self._changed.clear()
        return self._assignment

    def assign(self, partitions: frozenset[int]) -> None:
        """Take the group's decision: what was lost is forgotten, what is new waits for a seek."""
        if partitions == self._assignment:
            return
        before = self._assignment or frozenset()
        self._assignment = partitions
        for partition in before - partitions:
            self._positions.pop(partition, None)
            self._logs[partition].release(self)
        if self._fetch:
            for partition in partitions - before:
                self._logs[partition].hold(self, self._logs[partition].begin)
        self._changed.set()
        self._wake.set()

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Begin to read assigned partitions; one that isn't assigned any more is left out."""
        assigned = self._assignment or frozenset()
        await super().seek({p: offset for p, offset in positions.items() if p in assigned})

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group how far each partition is done."""
        self._require_open()
        if not set(positions) <= (self._assignment or frozenset()):
            raise BusError("not a member for these partitions now")
        self._group.committed.update(positions)

    async def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return how far the group says that these partitions are done."""
        self._require_open()
        told = self._group.committed
        return {partition: told[partition] for partition in partitions if partition in told}

    async def close(self) -> None:
        """Leave the group; its partitions go to the others at once."""
        if not self._closed:
            await super().close()
            self.assign(frozenset())
            self._group.remove(self)

    def _readable(self) -> list[int]:
        return super()._readable() if self._fetch else []

    def _moved(self, partition: int) -> None:
        if self._fetch and partition in (self._assignment or ()):
            log = self._logs[partition]
            log.hold(self, self._positions.get(partition, log.begin))
