"""The bus over a Kafka cluster: one producer (a client for each topic), any number of readers and members."""

import asyncio
from collections.abc import Sequence

from vegamite_common.bus.kafka.connection import KafkaConnection
from vegamite_common.bus.kafka.member import KafkaMember
from vegamite_common.bus.kafka.producer import KafkaProducer
from vegamite_common.bus.kafka.reader import KafkaReader
from vegamite_common.bus.kafka.topics import check_topics, count_partitions, create_topics
from vegamite_common.bus.port import BusError, TopicSpec
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.logging import RepeatedFault
from vegamite_common.runtime.section import KafkaSection


class KafkaBus:
    """A connection of this process to the cluster that `section` describes; append times are on `clock`."""

    def __init__(self, section: KafkaSection, clock: Clock) -> None:
        self._connection = KafkaConnection(section, clock)
        self._producer: KafkaProducer | None = None
        self._readers: list[KafkaReader] = []
        self._counts: dict[str, int] = {}

    async def start(self) -> None:
        """Connect, waiting `start_timeout_ms` for a cluster that isn't there yet; then raise `BusError`."""
        producer = KafkaProducer(self._connection)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connection.section.start_timeout_ms / 1000
        backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
        fault = RepeatedFault("waiting for Kafka", over="Kafka is there")
        while True:
            try:
                await producer.connect()
            except BusError as error:
                delay = backoff.next_delay()
                if loop.time() + delay > deadline:
                    raise
                fault.failed(error)
                await asyncio.sleep(delay)
            else:
                fault.went_well()
                self._producer = producer
                return

    async def close(self) -> None:
        """Leave the groups, stop reading, flush what was accepted and disconnect."""
        readers, self._readers = self._readers, []
        await asyncio.gather(*(reader.close() for reader in readers))
        if self._producer is not None:
            await self._producer.close()

    async def partition_count(self, topic: str) -> int:
        """Return how many partitions the topic has; raise `BusError` where it doesn't exist."""
        if topic not in self._counts:
            # A topic's number of partitions never changes (a larger topic is a new log epoch).
            self._counts = await count_partitions(self._connection)
        if topic not in self._counts:
            raise BusError(f"topic {topic} does not exist")
        return self._counts[topic]

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that don't exist yet, with append times set by the log; raise `BusError` on failure."""
        await create_topics(self._connection, specs)

    async def check_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Raise `BusError`, naming topic and setting, unless each topic exists as it has to."""
        await check_topics(self._connection, specs)

    def producer(self) -> KafkaProducer:
        """Return the process's producer."""
        if self._producer is None:
            raise BusError("the bus is not running")
        return self._producer

    async def reader(self, topic: str) -> KafkaReader:
        """Return a new reader of the topic, which reads nothing yet."""
        reader = KafkaReader(self._connection, topic, await self.partition_count(topic))
        await reader.start()
        self._readers.append(reader)
        return reader

    async def join(self, topic: str, group: str, *, fetch: bool = True) -> KafkaMember:
        """Join the consumer group for the topic; the assignment comes by `assignment_changed`."""
        count = await self.partition_count(topic)
        member = KafkaMember(self._connection, topic, count, group=group, fetch=fetch)
        await member.start()
        self._readers.append(member)
        return member
