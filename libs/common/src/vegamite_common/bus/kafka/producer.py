"""Writing to Kafka: each topic by a client of its own, so that one that takes nothing disturbs no other."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from vegamite_common.bus.kafka.connection import KafkaConnection
from vegamite_common.bus.kafka.topic_producer import TopicProducer, connect
from vegamite_common.bus.port import Ack, BusError, Record


class KafkaProducer:
    """The process's producer; connects for each topic on its first use and again after each of its failures."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._topics: dict[str, TopicProducer] = {}
        self._spare: AIOKafkaProducer | None = None
        self._closed = False

    async def connect(self) -> None:
        """Connect now, for the first topic that comes; raises `BusError` where one attempt fails."""
        self._spare = await connect(self._connection)

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        """Append `records` in order and return once all in-sync replicas have them.

        More than one batch can hold is sent as several, in order; `append_time` is then the last one's. Raises
        `BusError` when that isn't known within the delivery time; what else was on its way to the same topic then fails too.
        """
        if not records:
            raise ValueError("nothing to publish")
        if self._closed:
            raise BusError("the bus is not running")
        producer = self._topics.get(topic)
        if producer is None:
            spare, self._spare = self._spare, None
            producer = self._topics[topic] = TopicProducer(self._connection, topic, spare)
        return await producer.publish(partition, records)

    async def close(self) -> None:
        """Wait a little for what is on its way, then disconnect."""
        self._closed = True
        if self._spare is not None:
            await self._spare.stop()
            self._spare = None
        await asyncio.gather(*(producer.close() for producer in self._topics.values()))
