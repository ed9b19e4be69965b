"""KafkaBus while its broker is killed, stopped or not there yet; a broker of its own."""

import asyncio
import os
import random
import signal
import threading
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError, Message, Reader
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.bus_contract import ALL, assigned, numbered, numbers, read, spec_of
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.kafka import KafkaServer


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaServer]:
    with KafkaServer({"log.initial.task.delay.ms": "500"}) as server:
        yield server


def section(broker: KafkaServer, **settings: object) -> KafkaSection:
    return KafkaSection.model_validate({"bootstrap_servers": broker.bootstrap, **settings})


@pytest.fixture
async def bus(broker: KafkaServer) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(
        section(broker, request_timeout_ms=2000, delivery_timeout_ms=3000), SystemClock()
    )
    await bus.start()
    yield bus
    await bus.close()


@pytest.fixture
async def topic(bus: KafkaBus) -> str:
    name = f"faults-{uuid.uuid4().hex}"
    await bus.create_topics([spec_of(name)])
    return name


class Writer:
    """Publishes 0, 1, 2, … to one partition, one record a call, and notes where each acknowledged one went."""

    def __init__(self, bus: KafkaBus, topic: str, partition: int) -> None:
        self._producer = bus.producer()
        self._topic = topic
        self._partition = partition
        self.acked: dict[int, int] = {}
        self.failures = 0
        self._next = 0

    async def write(self) -> bool:
        """Publish the next number; False where that isn't known to have gone well."""
        number, self._next = self._next, self._next + 1
        try:
            ack = await self._producer.publish(self._topic, self._partition, numbered(number, 1))
        except BusError:
            self.failures += 1
            return False
        self.acked[number] = ack.base_offset
        return True

    async def write_for_ever(self) -> None:
        while True:
            await self.write()


async def everything(bus: KafkaBus, topic: str, partition: int) -> list[Message]:
    reader = await bus.reader(topic)
    end = (await reader.end_offsets([partition]))[partition]
    await reader.seek({partition: 0})
    messages = await read(reader, end)
    await reader.close()
    return messages


def check(writer: Writer, messages: list[Message]) -> None:
    stored = {message.offset: int(message.value) for message in messages}
    lost = {number: at for number, at in writer.acked.items() if stored.get(at) != number}
    assert lost == {}, f"acknowledged and not where the ack said: {lost}"
    values = numbers(messages)
    assert values == sorted(set(values)), "every number at most once, in the order of the calls"


async def all_go_on(writers: list[Writer], *, by: int = 50) -> None:
    """Wait until each writer has so many more acknowledged."""
    goals = [len(writer.acked) + by for writer in writers]

    def reached() -> bool:
        return all(len(writer.acked) >= goal for writer, goal in zip(writers, goals, strict=True))

    await eventually(reached, timeout_s=60, message=f"{by} more acknowledged to each writer")


async def in_thread(work: object) -> None:
    """Run what blocks (a broker's start) beside the loop."""
    assert callable(work)
    thread = threading.Thread(target=work)
    thread.start()
    await eventually(lambda: not thread.is_alive(), timeout_s=60)


