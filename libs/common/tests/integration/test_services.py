import asyncio
import json
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from vegamite_common.testing.services.influxdb import InfluxAddress, InfluxServer
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.postgres import PostgresServer
from vegamite_common.testing.services.process import ServiceError


async def test_each_database_starts_empty(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        count = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        name = await connection.fetchval("SELECT current_database()")
    finally:
        await connection.close()
    assert count == 0
    assert name.startswith("test_")


async def _create_topic(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})]
        )
    finally:
        await admin.close()


async def _send(bootstrap: str, topic: str, value: bytes) -> int:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        sent = await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()
    return int(sent.timestamp_type)


async def _read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_the_broker_stamps_records_with_its_own_append_time(kafka_bootstrap: str) -> None:
    topic = f"t-{uuid.uuid4().hex}"
    await _create_topic(kafka_bootstrap, topic)
    log_append_time = 1
    assert await _send(kafka_bootstrap, topic, b"one") == log_append_time
    assert await _read(kafka_bootstrap, topic, 1) == [b"one"]


async def test_a_killed_broker_comes_back_at_the_same_address_with_every_record() -> None:
    server = KafkaServer()
    try:
        await asyncio.to_thread(server.start)
        await _create_topic(server.bootstrap, "kept")
        await _send(server.bootstrap, "kept", b"before")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await _send(server.bootstrap, "kept", b"after")
        assert await _read(server.bootstrap, "kept", 2) == [b"before", b"after"]
    finally:
        await asyncio.to_thread(server.close)
    assert not server.directory.exists()


async def test_a_killed_database_server_comes_back_at_the_same_address_with_every_row() -> None:
    server = PostgresServer()
    try:
        await asyncio.to_thread(server.start)
        url, pid = server.url, server.pid
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        await connection.close()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert (server.url, server.pid != pid) == (url, True)
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT value FROM kept") == 1
        await connection.close()
    finally:
        await asyncio.to_thread(server.close)
    assert not server.directory.exists()


async def test_a_killed_influxdb_comes_back_at_the_same_address_with_every_point() -> None:
    server = InfluxServer()
    try:
        await asyncio.to_thread(server.start)
        address = server.address
        await _ask_influxdb(address, "/query", b"q=CREATE+DATABASE+kept")
        await _ask_influxdb(address, "/api/v2/write?bucket=kept&org=any", b"kept value=7")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert server.address == address
        answer = await _ask_influxdb(address, "/query?db=kept", b"q=SELECT+value+FROM+kept")
        assert json.loads(answer)["results"][0]["series"][0]["values"][0][1] == 7
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await _ask_influxdb(InfluxAddress(address.url, "vegamite:wrong"), "/query", b"q=x")
    finally:
        await asyncio.to_thread(server.close)
    assert not server.directory.exists()


async def _ask_influxdb(address: InfluxAddress, path: str, body: bytes) -> bytes:
    def ask() -> bytes:
        request = urllib.request.Request(
            address.url + path, data=body, headers={"Authorization": f"Token {address.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    return await asyncio.to_thread(ask)


def test_an_influxdb_may_be_named() -> None:
    named = InfluxAddress.parse("https://me:secret%2F@influx.example:8086/ours")
    assert named == InfluxAddress("https://influx.example:8086", "me:secret/", "ours")
    assert InfluxAddress.parse("http://token@127.0.0.1:1") == InfluxAddress(
        "http://127.0.0.1:1", "token", "vegamite"
    )
    with pytest.raises(ServiceError, match="http://TOKEN@host:port/ORG"):
        InfluxAddress.parse("http://127.0.0.1:8086")


def test_the_browser_is_a_program(chromium_path: Path) -> None:
    assert chromium_path.is_file()
