"""The bus: topics of partitioned, ordered, replayable records, as the services see it.

Two adapters, `KafkaBus` and `MemoryBus`, pass one contract suite. Append times are in the domain of the clock that the
adapter was given, so that a simulated clock and the log agree.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from vegamite_common.domain.time import Micros

TRADES = "market.trades.v1"
CANDLES = "market.candles.v1"
STATUS = "market.status.v1"
DEAD_LETTERS = "market.trades.dead-letter.v1"

TOPICS = (TRADES, CANDLES, STATUS, DEAD_LETTERS)
"""All topics; they have the same number of partitions."""

Record: TypeAlias = tuple[bytes | None, bytes]
"""(key, value) of a record to be written; the key is None for records that belong to the partition itself."""


class BusError(Exception):
    """The log can't be reached or refused; what was being written may or may not have been appended."""


class OffsetOutOfRangeError(BusError):
    """A position before the log's start or beyond its end: `partition`, `offset` and the log's [`begin`, `end`]."""

    def __init__(self, *, partition: int, offset: int, begin: int, end: int) -> None:
        super().__init__(
            f"partition {partition}: offset {offset} is outside the log, [{begin}, {end}]"
        )
        self.partition = partition
        self.offset = offset
        self.begin = begin
        self.end = end


class MissingRecordsError(BusError):
    """Asked twice, the log gives no record from `offset` to `next_offset` (exclusive) of `partition`.

    Raised anew for as long as that position is asked for; a seek to `next_offset` passes over what is missing.
    """

    def __init__(self, topic: str, *, partition: int, offset: int, next_offset: int) -> None:
        super().__init__(
            f"topic {topic}, partition {partition}: no record {offset}, the next is {next_offset}"
        )
        self.partition = partition
        self.offset = offset
        self.next_offset = next_offset


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record as read: its place in the log, when the log appended it (clock microseconds), key and value."""

    partition: int
    offset: int
    append_time: Micros
    key: bytes | None
    value: bytes


class Ack(msgspec.Struct, frozen=True):
    """An acknowledged batch: `count` records from `base_offset` on, appended at `append_time` (clock microseconds)."""

    partition: int
    base_offset: int
    count: int
    append_time: Micros


class Fetched(msgspec.Struct, frozen=True):
    """What one poll brought of one partition.

    `messages` follow each other in the log and begin at the reader's position; `end_offset` is the offset that the next
    appended record would get, as of `fetched_time` (clock microseconds), when the log last answered for the partition.
    """

    partition: int
    messages: Sequence[Message]
    end_offset: int
    fetched_time: Micros


class TopicSpec(msgspec.Struct, frozen=True):
    """How a topic is made: partitions, replicas, and how long records are kept (milliseconds)."""

    topic: str
    partitions: int
    replication: int
    retention_ms: int


class Producer(Protocol):
    """Writes records; batches of one partition keep their order."""

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        """Append `records` together, in order, and return once all replicas have them; raise `BusError` where that is not known."""
        ...


class Reader(Protocol):
    """Reads chosen partitions of one topic, each from a chosen offset, without a group."""

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, each from this offset on; others that are being read go on."""
        ...

    async def forget(self, partitions: Sequence[int]) -> None:
        """Stop reading these partitions."""
        ...

    async def poll(
        self,
        *,
        max_records: int,
        timeout: float,  # noqa: ASYNC109 -- how long to wait is part of what a poll is asked
    ) -> Sequence[Fetched]:
        """Return what is there, waiting up to `timeout` real seconds for a first record.

        Also returns a `Fetched` without messages for each partition whose end the log confirmed meanwhile. Raises
        `OffsetOutOfRangeError` for a position outside the log and `BusError` while the log can't be reached.
        """
        ...

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset of the oldest record still there (or the end, where there is none), asked of the log."""
        ...

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset that the next record will get, asked of the log."""
        ...

    async def close(self) -> None:
        """Stop reading; leave the group, for a member."""
        ...


class Member(Reader, Protocol):
    """A reader whose partitions a consumer group assigns.

    A newly assigned partition delivers nothing until `seek` names its position, and then only records from that position
    on, without a hole; one that was taken away delivers nothing more. With `fetch=False` there is membership alone.
    """

    @property
    def assignment(self) -> frozenset[int] | None:
        """The partitions that the group assigned to this member; None while it has no assignment."""
        ...

    async def assignment_changed(self) -> frozenset[int] | None:
        """Wait for the next change of the assignment since the last call, and return what it is now."""
        ...

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group how far each partition is done; raise `BusError` where it can't be told."""
        ...

    async def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return how far the group says that these partitions are done, without those of which it says nothing.

        For a group without a store of its own; it is never where reading begins by itself. Raise `BusError` where it
        can't be asked.
        """
        ...


class Bus(Protocol):
    """A connection to the log; `start` before anything else, `close` at the end."""

    async def start(self) -> None:
        """Connect; raise `BusError` when the log can't be reached within the configured time."""
        ...

    async def close(self) -> None:
        """Flush what was accepted and disconnect; producers, readers and members end with it."""
        ...

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions the topic has; raise `BusError` where it doesn't exist."""
        ...

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that don't exist yet, with append times set by the log; raise `BusError` on failure."""
        ...

    async def check_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Raise `BusError`, naming topic and setting, unless each topic exists as it has to."""
        ...

    def producer(self) -> Producer:
        """Return the process's producer."""
        ...

    async def reader(self, topic: str) -> Reader:
        """Return a new reader of the topic, which reads nothing yet."""
        ...

    async def join(self, topic: str, group: str, *, fetch: bool = True) -> Member:
        """Join the consumer group for the topic and return the membership."""
        ...
