"""What the client's own results bring when their records become messages directly: parsed by the client, in order, once."""

import gc
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import zstd_encode
from aiokafka.consumer.fetcher import (
    READ_UNCOMMITTED,
    Fetcher,
    FetchError,
    FetchResult,
    PartitionRecords,
)
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


def batch(
    base: int,
    *offsets: int,
    last: int | None = None,
    compression: int = 0,
    headers: Mapping[int, list[tuple[str, bytes]]] | None = None,
) -> bytearray:
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
        builder.append(offset - base, 1_000 + offset, key, value, (headers or {}).get(offset, []))
    encoded = builder.build()
    if last is not None:
        encoded[23:27] = (last - base).to_bytes(4, "big")
    encoded[0:8] = base.to_bytes(8, "big")
    return checked(encoded)


def compressed(encoded: bytearray) -> bytearray:
    """Compress the records of a batch that aren't."""
    packed = bytearray(encoded[:61] + zstd_encode(bytes(encoded[61:])))
    packed[ATTRIBUTES + 1] |= ZSTD
    packed[8:12] = (len(packed) - 12).to_bytes(4, "big")
    return packed


def checked(encoded: bytearray) -> bytearray:
    """Write the checksum anew, which doesn't speak of the base offset."""
    encoded[17:21] = calc_crc32c(memoryview(encoded)[21:]).to_bytes(4, "big")
    return encoded


class Client:
    """The part of the client that `getmany` asks: its own code, over partitions' states of ours."""

    def __init__(self, **positions: int) -> None:
        self.states = {int(name[1:]): State(at) for name, at in positions.items()}
        self.assignment = SimpleNamespace(
            active=True, state_value=lambda at: self.states[at.partition]
        )
        self._subscriptions = SimpleNamespace(reassignment_in_progress=False)
        self._wait_consume_future = None
        self._records: Any = None
        consumer: Any = SimpleNamespace(_fetcher=self)
        read_messages(consumer, lambda milliseconds: milliseconds * 1000)

    def _notify(self, future: None) -> None:
        """Nobody waits."""

    def brings(self, partition: int, *batches: bytearray) -> Any:
        """Take what was fetched of a partition from its position on; return the client's own result."""
        at = TopicPartition("market.trades.v1", partition)
        position = self.states[partition].position
        records = MemoryRecords(b"".join(batches))
        self._records[at] = FetchResult(
            at,
            assignment=self.assignment,
            partition_records=PartitionRecords(
                at, records, [], position, None, None, True, READ_UNCOMMITTED
            ),
            backoff=0.1,
        )
        assert type(self._records[at]) is FetchResult  # the client asks
        return self._records[at]

    async def getmany(self, most: int = 100) -> dict[int, list[int]]:
        """Return the offsets that come, by partition."""
        client: Any = self
        brought = await Fetcher.fetched_records(client, (), 0, most)
        return {at.partition: [each.offset for each in some] for at, some in brought.items()}


def fetched(*batches: bytearray, position: int) -> tuple[Any, State]:
    """Return the client's result of a fetch from `position` on, and its partition's state."""
    client = Client(p3=position)
    return client.brings(3, *batches), client.states[3]


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


def test_the_marker_of_a_transaction_leaves_no_hole() -> None:
    marker = batch(6, 6)
    marker[ATTRIBUTES + 1] |= CONTROL
    result, state = fetched(batch(4, 4, 5), checked(marker), batch(7, 7), position=4)
    assert [each.offset for each in result.getall(10)] == [4, 5, 6, 7]
    assert state.position == 8
    assert not result.has_more()


@pytest.mark.parametrize("compression", [0, ZSTD])
@pytest.mark.parametrize("most", [1, 3, 10])
async def test_a_broken_batch_is_told_of_after_what_came_before_it_and_elsewhere(
    compression: int, most: int
) -> None:
    broken = batch(6, 6, 7, compression=compression)
    broken[-3] ^= 1
    client = Client(p2=6, p3=4, p4=6)
    client.brings(2, batch(6, 6))
    client.brings(3, batch(4, 4, 5), broken, batch(8, 8))
    client.brings(4, batch(6, 6))
    got: dict[int, list[int]] = {2: [], 3: [], 4: []}
    told = 0
    for _ in range(8):
        try:
            for partition, offsets in (await client.getmany(most)).items():
                got[partition] += offsets
        except CorruptRecordException as error:
            told += "market.trades.v1, partition 3" in str(error)
    assert got == {2: [6], 3: [4, 5], 4: [6]}
    assert told == 1
    assert client.states[3].position == 6
    assert not client._records  # so it is fetched again, from where it broke


@pytest.mark.parametrize("compression", [0, ZSTD])
async def test_a_record_that_is_nonsense_is_an_error_after_those_before_it(
    compression: int,
) -> None:
    headers = {6: [("name", b"value")]}
    nonsense = batch(4, 4, 5, 6, 7, headers=headers)
    at = nonsense.index(b"name")
    nonsense[at] = 0xFF  # which no text begins with
    if compression:
        nonsense = compressed(nonsense)
    client = Client(p3=4)
    client.brings(3, checked(nonsense))
    assert await client.getmany() == {3: [4, 5]}
    with pytest.raises(CorruptRecordException, match=r"offset 6 .* before offset 8"):
        await client.getmany()
    assert client.states[3].position == 6
    assert await client.getmany() == {}


async def test_a_batch_whose_bytes_are_no_records_is_an_error_and_no_end() -> None:
    nonsense = batch(4, 4, 5)
    nonsense[61:] = b"\x01" * (len(nonsense) - 61)
    client = Client(p3=4)
    client.brings(3, checked(nonsense))
    assert await client.getmany() == {}
    with pytest.raises(CorruptRecordException):
        await client.getmany()
    assert client.states[3].position == 4


async def test_what_was_fetched_is_given_back_without_a_search_for_cycles() -> None:
    broken = batch(4, 4)
    broken[-3] ^= 1
    gc.collect()
    gc.disable()
    try:
        client = Client(p3=4)
        client.brings(3, batch(4, 4, 5, 6), batch(7, 7))
        assert await client.getmany() == {3: [4, 5, 6, 7]}
        client.states[3].position = 4
        client.brings(3, batch(4, 4, 5, 6))
        client.states[3].position = 7  # so what is there is thrown away
        assert await client.getmany() == {}
        client.brings(3, batch(7, 7, 8))
        assert await client.getmany(1) == {3: [7]}
        del client._records[AT]  # as a seek does
        client.states[3].position = 4
        client.brings(3, broken)
        assert await client.getmany() == {}
        with pytest.raises(CorruptRecordException):
            await client.getmany()
        kept = [
            each for each in gc.get_objects() if isinstance(each, FetchResult | PartitionRecords)
        ]
        assert kept == []
    finally:
        gc.enable()


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
