"""What the environments grant is enough for the services, and no more: they run on it, on a real log and database."""

import asyncio
import json
import re
import secrets
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import CANDLES, DEAD_LETTERS, STATUS, TRADES, BusError
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.charts.manifest import Manifest
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.influxdb import InfluxAddress
from vegamite_common.testing.services.postgres import PostgresServer

Build = Callable[[str], tuple[Manifest, ...]]

SERVICES = ("collector", "aggregator", "api")
OWNER = "vegamite_owner"


class SecuredLog(Protocol):
    """A broker with the environment's topics and users (conftest.py)."""

    passwords: dict[str, str]

    def section(self, user: str) -> KafkaSection:
        """How this user reaches it."""
        ...


@dataclass
class Database:
    """A server with the roles that CloudNativePG makes of the environment's Cluster."""

    server: str
    passwords: dict[str, str] = field(default_factory=dict)

    def url(self, user: str) -> str:
        """The address of the database for this user."""
        parts = urlsplit(self.server)
        address = parts.netloc.rpartition("@")[2]
        netloc = f"{user}:{self.passwords[user]}@{address}"
        return urlunsplit(parts._replace(netloc=netloc, path="/vegamite"))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own: roles belong to servers."""
    postgres = PostgresServer()
    postgres.start()
    yield postgres
    postgres.close()


@pytest_asyncio.fixture
async def database(build: Build, server: PostgresServer) -> AsyncIterator[Database]:
    """The database as the operator bootstraps it, before anybody migrated."""
    (cluster,) = (each for each in build("overlays/dev") if each["kind"] == "Cluster")
    bootstrap = cluster["spec"]["bootstrap"]["initdb"]
    found = Database(server.url)
    admin = await asyncpg.connect(urlunsplit(urlsplit(server.url)._replace(path="/postgres")))
    try:
        for statement in bootstrap["postInitSQL"]:
            await admin.execute(statement)
        logins: dict[str, list[str]] = {bootstrap["owner"]: []}
        logins |= {role["name"]: role["inRoles"] for role in cluster["spec"]["managed"]["roles"]}
        for login, groups in logins.items():
            found.passwords[login] = secrets.token_hex(8)
            member = f" IN ROLE {', '.join(groups)}" if groups else ""
            await admin.execute(
                f"CREATE ROLE {login} LOGIN PASSWORD '{found.passwords[login]}'{member}"
            )
        name = bootstrap["database"]
        await admin.execute(f"DROP DATABASE IF EXISTS {name}")  # the server's own is called so, too
        await admin.execute(f"CREATE DATABASE {name} OWNER {bootstrap['owner']}")
        yield found
    finally:
        await admin.close()


def _write_config(
    folder: Path, service: str, kafka: KafkaSection, database: Database, user: str
) -> Path:
    sections: dict[str, dict[str, Any]] = {
        "postgres": {"url": database.url(user)},
        service: {"management_port": 0},
        "collector.demo": {"enabled": True},
    }
    if service == "api":
        sections["api"] |= {"port": 0, "anonymous_read": True}
    return _write_toml(folder / f"{service}-{user}.toml", kafka, sections)


def _write_sink_config(folder: Path, kafka: KafkaSection, influxdb: InfluxAddress) -> Path:
    bucket = f"rights_{uuid.uuid4().hex}"
    sections: dict[str, dict[str, Any]] = {
        "aggregator": {"management_port": 0},
        "influxdb": {
            "url": influxdb.url,
            "token": influxdb.token,
            "org": influxdb.org,
            "bucket": bucket,
            "downsampled_bucket": f"{bucket}_downsampled",
        },
    }
    return _write_toml(folder / "sink.toml", kafka, sections)


def _write_toml(path: Path, kafka: KafkaSection, sections: dict[str, dict[str, Any]]) -> Path:
    assert kafka.sasl_password is not None
    shared: dict[str, dict[str, Any]] = {
        "log": {"format": "json"},
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "security_protocol": kafka.security_protocol,
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_username": kafka.sasl_username,
            "sasl_password": kafka.sasl_password.get_secret_value(),
        },
        "kafka.topics": {"manage": False},
    }
    lines = []
    for name, keys in (shared | sections).items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def test_every_service_does_its_work_with_what_it_is_granted(
    secured_log: SecuredLog, database: Database, influxdb: InfluxAddress, tmp_path: Path
) -> None:
    def config(service: str, user: str) -> str:
        kafka = secured_log.section(f"kafka-{service}")
        return str(_write_config(tmp_path, service, kafka, database, user))

    migration = config("aggregator", OWNER)
    await asyncio.to_thread(_run, "vegamite_aggregator", "migrate", "--config", migration)
    configs = {name: config(name, name) for name in SERVICES}
    running = {
        name: ServiceProcess(
            [sys.executable, "-m", f"vegamite_{name}", "--config", configs[name]],
            log=tmp_path / f"{name}.log",
        )
        for name in SERVICES
    }
    sink = _write_sink_config(tmp_path, secured_log.section("kafka-sink"), influxdb)
    running["sink"] = ServiceProcess(
        [sys.executable, "-m", "vegamite_aggregator", "--role", "influx", "--config", str(sink)],
        log=tmp_path / "sink.log",
    )
    try:
        for process in running.values():
            await asyncio.to_thread(process.start)
        for process in running.values():
            port = await asyncio.to_thread(process.wait_for_record, "management_port")
            await asyncio.to_thread(process.wait_until_ready, f"http://127.0.0.1:{port}/readyz")
        track = ("track", "sim:DEMO/USD", "--history-hours", "1", "--config", configs["api"])
        await asyncio.to_thread(_run, "vegamite_api", *track)
        await _wait_for_candles(running["api"])
        # KEDA scales by what the aggregator committed, and asks as the aggregator's own user.
        await _wait_for_committed_offsets(secured_log, "kafka-aggregator", "vegamite-aggregator")
        for stream in ("trades", "candles"):
            await _wait_for_points(running["sink"], stream)
            await _wait_for_committed_offsets(
                secured_log, "kafka-sink", f"vegamite-influx.{stream}"
            )
        for name, process in running.items():
            assert await asyncio.to_thread(process.stop) == 0, name
            _assert_nothing_was_refused(process)
    finally:
        for process in running.values():
            process.kill()


async def _wait_for_candles(api: ServiceProcess) -> None:
    """Candles of the demo market's past come by HTTP, its trades by WebSocket."""
    port = await asyncio.to_thread(api.wait_for_record, "port")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def served() -> None:
            query = {"market": "sim:DEMO/USD", "timeframe": "1m", "limit": "5"}
            async with session.get("/v1/candles", params=query) as response:
                body = await response.json()
                assert response.status == 200, body
                assert len(body["data"]) == 5, body

        await eventually(served, timeout_s=60)
        async with session.ws_connect("/v1/ws") as socket:
            params = {"channel": "trades", "markets": ["sim:DEMO/USD"]}
            await socket.send_json({"method": "subscribe", "req_id": 1, "params": params})
            async with asyncio.timeout(60):
                async for message in socket:
                    if json.loads(message.data).get("channel") == "trades":
                        return
    raise AssertionError("the WebSocket ended without a trade")


