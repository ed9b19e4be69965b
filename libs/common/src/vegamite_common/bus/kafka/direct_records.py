"""Records as messages of ours at once, a batch at a time, instead of one by one by way of the client's own record class.

The client steps through two generators for every record and makes an object of eleven fields of it, of which we need four: for
small records that was three quarters of what reading costs. Its parser of batches, with decompression and checksums, and
what it does with positions stay as they are. It reads uncommitted records, as ours always does, and no more than that.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.errors import CorruptRecordException, KafkaError

from vegamite_common.bus.port import Message
from vegamite_common.domain.time import Micros


def read_messages(consumer: AIOKafkaConsumer, from_broker: Callable[[int], Micros]) -> None:
    """Let `getmany` of a started client, which has no position yet, return `Message`; `from_broker` tells append times."""
    consumer._fetcher._records = _Results(from_broker)  # noqa: SLF001


class _Results(OrderedDict[TopicPartition, Any]):
    """What the client has fetched and not yet handed out: results, whose records are parsed as they are asked for.

    No fetch is part of a cycle: it is megabytes, and a process that hardly ever looks for cycles would keep them.
    """

    def __init__(self, from_broker: Callable[[int], Micros]) -> None:
        super().__init__()
        self._from_broker = from_broker

    def __setitem__(self, at: TopicPartition, result: Any) -> None:
        if isinstance(result, FetchResult):  # else an error
            fetched = result._partition_records  # noqa: SLF001
            fetched._records_iterator = None  # noqa: SLF001 -- which refers to what it belongs to
            result._partition_records = _Messages(  # noqa: SLF001
                at,
                fetched._records,  # noqa: SLF001
                fetched.next_fetch_offset,
                self._from_broker,
            )
            result.getall = partial(_take, weakref.ref(result))
        super().__setitem__(at, result)

    def __delitem__(self, at: TopicPartition) -> None:
        """Forget a result; where it broke, have the client raise that at the next call: this one's records stay."""
        failed = getattr(self[at], "failed", None)
        super().__delitem__(at)
        if failed is not None:
            super().__setitem__(at, FetchError(error=failed, backoff=_BACKOFF_SECONDS))
            self.move_to_end(at, last=False)  # or a backlog of others would hide it


def _take(reference: Callable[[], Any], max_records: int) -> list[Message]:
    """What the client's result does when it is asked for records."""
    result = reference()
    if not result.has_more() or not result.check_assignment(result._topic_partition):  # noqa: SLF001
        return []
    messages: _Messages = result._partition_records  # noqa: SLF001
    taken = messages.take(max_records)
    result._update_position()  # noqa: SLF001
    if messages.failed is not None or messages.done:
        result.failed = messages.failed
        result._partition_records = None  # noqa: SLF001 -- the client forgets the result then
    return taken


class _Messages:
    """The records of one fetch of one partition, from an offset on; `next_fetch_offset` follows the last one taken.

    The marker that ends a transaction is a record like any other, of no meaning to whoever reads it: offsets have no hole.
    """

    def __init__(
        self, at: TopicPartition, batches: Any, offset: int, from_broker: Callable[[int], Micros]
    ) -> None:
        self._at = at
        self._batches = batches
        self._from_broker = from_broker
        self._records: Iterator[Any] = iter(())  # what is left of the batch that is being read
        self._end = offset  # of that batch
        self.failed: KafkaError | None = None
        self.next_fetch_offset = offset

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.next_fetch_offset >= self._end and not self._batches.has_next()

    def take(self, most: int) -> list[Message]:
        """Return the next records, at most so many; what can't be read ends them, and is `failed` from then on."""
        taken: list[Message] = []
        try:
            while len(taken) < most and not self.done:
                if self.next_fetch_offset >= self._end:
                    self._next_batch()
                self._parse(taken, most)
        except Exception as error:  # noqa: BLE001 -- the client's, a decompressor's, or a header's name that is no text
            self.failed = CorruptRecordException(
                f"{self._at.topic}, partition {self._at.partition}: what follows at offset {self.next_fetch_offset} "
                f"can't be read; its batch ends before offset {self._end}: {type(error).__name__}: {error}"
            )
        return taken

    def _next_batch(self) -> None:
        batch = self._batches.next_batch()
        self._end = batch.next_offset
        if not batch.validate_crc():
            raise CorruptRecordException("the batch's checksum is wrong")
        # Chained, since the client's own iterator may be asked for no second time.
        self._records = chain(batch)

    def _parse(self, taken: list[Message], most: int) -> None:
        """Add the batch's next records, up to `most`; they are parsed no sooner, since then they are in the processor's cache."""
        partition, from_broker, begin = (
            self._at.partition,
            self._from_broker,
            self.next_fetch_offset,
        )
        before = len(taken)
        try:
            taken.extend(
                Message(
                    partition,
                    record.offset,
                    from_broker(record.timestamp),
                    record.key,
                    record.value or b"",
                )
                for record in islice(self._records, most - before)
            )
            whole = len(taken) < most
        finally:
            # Also where one can't be read: what came before it, is taken.
            if len(taken) > before:
                self.next_fetch_offset = max(begin, taken[-1].offset + 1)
                if taken[before].offset < begin:  # a batch comes whole, wherever one begins
                    taken[before:] = [
                        message for message in taken[before:] if message.offset >= begin
                    ]
        if whole:
            # Of a compacted batch the last records may be gone; what follows begins after them all the same.
            self.next_fetch_offset = max(begin, self._end)


_BACKOFF_SECONDS = 0.1
