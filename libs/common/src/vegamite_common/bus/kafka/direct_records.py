"""Records as messages of ours at once, instead of by way of the client's own record class.

The client makes an object of eleven fields of every record that it has parsed, of which we need four: for small records
that was more than half of what reading costs. The client's parser, its checks and its order stay as they are; only what
it makes of a parsed record is ours.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from vegamite_common.bus.port import Message
from vegamite_common.domain.time import Micros


def read_messages(consumer: AIOKafkaConsumer, from_broker: Callable[[int], Micros]) -> None:
    """Let `getmany` of a started client, which has no position yet, return `Message`; `from_broker` tells append times."""

    def message(at: TopicPartition, record: Any) -> Message:
        return Message(
            at.partition,
            record.offset,
            from_broker(record.timestamp),
            record.key,
            record.value or b"",
        )

    consumer._fetcher._records = _Results(message)  # noqa: SLF001


class _Results(OrderedDict[TopicPartition, Any]):
    """What the client has fetched and not yet handed out: results, whose records are parsed as they are asked for."""

    def __init__(self, make: Callable[[TopicPartition, Any], Message]) -> None:
        super().__init__()
        self._make = make

    def __setitem__(self, at: TopicPartition, result: Any) -> None:
        records = getattr(result, "_partition_records", None)  # an error has none
        if records is not None:
            records._consumer_record = self._make  # noqa: SLF001
        super().__setitem__(at, result)
