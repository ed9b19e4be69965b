"""The tests' own servers as containers: what `make test` takes where Docker answers, opened and used."""

import uuid

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services import docker as containers
from vegamite_common.testing.services.source import open_kafka, open_postgres


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of where servers come from; none is given in the environment."""
    monkeypatch.delenv("VEGAMITE_TEST_POSTGRES", raising=False)
    monkeypatch.delenv("VEGAMITE_TEST_KAFKA", raising=False)
    return []


async def test_postgres_comes_as_a_container_and_goes_with_the_test(said: list[str]) -> None:
    with open_postgres(said.append) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE seen (number int)")
        await connection.execute("INSERT INTO seen VALUES (1), (2)")
        assert await connection.fetchval("SELECT sum(number) FROM seen") == 3
        assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = user")
        await connection.close()

    assert said == [f"PostgreSQL: Docker, {containers.POSTGRES_IMAGE}"]
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncpg.connect(url)


async def test_kafka_comes_as_a_container_and_keeps_what_is_sent(said: list[str]) -> None:
    topic = f"seen-{uuid.uuid4().hex}"
    with open_kafka(said.append) as bootstrap:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
        await admin.close()

        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id="seen", auto_offset_reset="earliest"
        )
        await producer.start()
        await consumer.start()
        sent = {f"{number}".encode() for number in range(20)}
        for value in sorted(sent):
            await producer.send_and_wait(topic, value)

        received: set[bytes] = set()

        async def all_came() -> bool:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                received.update(record.value for record in records)
            return received == sent

        await eventually(all_came, timeout_s=30)
        await producer.stop()
        await consumer.stop()

    assert said == [f"Kafka: Docker, {containers.KAFKA_IMAGE}"]
