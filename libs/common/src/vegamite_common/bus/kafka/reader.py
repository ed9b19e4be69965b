"""Reading chosen partitions of one topic from Kafka.

Positions are ours: a record is delivered only at the offset that comes next, whatever the client has in its buffers.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError as KafkaOffsetOutOfRangeError

from vegamite_common.bus.kafka.connection import KafkaConnection, describe, faults
from vegamite_common.bus.kafka.direct_records import read_messages
from vegamite_common.bus.kafka.log_ends import LogEnds, start_consumer, stop_consumer
from vegamite_common.bus.port import (
    BusError,
    Fetched,
    Message,
    MissingRecordsError,
    OffsetOutOfRangeError,
)
from vegamite_common.domain.time import Micros

_SHARES = 16
"""A partition brings at most this part of a fetch, or one batch: in a backlog all of them shall have something to do."""

_FETCH_WAIT_MS = 200
_STUCK_REQUESTS = 3
"""After so many times a request's time limit without a record that is there, the client is replaced."""

log = structlog.get_logger(__name__)


class KafkaReader:
    """Reads partitions from given offsets, without a group."""

    def __init__(
        self, connection: KafkaConnection, topic: str, partitions: int, *, fetch: bool = True
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._count = partitions
        self._fetch = fetch
        self._positions: dict[int, int] = {}
        self._told: dict[int, Micros] = {}
        self._holes: dict[int, int] = {}
        self._missing: MissingRecordsError | None = None
        self._moved = asyncio.Event()
        self._behind_since: float | None = None
        self._closed = False
        self._ends = LogEnds(connection, topic, lambda: self._positions)
        self._consumer = self._new_consumer()

    async def start(self) -> None:
        """Connect; raises `BusError`."""
        await self._ends.start()
        if self._fetch:
            try:
                await self._start_consumer()
            except BaseException:
                await self._ends.close()
                raise

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, each from this offset on."""
        self._require_open()
        for partition in positions:
            if not 0 <= partition < self._count:
                raise BusError(f"topic {self._topic} has no partition {partition}")
        if not self._fetch:
            return
        fresh = set(positions) - set(self._positions)
        self._positions.update(positions)
        if fresh:
            self._assign()
        else:
            for partition, offset in positions.items():
                self._consumer.seek(self._at(partition), offset)
        self._moved.set()

    async def forget(self, partitions: Sequence[int]) -> None:
        """Stop reading these partitions."""
        self._drop(partitions)

    async def poll(
        self,
        *,
        max_records: int,
        timeout: float,  # noqa: ASYNC109 -- how long to wait is part of what a poll is asked
    ) -> Sequence[Fetched]:
        """Return what is there, waiting up to `timeout` seconds for a first record.

        Raises `OffsetOutOfRangeError` for a position outside the log, `MissingRecordsError` for one that has no record,
        and `BusError` while the log can't be reached.
        """
        self._require_open()
        self._raise_missing()
        records: Mapping[TopicPartition, Sequence[Message]] = {}
        if self._readable():
            await self._replace_stuck_client()
            try:
                with faults(f"reading {self._topic}"):
                    records = await self._consumer.getmany(
                        timeout_ms=round(timeout * 1000), max_records=max_records
                    )
            except BusError as error:
                self._behind_since = None  # an answer, so the client isn't stuck
                await self._raise_out_of_range(error)
        else:
            await self._wait_for_work(timeout)
        self._require_open()
        return self._deliver(records)

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset of the oldest record still there, or the end."""
        self._require_open()
        return await self._ends.begins(partitions)

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset that the next record will get."""
        self._require_open()
        return await self._ends.ends(partitions)

    async def close(self) -> None:
        """Stop reading and disconnect."""
        if self._closed:
            return
        self._closed = True
        self._moved.set()
        await self._ends.close()
        await stop_consumer(self._consumer)

    def _readable(self) -> bool:
        return bool(self._positions)

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _assign(self) -> None:
        if not self._positions:
            self._consumer.unsubscribe()
            return
        # Nothing may run between the two: an assigned partition without a position is an error of the client.
        self._consumer.assign([self._at(partition) for partition in self._positions])
        for partition, offset in self._positions.items():
            self._consumer.seek(self._at(partition), offset)

    def _drop(self, partitions: Iterable[int]) -> None:
        gone = [partition for partition in partitions if partition in self._positions]
        for partition in gone:
            del self._positions[partition]
            self._told.pop(partition, None)
        if gone and not self._closed:
            self._assign()

    def _deliver(self, records: Mapping[TopicPartition, Sequence[Message]]) -> list[Fetched]:
        fetched = []
        if not self._readable():
            return []
        for partition in sorted(self._positions):
            messages = self._next_messages(partition, records.get(self._at(partition), ()))
            end, confirmed = self._ends.confirmed.get(partition, (0, 0))
            if messages:
                self._holes.pop(partition, None)
                self._positions[partition] = messages[-1].offset + 1
                end = max(end, messages[-1].offset + 1)
            if messages or confirmed > self._told.get(partition, 0):
                self._told[partition] = confirmed
                # Without an answer about the end yet, the log has answered since the last record was appended.
                instant = confirmed or messages[-1].append_time
                fetched.append(Fetched(partition, messages, end, instant))
        self._note_progress(fetched)
        if not any(item.messages for item in fetched):
            self._raise_missing()
        if self._ends.error is not None and not any(item.messages for item in fetched):
            raise BusError(
                f"Kafka, reading {self._topic}: {describe(self._ends.error)}"
            ) from self._ends.error
        return fetched

    def _next_messages(self, partition: int, records: Sequence[Message]) -> Sequence[Message]:
        """Return those of the records that follow the position without a hole."""
        expected = self._positions[partition]
        if records and records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if not records or records[-1].offset - expected == len(records) - 1:
            return records  # offsets rise, so none is missing
        whole = 0
        while records[whole].offset == expected + whole:
            whole += 1
        self._ask_again(partition, expected + whole, came=records[whole].offset)
        return records[:whole]

    def _ask_again(self, partition: int, expected: int, *, came: int) -> None:
        """What came begins after the position: it was fetched for an earlier one. A second time it is a real hole.

        That is told once what came with it, of this partition and others, is delivered: their positions are past it.
        """
        if self._holes.get(partition) == expected:
            self._missing = MissingRecordsError(
                self._topic, partition=partition, offset=expected, next_offset=came
            )
        self._holes[partition] = expected
        self._consumer.seek(self._at(partition), expected)

    def _raise_missing(self) -> None:
        """Tell of a hole that was found, where its position is still asked for."""
        missing, self._missing = self._missing, None
        if missing is not None and self._positions.get(missing.partition) == missing.offset:
            raise missing

    def _new_consumer(self) -> AIOKafkaConsumer:
        fetch_max_bytes = self._connection.section.fetch_max_bytes
        return AIOKafkaConsumer(
            **self._connection.arguments(),
            group_id=None,
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=max(1, fetch_max_bytes // _SHARES),
        )

    async def _start_consumer(self) -> None:
        await start_consumer(self._consumer, self._connection, self._topic)
        read_messages(self._consumer, self._connection.from_broker)

    async def _replace_stuck_client(self) -> None:
        """Begin anew with a client that brings nothing though the log, which answers, has more."""
        since = self._behind_since
        limit = _STUCK_REQUESTS * self._connection.request_seconds
        if since is None or self._ends.error is not None or time.monotonic() - since < limit:
            return
        log.warning("the Kafka client brings no records; replaced", topic=self._topic)
        self._behind_since = time.monotonic()
        stuck, self._consumer = self._consumer, self._new_consumer()
        await stop_consumer(stuck)
        await self._start_consumer()
        self._assign()

    def _note_progress(self, fetched: Sequence[Fetched]) -> None:
        behind = any(
            self._ends.confirmed.get(partition, (0, 0))[0] > position
            for partition, position in self._positions.items()
        )
        if not behind or any(item.messages for item in fetched):
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = time.monotonic()

    async def _wait_for_work(self, seconds: float) -> None:
        self._moved.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def _raise_out_of_range(self, error: BusError) -> None:
        """Raise what was caught, as the port's own error where it is about a position that is still ours."""
        cause = error.__cause__
        if not isinstance(cause, KafkaOffsetOutOfRangeError):
            raise error
        for at, offset in cause.args[0].items():
            if self._positions.get(at.partition) == offset:
                begin = (await self.begin_offsets([at.partition]))[at.partition]
                end = (await self.end_offsets([at.partition]))[at.partition]
                if not begin <= offset <= end:
                    raise OffsetOutOfRangeError(
                        partition=at.partition, offset=offset, begin=begin, end=end
                    ) from error
                self._consumer.seek(at, offset)

    def _require_open(self) -> None:
        if self._closed:
            raise BusError("the reader is closed")
        self._ends.check()