async def test_no_acknowledged_record_is_lost_when_the_broker_is_killed(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    writers = [Writer(bus, topic, partition) for partition in (0, 1)]
    tasks = [asyncio.create_task(writer.write_for_ever()) for writer in writers]
    for _ in range(2):
        await all_go_on(writers)
        broker.kill()
        await in_thread(broker.start)
    await all_go_on(writers)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for partition, writer in enumerate(writers):
        check(writer, await everything(bus, topic, partition))


async def test_publishing_to_a_stopped_broker_fails_in_time_and_works_again_after(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    writer = Writer(bus, topic, 0)
    assert await writer.write()
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            assert not await writer.write()
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    await eventually(writer.write, timeout_s=60)
    assert await writer.write()
    stored = {message.offset: int(message.value) for message in await everything(bus, topic, 0)}
    assert {number: stored.get(at) for number, at in writer.acked.items()} == {
        number: number for number in writer.acked
    }


async def test_one_failed_batch_fails_the_others_that_were_on_their_way(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    producer = bus.producer()
    await producer.publish(topic, 0, numbered(0, 1))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        results = await asyncio.gather(
            *(producer.publish(topic, at % 2, numbered(at, 1)) for at in range(1, 9)),
            return_exceptions=True,
        )
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert {type(result) for result in results} == {BusError}


async def test_a_topic_that_refuses_its_records_disturbs_no_other(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    narrow = f"narrow-{uuid.uuid4().hex}"
    await bus.create_topics([spec_of(narrow)])
    await configure(
        broker, narrow, {"max.message.bytes": "200", "message.timestamp.type": "LogAppendTime"}
    )
    writers = [Writer(bus, topic, partition) for partition in (0, 1)]
    tasks = [asyncio.create_task(writer.write_for_ever()) for writer in writers]
    for _ in range(10):
        await all_go_on(writers, by=5)
        with pytest.raises(BusError, match=narrow):
            await bus.producer().publish(narrow, 0, [(b"k", random.randbytes(2000))])
    await all_go_on(writers, by=5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert [writer.failures for writer in writers] == [0, 0]
    assert (await bus.producer().publish(narrow, 0, numbered(0, 1))).base_offset == 0


async def test_a_reader_says_that_the_broker_is_away_and_goes_on_without_a_hole(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    await bus.producer().publish(topic, 0, numbered(0, 10))
    reader = await bus.reader(topic)
    await reader.seek({0: 0})
    assert numbers(await read(reader, 10)) == list(range(10))
    broker.kill()

    async def away() -> bool:
        try:
            await reader.poll(max_records=10, timeout=0.1)
        except BusError:
            return True
        return False

    await eventually(away, timeout_s=30)
    await in_thread(broker.start)
    await eventually(lambda: published(bus, topic, numbered(10, 5)), timeout_s=60)
    assert numbers(await read_through(reader, 5))[:5] == list(range(10, 15))


async def test_a_client_that_brings_nothing_is_replaced_and_no_record_is_missed(
    broker: KafkaServer,
) -> None:
    bus = KafkaBus(section(broker, request_timeout_ms=500), SystemClock())
    await bus.start()
    topic = f"stuck-{uuid.uuid4().hex}"
    await bus.create_topics([spec_of(topic)])
    reader = await bus.reader(topic)
    await reader.seek({0: 0})
    await bus.producer().publish(topic, 0, numbered(0, 5))
    assert numbers(await read(reader, 5)) == list(range(5))
    # What an error inside the client does: its fetching ends, and nobody is told.
    reader._consumer._fetcher._fetch_task.cancel()
    await bus.producer().publish(topic, 0, numbered(5, 5))
    with structlog.testing.capture_logs() as told:
        assert numbers(await read(reader, 5)) == list(range(5, 10))
    assert [line["event"] for line in told] == ["the Kafka client brings no records; replaced"]
    await bus.close()


async def test_a_member_whose_owner_does_not_read_loses_its_partitions(
    broker: KafkaServer, topic: str
) -> None:
    bus = KafkaBus(section(broker, max_poll_interval_ms=1500), SystemClock())
    await bus.start()
    stuck = await bus.join(topic, f"group-{topic}")
    await assigned(stuck, ALL)
    moving = await bus.join(topic, f"group-{topic}")

    async def has_all() -> bool:
        await moving.poll(max_records=1, timeout=0.05)
        return moving.assignment == ALL

    await eventually(has_all, timeout_s=60)
    await eventually(lambda: stuck.assignment is None)

    async def shared() -> bool:
        for member in (stuck, moving):
            await member.poll(max_records=1, timeout=0.05)
        return all(len(member.assignment or ()) == 2 for member in (stuck, moving))

    await eventually(shared, timeout_s=60, message="who reads again is a member again")
    await bus.close()


async def test_a_member_has_its_partitions_again_after_the_broker_was_killed(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    member = await bus.join(topic, f"group-{topic}")
    await assigned(member, ALL)
    await member.seek(dict.fromkeys(ALL, 0))
    await bus.producer().publish(topic, 2, numbered(0, 3))
    assert numbers(await read(member, 3)) == [0, 1, 2]
    broker.kill()
    await in_thread(broker.start)
    await eventually(lambda: published(bus, topic, numbered(3, 3), partition=2), timeout_s=60)
    await eventually(lambda: member.assignment == ALL, timeout_s=60)
    await member.seek({2: 3})
    assert numbers(await read_through(member, 3))[:3] == [3, 4, 5]


async def published(
    bus: KafkaBus, topic: str, records: list[tuple[bytes | None, bytes]], *, partition: int = 0
) -> bool:
    try:
        await bus.producer().publish(topic, partition, records)
    except BusError:
        return False
    return True


async def read_through(reader: Reader, count: int) -> list[Message]:
    """As `read`, through faults."""
    got: list[Message] = []

    async def enough() -> bool:
        try:
            fetched = await reader.poll(max_records=1000, timeout=0.2)
        except BusError:
            return False
        got.extend(message for item in fetched for message in item.messages)
        return len(got) >= count

    await eventually(enough, timeout_s=60)
    return got


async def test_a_broker_that_comes_late_is_waited_for_and_told_once() -> None:
    server = KafkaServer()
    bus = KafkaBus(section(server, start_timeout_ms=60_000), SystemClock())
    try:
        with structlog.testing.capture_logs() as lines:
            starting = asyncio.create_task(bus.start())
            await eventually(
                lambda: [line for line in lines if line["event"] == "waiting for Kafka"]
            )
            await in_thread(server.start)
            await starting
        told = [
            line["event"]
            for line in lines
            if line["event"] in ("waiting for Kafka", "Kafka is there")
        ]
        assert told == ["waiting for Kafka", "Kafka is there"]
    finally:
        await bus.close()
        server.close()


async def test_a_broker_that_never_comes_is_an_error() -> None:
    server = KafkaServer()
    bus = KafkaBus(section(server, start_timeout_ms=300), SystemClock())
    try:
        with pytest.raises(BusError, match="connecting"):
            await bus.start()
    finally:
        await bus.close()
        server.close()


async def test_records_that_expired_move_the_begin_and_are_out_of_range(
    bus: KafkaBus, broker: KafkaServer
) -> None:
    name = f"expiring-{uuid.uuid4().hex}"
    await bus.create_topics([spec_of(name)])
    producer = bus.producer()
    await producer.publish(name, 0, numbered(0, 10))
    reader = await bus.reader(name)
    await reader.seek({0: 0})
    await read(reader, 10)
    await shorten_retention(broker, name)
    await eventually(lambda: begins(reader), timeout_s=60, message="the log begins at its end")
    await producer.publish(name, 0, numbered(10, 2))
    await reader.seek({0: 4})
    with pytest.raises(BusError, match="offset 4 is outside the log"):
        await read(reader, 1)


async def begins(reader: Reader) -> bool:
    return await reader.begin_offsets([0]) == {0: 10}


async def shorten_retention(broker: KafkaServer, topic: str) -> None:
    await configure(broker, topic, {"retention.ms": "1", "message.timestamp.type": "LogAppendTime"})


async def configure(broker: KafkaServer, topic: str, settings: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])
    finally:
        await admin.close()


async def test_a_topic_that_is_not_as_it_has_to_be_is_named_with_its_setting(
    bus: KafkaBus, topic: str, broker: KafkaServer
) -> None:
    await bus.check_topics([spec_of(topic)])
    await shorten_retention(broker, topic)

    async def refused() -> bool:
        try:
            await bus.check_topics([spec_of(topic)])
        except BusError as error:
            return f"{topic}: retention.ms is 1, at least 3600000 is needed" in str(error)
        return False

    await eventually(refused)
