"""What the client's own results bring when their records become messages directly: parsed by the client, in order, once."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, FetchError, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, TopicAuthorizationFailedError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from vegamite_common.bus.kafka.direct_records import read_messages
from vegamite_common.bus.port import Message

AT = TopicPartition("market.trades.v1", 3)
ZSTD = 4
CONTROL = 0x20
ATTRIBUTES = 21  # where a batch has them


class State:
    """A partition's, as the client keeps it."""

    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, position: int) -> None:
        self.position = position


def batch(base: int, *offsets: int, last: int | None = None, compression: int = 0) -> bytearray:
    """Encode records of these offsets, in a batch from `base` to `last`."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000_000,
    )
    for offset in offsets:
        key = None if offset % 2 else b"key"
        value = None if offset == 13 else b"value %d" % offset
        builder.append(offset - base, 1_000 + offset, key, value, [])
    encoded = builder.build()
    if last is not None:
        encoded[23:27] = (last - base).to_bytes(4, "big")
    encoded[0:8] = base.to_bytes(8, "big")
    return checked(encoded)


def checked(encoded: bytearray) -> bytearray:
    """Write the checksum anew, which doesn't speak of the base offset."""
    encoded[17:21] = calc_crc32c(memoryview(encoded)[21:]).to_bytes(4, "big")
    return encoded


def fetched(*batches: bytearray, position: int) -> tuple[Any, State]:
    """Return the client's result of a fetch from `position` on, as `getmany` has it, and its partition's state."""
    state = State(position)
    consumer: Any = SimpleNamespace(_fetcher=SimpleNamespace(_records=None))
    read_messages(consumer, lambda milliseconds: milliseconds * 1000)
    results = consumer._fetcher._records
    results[AT] = FetchResult(
        AT,
        assignment=SimpleNamespace(active=True, state_value=lambda _: state),
        partition_records=PartitionRecords(
            AT, MemoryRecords(b"".join(batches)), [], position, None, None, True, READ_UNCOMMITTED
        ),
        backoff=0.1,
    )
    assert type(results[AT]) is FetchResult  # the client asks
    return results[AT], state


def message(offset: int) -> Message:
    key = None if offset % 2 else b"key"
    return Message(3, offset, (1_000 + offset) * 1000, key, b"value %d" % offset)


@pytest.mark.parametrize("compression", [0, ZSTD])
@pytest.mark.parametrize("most", [1, 2, 3, 4, 100])
def test_all_records_come_once_and_in_order(most: int, compression: int) -> None:
    parts = [
        batch(first, *range(first, first + 3), compression=compression) for first in (4, 7, 10)
    ]
    result, state = fetched(*parts, position=4)
    got: list[Message] = []
    while result.has_more():
        some = result.getall(most)
        got += some
        assert len(some) <= most
        assert state.position == got[-1].offset + 1
    assert got == [message(offset) for offset in range(4, 13)]
    assert result.getall(most) == []


def test_what_is_before_the_position_is_not_brought() -> None:
    result, state = fetched(batch(4, 4, 5, 6), batch(7, 7), position=6)
    assert result.getall(1) == [message(6)]
    assert result.getall(10) == [message(7)]
    assert state.position == 8


def test_the_end_of_a_compacted_batch_and_a_record_without_a_value() -> None:
    result, state = fetched(batch(10, 11, 13, last=19), batch(20, 22, last=22), position=10)
    first, second, third = result.getall(10)
    assert (first, third) == (message(11), message(22))
    assert (second.offset, second.value) == (13, b"")
    assert state.position == 23
    assert not result.has_more()


def test_a_batch_without_records_moves_the_position() -> None:
    control = batch(4, 4, 5)
    control[ATTRIBUTES + 1] |= CONTROL
    result, state = fetched(checked(control), position=4)
    assert result.getall(10) == []
    assert state.position == 6
    assert not result.has_more()


@pytest.mark.parametrize("compression", [0, ZSTD])
def test_a_broken_batch_is_told_of_after_what_came_before_it(compression: int) -> None:
    broken = batch(6, 6, 7, compression=compression)
    broken[-3] ^= 1
    result, state = fetched(batch(4, 4, 5), broken, batch(8, 8), position=4)
    assert result.getall(10) == [message(4), message(5)]
    assert result.has_more()
    with pytest.raises(CorruptRecordException):
        result.getall(10)
    assert state.position == 6
    assert result.getall(10) == []
    assert not result.has_more()  # so it is fetched again, from where it broke


def test_a_batch_whose_records_are_nonsense_is_an_error_and_no_end() -> None:
    nonsense = batch(4, 4, 5)
    nonsense[61:] = b"\x01" * (len(nonsense) - 61)
    result, state = fetched(checked(nonsense), position=4)
    with pytest.raises(CorruptRecordException):
        result.getall(10)
    assert state.position == 4
    assert result.getall(10) == []
    assert not result.has_more()


def test_nothing_of_a_partition_that_moved_meanwhile() -> None:
    result, state = fetched(batch(4, 4), position=4)
    state.position = 100
    assert result.getall(10) == []
    assert state.position == 100
    assert not result.has_more()


def test_an_error_stays_the_clients() -> None:
    consumer: Any = SimpleNamespace(_fetcher=SimpleNamespace(_records=None))
    read_messages(consumer, lambda milliseconds: milliseconds)
    error = FetchError(error=TopicAuthorizationFailedError("no"), backoff=0.1)
    consumer._fetcher._records[AT] = error
    assert consumer._fetcher._records[AT] is error
