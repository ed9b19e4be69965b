"""What KafkaReader makes of what its client brings, where the client brings it with holes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition

from vegamite_common.bus.kafka.connection import KafkaConnection
from vegamite_common.bus.kafka.reader import KafkaReader
from vegamite_common.bus.port import Message, MissingRecordsError
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection

TOPIC = "market.trades.v1"


class HoledClient:
    """Brings all that its log has from each position on, as the real client does where the log lacks offsets."""

    def __init__(self, log: Mapping[int, Sequence[int]]) -> None:
        self.log = log
        self.positions: dict[int, int] = {}

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.positions = {at.partition: 0 for at in partitions}

    def seek(self, at: TopicPartition, offset: int) -> None:
        self.positions[at.partition] = offset

    async def stop(self) -> None:
        """There is nothing to end."""

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Message]]:
        brought = {}
        for partition, position in self.positions.items():
            offsets = [offset for offset in self.log[partition] if offset >= position]
            if offsets:
                self.positions[partition] = offsets[-1] + 1
                brought[TopicPartition(TOPIC, partition)] = [
                    Message(partition, offset, 1, None, b"") for offset in offsets
                ]
        return brought


async def reader_of(monkeypatch: pytest.MonkeyPatch, client: HoledClient) -> KafkaReader:
    monkeypatch.setattr(KafkaReader, "_new_consumer", lambda _: client)
    connection = KafkaConnection(KafkaSection(bootstrap_servers="127.0.0.1:1"), SystemClock())
    reader = KafkaReader(connection, TOPIC, 2)
    await reader.seek(dict.fromkeys(client.log, 10))
    return reader


async def polled(
    reader: KafkaReader, polls: int
) -> tuple[dict[int, list[int]], list[tuple[int, int, int]]]:
    got: dict[int, list[int]] = {}
    missing = []
    for _ in range(polls):
        try:
            for item in await reader.poll(max_records=100, timeout=0):
                got.setdefault(item.partition, []).extend(m.offset for m in item.messages)
        except MissingRecordsError as error:
            missing.append((error.partition, error.offset, error.next_offset))
    return got, missing


async def test_what_came_with_a_hole_in_another_partition_is_delivered_before_the_hole_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = HoledClient({0: [], 1: [12, 13]})
    reader = await reader_of(monkeypatch, client)
    assert await polled(reader, 1) == ({}, [])
    client.log = {0: [10, 11], 1: [12, 13]}
    assert await polled(reader, 1) == ({0: [10, 11]}, [])
    assert await polled(reader, 1) == ({}, [(1, 10, 12)])
    await reader.close()


async def test_a_hole_is_told_each_time_it_is_met_and_a_seek_passes_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = await reader_of(monkeypatch, HoledClient({0: [10, 11, 14, 15]}))
    got, missing = await polled(reader, 5)
    assert got == {0: [10, 11]}
    assert len(missing) > 1
    assert set(missing) == {(0, 12, 14)}
    await reader.seek({0: 14})
    assert await polled(reader, 1) == ({0: [14, 15]}, [])
    await reader.close()
