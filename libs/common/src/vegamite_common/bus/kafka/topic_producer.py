"""Writing to one topic: idempotent, acks=all, one batch a call, never longer than the delivery time.

An idempotent client retries for ever, in order, and numbers what it sends. So when a batch is not acknowledged in time, or
is refused, the whole client is thrown away with everything it holds: what it still had may or may not have been appended,
its callers get a `BusError`, and the next call begins with a new producer id.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from vegamite_common.bus.kafka.connection import OPERATIONAL, KafkaConnection, describe
from vegamite_common.bus.port import Ack, BusError, Record
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.logging import RepeatedFault

_CLOSE_SECONDS = 3.0
_END_SECONDS = 1.0


class TopicProducer:
    """The process's producer for one topic; connects on the first use and again after each failure."""

    def __init__(
        self, connection: KafkaConnection, topic: str, client: AIOKafkaProducer | None
    ) -> None:
        """Begin, with a client that is connected already where there is one; it is then this producer's alone."""
        self._connection = connection
        self._topic = topic
        self._delivery_seconds = connection.section.delivery_timeout_ms / 1000
        self._client = client
        self._connecting: asyncio.Task[AIOKafkaProducer] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._order: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._fault = RepeatedFault(
            "publishing to Kafka fails", over="publishing to Kafka works again", topic=topic
        )

    async def publish(self, partition: int, records: Sequence[Record]) -> Ack:
        """Append `records`, of which there is one at least, as `KafkaProducer.publish` promises."""
        topic = self._topic
        client: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(self._delivery_seconds):
                client = await self._connected()
                acks = await self._send(client, partition, records)
        except (*OPERATIONAL, BusError) as error:
            self._fault.failed(describe(error))
            if client is not None:
                self._abandon(client)
            raise BusError(
                f"Kafka, publishing to {topic}, partition {partition}: {describe(error)}"
            ) from error
        self._fault.went_well()
        return Ack(
            partition,
            acks[0].offset,
            len(records),
            self._connection.from_broker(acks[-1].timestamp),
        )

    async def close(self) -> None:
        """Wait a little for what is on its way, then disconnect."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._client is not None:
            client, self._client = self._client, None
            stopping = asyncio.ensure_future(client.stop())
            await asyncio.wait({stopping}, timeout=_CLOSE_SECONDS)
            if not stopping.done():
                stopping.cancel()
                self._abandon(client)
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _send(
        self, client: AIOKafkaProducer, partition: int, records: Sequence[Record]
    ) -> list[RecordMetadata]:
        topic = self._topic
        if partition not in await client.partitions_for(topic):
            raise BusError(f"topic {topic} has no partition {partition}")
        async with self._order[partition]:
            # The client itself lets a late caller overtake one that waits for room.
            sent = [
                await client.send_batch(batch, topic, partition=partition)
                for batch in _batches(client, records)
            ]
        acks: list[RecordMetadata] = await asyncio.gather(*sent)
        for ack in acks:
            if ack.offset < 0:
                raise BusError("appended twice over, at an offset that the broker no longer knows")
            if ack.timestamp_type != 1:
                raise BusError("the topic's message.timestamp.type is not LogAppendTime")
        return acks

    async def _connected(self) -> AIOKafkaProducer:
        if self._client is not None:
            return self._client
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect_patiently(), name="kafka-connect")
            self._connecting.add_done_callback(_read_exception)
        return await asyncio.shield(self._connecting)

    async def _connect_patiently(self) -> AIOKafkaProducer:
        """Try again and again for one delivery time."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
        deadline = asyncio.get_running_loop().time() + self._delivery_seconds
        while True:
            try:
                self._client = await connect(self._connection)
                return self._client
            except BusError as error:
                self._fault.failed(error)
                delay = backoff.next_delay()
                if asyncio.get_running_loop().time() + delay > deadline:
                    raise
                await asyncio.sleep(delay)

    def _abandon(self, client: AIOKafkaProducer) -> None:
        """Fail what the client still holds and end it behind our back."""
        if self._client is client:
            self._client = None
        _fail_batches(client)
        task = asyncio.create_task(_end(client), name="kafka-producer-end")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def connect(connection: KafkaConnection) -> AIOKafkaProducer:
    """Return a client that is connected; raises `BusError` where one attempt fails."""
    section = connection.section
    client = AIOKafkaProducer(
        **connection.arguments(),
        acks="all",
        enable_idempotence=True,
        compression_type=None if section.compression == "none" else section.compression,
        max_batch_size=section.batch_max_bytes,
        linger_ms=0,
    )
    try:
        async with asyncio.timeout(connection.request_seconds):
            await client.start()
    except OPERATIONAL as error:
        await client.stop()
        raise BusError(f"Kafka, connecting: {describe(error)}") from error
    except asyncio.CancelledError:
        await client.stop()
        raise
    return client


async def _end(client: AIOKafkaProducer) -> None:
    # Connections first: nothing that is still in the machine's memory may go out later.
    await client.client.close()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await client.stop()
    except (*OPERATIONAL, KeyError):
        # KeyError: its sender tries to queue a batch again that we failed above.
        pass


def _fail_batches(client: AIOKafkaProducer) -> None:
    """Give up what the client holds. There is no public way: an idempotent one goes on until all is appended."""
    accumulator = client._message_accumulator  # noqa: SLF001
    accumulator.fail_all(KafkaConnectionError("given up after another batch failed"))
    waiting = chain.from_iterable(accumulator._batches.values())  # noqa: SLF001
    for batch in chain(accumulator._pending_batches, waiting):  # noqa: SLF001
        for future in (batch.future, batch._drain_waiter):  # noqa: SLF001
            if future.done():
                # Read, or asyncio complains of an exception that nobody took.
                future.exception()


def _batches(client: AIOKafkaProducer, records: Sequence[Record]) -> list[BatchBuilder]:
    batch = client.create_batch()
    batches = [batch]
    for key, value in records:
        if batch.append(key=key, value=value, timestamp=None) is None:
            batch = client.create_batch()
            batches.append(batch)
            batch.append(key=key, value=value, timestamp=None)
    for item in batches:
        item.close()
    return batches


def _read_exception(task: asyncio.Task[AIOKafkaProducer]) -> None:
    if not task.cancelled():
        task.exception()