async def _wait_for_points(sink: ServiceProcess, topic: str) -> None:
    """The sink says that InfluxDB has taken some."""
    port = await asyncio.to_thread(sink.wait_for_record, "management_port")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def written() -> None:
            async with session.get("/metrics") as response:
                text = await response.text()
            name = r"vegamite_aggregator_sink_points_total"
            found = re.search(rf'^{name}{{outcome="written",topic="{topic}"}} (.+)$', text, re.M)
            assert found is not None, text
            assert float(found[1]) > 0

        await eventually(written, timeout_s=60)


async def _wait_for_committed_offsets(log: SecuredLog, user: str, group: str) -> None:
    """The group's members have committed, and the user may see it."""
    from aiokafka.admin import AIOKafkaAdminClient

    section = log.section(user)
    admin = AIOKafkaAdminClient(
        bootstrap_servers=section.bootstrap_servers,
        security_protocol=section.security_protocol,
        sasl_mechanism=section.sasl_mechanism,
        sasl_plain_username=user,
        sasl_plain_password=log.passwords[user],
    )
    await admin.start()
    try:

        async def committed() -> None:
            offsets = await admin.list_consumer_group_offsets(group)
            assert any(each.offset > 0 for each in offsets.values()), offsets

        await eventually(committed, timeout_s=30)
    finally:
        await admin.close()


def _assert_nothing_was_refused(process: ServiceProcess) -> None:
    said = process.log.read_text()
    for word in ("Authorization", "permission denied", "Traceback"):
        assert word not in said, said


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("kafka-collector", CANDLES),
        ("kafka-collector", DEAD_LETTERS),
        ("kafka-aggregator", TRADES),
        ("kafka-sink", TRADES),
        ("kafka-sink", CANDLES),
        ("kafka-api", TRADES),
        ("kafka-api", CANDLES),
        ("kafka-api", STATUS),
    ],
)
async def test_a_service_writes_no_topic_that_is_another_s(
    secured_log: SecuredLog, user: str, topic: str
) -> None:
    bus = KafkaBus(secured_log.section(user), SystemClock())
    await bus.start()
    try:
        with pytest.raises(BusError, match="Authorization"):
            await bus.producer().publish(topic, 0, [(b"key", b"value")])
    finally:
        await bus.close()
