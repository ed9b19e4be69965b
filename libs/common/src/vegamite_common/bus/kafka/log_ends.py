"""Where the partitions of a topic begin and end, asked on a connection of its own.

On the connection that fetches, a question would wait behind a fetch that waits for records.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from vegamite_common.bus.kafka.connection import OPERATIONAL, KafkaConnection, faults
from vegamite_common.bus.port import BusError
from vegamite_common.domain.time import Micros
from vegamite_common.runtime.logging import RepeatedFault

CONFIRM_SECONDS = 0.2
"""How often the ends are asked for; a fetch counts as fresh for a second."""

_STOP_SECONDS = 3.0


class LogEnds:
    """Asks when told to, and a few times a second for the partitions that `watched` names.

    `confirmed` has each one's end and the instant, on the connection's clock, before the question was sent: a process
    that was stopped in between never takes an old answer for a new one. `error` is the failure of the last question.
    """

    def __init__(
        self, connection: KafkaConnection, topic: str, watched: Callable[[], Collection[int]]
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._watched = watched
        self._client = AIOKafkaConsumer(
            **connection.arguments(), group_id=None, enable_auto_commit=False
        )
        self._asking: asyncio.Task[None] | None = None
        self._fault = RepeatedFault(
            "reading from Kafka fails", over="reading from Kafka works again", topic=topic
        )
        self.confirmed: dict[int, tuple[int, Micros]] = {}
        self.error: BaseException | None = None

    async def start(self) -> None:
        """Connect and begin to watch; raises `BusError`."""
        await start_consumer(self._client, self._connection, self._topic)
        self._asking = asyncio.create_task(self._watch(), name=f"ends {self._topic}")

    async def begins(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset of each partition's oldest record, or its end; raises `BusError`."""
        with faults(f"asking where {self._topic} begins"):
            async with asyncio.timeout(self._connection.request_seconds):
                found = await self._client.beginning_offsets(self._at(partitions))
        return {at.partition: offset for at, offset in found.items()}

    async def ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset that each partition's next record will get; raises `BusError`."""
        with faults(f"asking where {self._topic} ends"):
            async with asyncio.timeout(self._connection.request_seconds):
                found = await self._client.end_offsets(self._at(partitions))
        return {at.partition: offset for at, offset in found.items()}

    def check(self) -> None:
        """Raise the bug that ended the watch, if one did."""
        task = self._asking
        if task is not None and task.done() and not task.cancelled():
            task.result()

    async def close(self) -> None:
        """Stop watching and disconnect."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await stop_consumer(self._client)

    def _at(self, partitions: Sequence[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]

    async def _watch(self) -> None:
        while True:
            partitions = list(self._watched())
            if partitions:
                await self._confirm(partitions)
            await asyncio.sleep(CONFIRM_SECONDS)

    async def _confirm(self, partitions: list[int]) -> None:
        asked = self._connection.clock.now()
        try:
            ends = await self.ends(partitions)
        except BusError as error:
            self.error = error.__cause__ or error
            self._fault.failed(self.error)
            return
        self.error = None
        self._fault.went_well()
        for partition, end in ends.items():
            self.confirmed[partition] = (end, asked)


async def start_consumer(
    consumer: AIOKafkaConsumer, connection: KafkaConnection, topic: str
) -> None:
    """Start a client that reads a topic; raises `BusError`."""
    with faults(f"reading {topic}"):
        try:
            async with asyncio.timeout(connection.request_seconds):
                await consumer.start()
        except BaseException:
            await consumer.stop()
            raise


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a client, without waiting long for a cluster that is away."""
    stopping = asyncio.ensure_future(consumer.stop())
    done, _ = await asyncio.wait({stopping}, timeout=_STOP_SECONDS)
    if not done:
        stopping.cancel()
        # What the client still tries in the background ends without its connections.
        await consumer._client.close()  # noqa: SLF001
    elif stopping.exception() is not None and not isinstance(stopping.exception(), OPERATIONAL):
        stopping.result()
