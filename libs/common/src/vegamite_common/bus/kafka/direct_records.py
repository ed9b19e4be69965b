"""Records as messages of ours at once, a batch at a time, instead of one by one by way of the client's own record class.

The client steps through two generators for every record and makes an object of eleven fields of it, of which we need four: for
small records that was three quarters of what reading costs. Its parser of batches, with decompression and checksums, and
what it does with positions stay as they are. It reads uncommitted records, as ours always does, and no more than that.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from vegamite_common.bus.port import Message
from vegamite_common.domain.time import Micros


def read_messages(consumer: AIOKafkaConsumer, from_broker: Callable[[int], Micros]) -> None:
    """Let `getmany` of a started client, which has no position yet, return `Message`; `from_broker` tells append times."""
    consumer._fetcher._records = _Results(from_broker)  # noqa: SLF001


class _Results(OrderedDict[TopicPartition, Any]):
    """What the client has fetched and not yet handed out: results, whose records are parsed as they are asked for."""

    def __init__(self, from_broker: Callable[[int], Micros]) -> None:
        super().__init__()
        self._from_broker = from_broker

    def __setitem__(self, at: TopicPartition, result: Any) -> None:
        if isinstance(result, FetchResult):  # else an error
            fetched = result._partition_records  # noqa: SLF001
            result._partition_records = _Messages(  # noqa: SLF001
                at.partition,
                fetched._records,  # noqa: SLF001
                fetched.next_fetch_offset,
                self._from_broker,
            )
            result.getall = partial(_take, result)
        super().__setitem__(at, result)


def _take(result: Any, max_records: int) -> list[Message]:
    """What the client's result does when it is asked for records."""
    if not result.has_more() or not result.check_assignment(result._topic_partition):  # noqa: SLF001
        return []
    messages = result._partition_records  # noqa: SLF001
    taken: list[Message] = messages.take(max_records)
    result._update_position()  # noqa: SLF001
    if messages.done:
        result._partition_records = None  # noqa: SLF001
    return taken


class _Messages:
    """The records of one fetch of one partition, from an offset on; `next_fetch_offset` follows the last one taken."""

    def __init__(
        self, partition: int, batches: Any, offset: int, from_broker: Callable[[int], Micros]
    ) -> None:
        self._partition = partition
        self._batches = batches
        self._from_broker = from_broker
        self._records: Iterator[Any] = iter(())  # what is left of the batch that is being read
        self._end = offset  # of that batch
        self._failed: Exception | None = None
        self.next_fetch_offset = offset

    @property
    def done(self) -> bool:
        """Whether nothing is left, not even a failure to tell of."""
        return (
            self._failed is None
            and self.next_fetch_offset >= self._end
            and not (self._batches is not None and self._batches.has_next())
        )

    def take(self, most: int) -> list[Message]:
        """Return the next records, at most so many; of what can't be read, raise once what came before it is taken."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        taken: list[Message] = []
        while len(taken) < most and not self.done:
            try:
                if self.next_fetch_offset >= self._end:
                    self._next_batch()
                taken += self._some(most - len(taken))
            except Exception as error:
                # Nothing of the fetch can be trusted any more: from the next offset on it is asked for again.
                self._batches, self._end = None, self.next_fetch_offset
                if not taken:
                    raise
                self._failed = error
                break
        return taken

    def _next_batch(self) -> None:
        batch = self._batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - partition {self._partition}")
        # Chained, since the client's own iterator may be asked for no second time.
        self._records = chain(() if batch.is_control_batch else batch)
        self._end = batch.next_offset

    def _some(self, most: int) -> list[Message]:
        """Return the batch's next records; they are parsed no sooner, since then they are in the processor's cache."""
        partition, from_broker, begin = self._partition, self._from_broker, self.next_fetch_offset
        messages = [
            Message(
                partition,
                record.offset,
                from_broker(record.timestamp),
                record.key,
                record.value or b"",
            )
            for record in islice(self._records, most)
        ]
        # Of a compacted batch the last records may be gone; what follows begins after them all the same.
        whole = len(messages) < most
        self.next_fetch_offset = max(begin, self._end if whole else messages[-1].offset + 1)
        if messages and messages[0].offset < begin:  # a batch comes whole, wherever one begins
            return [message for message in messages if message.offset >= begin]
        return messages
