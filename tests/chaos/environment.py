"""Everything that a run needs: three brokers, a database, the network between, and two aggregators."""

import asyncio
import functools
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import asyncpg

from tests.chaos.control import Control
from tests.chaos.load import PARTITIONS
from tests.chaos.proxy import Proxy
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.domain.time import parse_time
from vegamite_common.runtime.clock import SimulatedClock, wall_now
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.kafka_cluster import BROKERS, KafkaCluster
from vegamite_common.testing.services.postgres import PostgresServer
from vegamite_common.testing.services.process import free_ports

ROOT = Path(__file__).resolve().parents[2]
ORIGIN = "2021-01-31T23:50:00Z"
"""Ten minutes before a month, a week and a day begin."""

SPEED = 60.0
APPLICATION = "vegamite-aggregator"

# The history of each fence, written by the database itself: what was committed, and in which order.
_AUDIT = """
    CREATE TABLE chaos_step (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        partition integer NOT NULL, old_version bigint NOT NULL, version bigint NOT NULL,
        old_offset bigint NOT NULL, next_offset bigint NOT NULL, epoch integer NOT NULL, owner text NOT NULL
    );
    CREATE FUNCTION chaos_note_step() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos_step (partition, old_version, version, old_offset, next_offset, epoch, owner)
        VALUES (NEW.partition, OLD.version, NEW.version, OLD.next_offset, NEW.next_offset, NEW.epoch, NEW.owner);
        RETURN NULL;
    END $$;
    CREATE TRIGGER chaos_step_noted AFTER UPDATE ON partition_fence
        FOR EACH ROW EXECUTE FUNCTION chaos_note_step();
"""


class Aggregator:
    """One aggregator: its process, and the shared words that it tells its phases by."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        config: Path,
        mutation: str,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.control = Control(folder / f"{name}.words")
        self.expected_to_run = False
        self._fetches_before = 0
        self.process = ServiceProcess(
            [
                sys.executable, "-m", "tests.chaos.aggregator_process",
                str(self.control.path), mutation or "-", "run", "--config", str(config),
            ],
            log=folder / f"{name}.log",
            environment=environment,
        )  # fmt: skip

    def start(self) -> None:
        """Start the process; its phases begin anew."""
        self.control.renew()
        self._fetches_before = self.control.entered()["fetch"]
        self.process.start()
        self.expected_to_run = True

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.process.pid

    @property
    def at_work(self) -> bool:
        """Whether the process that was started last has begun to fetch."""
        return self.control.entered()["fetch"] > self._fetches_before

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.process.poll() is None


class Environment:
    """Servers and processes of one run, with all their files in `folder`; nothing of it outlives `close`."""

    def __init__(
        self,
        folder: Path,
        *,
        mutation: str = "",
        sections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self._mutation = mutation
        self._sections = sections or {}
        self.clock = SimulatedClock(origin=parse_time(ORIGIN), wall_origin=wall_now(), speed=SPEED)
        ports = free_ports(BROKERS)
        self.cluster = KafkaCluster(client_addresses=[f"127.0.0.1:{port}" for port in ports])
        self.postgres = PostgresServer()
        self._client_ports = ports
        self.kafka_proxies: list[Proxy] = []
        self.postgres_proxy = Proxy(self._open_postgres)
        self.config = folder / "vegamite.toml"
        self.bus = KafkaBus(
            KafkaSection(
                bootstrap_servers=self.cluster.bootstrap,
                request_timeout_ms=5_000,
                delivery_timeout_ms=10_000,
            ),
            self.clock,
        )
        self.pool: asyncpg.Pool[asyncpg.Record] | None = None
        process_environment = {"PYTHONPATH": str(ROOT)}
        self.aggregators = [
            Aggregator(
                f"aggregator-{number}",
                folder,
                config=self.config,
                mutation=mutation,
                environment=process_environment,
            )
            for number in (1, 2)
        ]
        self._bus_started = False

    async def start(self) -> None:
        """Start all of it, and return when the aggregators share the partitions."""
        await asyncio.gather(
            asyncio.to_thread(self.cluster.start), asyncio.to_thread(self.postgres.start)
        )
        for number, port in enumerate(self._client_ports):
            proxy = Proxy(functools.partial(self._open_broker, number))
            await proxy.listen(port)
            self.kafka_proxies.append(proxy)
        await self.postgres_proxy.listen_at(self.folder / ".s.PGSQL.5432")
        self._write_config()
        await asyncio.to_thread(self._migrate)
        await self.bus.start()
        self._bus_started = True
        self.pool = await asyncpg.create_pool(self.postgres.url, min_size=1, max_size=3)
        async with self.pool.acquire() as connection:
            await connection.execute(_AUDIT)
        for aggregator in self.aggregators:
            aggregator.start()

    async def close(self) -> None:
        """End every process and connection, and remove the servers' files."""
        for aggregator in self.aggregators:
            if aggregator.expected_to_run:
                aggregator.process.kill()
        for proxy in (*self.kafka_proxies, self.postgres_proxy):
            await proxy.close()
        if self.pool is not None:
            self.pool.terminate()
        if self._bus_started:
            await self.bus.close()
        await asyncio.gather(
            asyncio.to_thread(self.cluster.close), asyncio.to_thread(self.postgres.close)
        )

    @property
    def database(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Connections of the run's own, which no fault of the network touches."""
        assert self.pool is not None
        return self.pool

    def cut(self, where: str, rng: random.Random) -> int:
        """Cut one connection of the aggregators, or all, to `kafka` or to `postgres`; return how many."""
        proxies = self.kafka_proxies if where == "kafka" else [self.postgres_proxy]
        links = [link for proxy in proxies for link in proxy.links]
        chosen = links if rng.random() < 0.5 else rng.sample(links, min(1, len(links)))
        for link in chosen:
            link.cut()
        return len(chosen)

    async def _open_broker(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.cluster.client_ports[number])

    async def _open_postgres(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        directory = unquote(urlsplit(self.postgres.url).query.removeprefix("host="))
        return await asyncio.open_unix_connection(Path(directory) / ".s.PGSQL.5432")

    def _write_config(self) -> None:
        parts = urlsplit(self.postgres.url)
        through = parts._replace(query=f"host={quote(str(self.folder), safe='')}").geturl()
        sections: dict[str, dict[str, Any]] = {
            "log": {"format": "json"},
            "clock": {
                "origin": self.clock.origin,
                "wall_origin": self.clock.wall_origin,
                "speed": SPEED,
            },
            "kafka": {
                "bootstrap_servers": ",".join(f"127.0.0.1:{port}" for port in self._client_ports),
                "request_timeout_ms": 4_000,
                "delivery_timeout_ms": 8_000,
                "session_timeout_ms": 1_500,
                "max_poll_interval_ms": 10_000,
            },
            "kafka.topics": {
                "partitions": PARTITIONS,
                "replication_factor": BROKERS,
                "min_insync_replicas": 2,
            },
            "postgres": {
                "url": through,
                "pool_size": 6,
                "connect_timeout_ms": 3_000,
                "command_timeout_ms": 8_000,
            },
            "aggregator": {"management_port": 0},
        }
        for name, keys in self._sections.items():
            sections.setdefault(name, {}).update(keys)
        lines = []
        for name, keys in sections.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def _migrate(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "vegamite_aggregator", "migrate", "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ},
        )
        if done.returncode != 0:
            raise RuntimeError(f"migrate: {done.returncode}\n{done.stdout}\n{done.stderr}")
