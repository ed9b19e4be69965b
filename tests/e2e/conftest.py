"""The whole system as separate processes: fake exchange, collector, aggregator, API, over a real broker and database."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio

from vegamite_common.domain.time import parse_time
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.reference_fold import RawTrade, read_peer_candles, read_recorded_day
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.postgres import PostgresServer

MARKET = "binance:XRP/ETH"
DAY_START = "2019-10-11T00:00:00Z"
DAY_END = "2019-10-12T00:00:00Z"
SPEED = 60


@dataclass(frozen=True)
class RecordedDay:
    """The recorded day: its file, its trades, and the peer's candles by timeframe."""

    file: Path
    trades: list[RawTrade]
    peers: dict[str, dict[str, dict[str, str]]]


@pytest.fixture(scope="session")
def recorded_day() -> RecordedDay:
    """The day in the folder that VEGAMITE_TEST_DATA names, which `.ci/run` sets."""
    folder = Path(os.environ["VEGAMITE_TEST_DATA"]) / "binance-xrpeth-20191011"
    peers = {name: read_peer_candles(folder / f"peer-candles-{name}.csv") for name in ("1m", "5m")}
    return RecordedDay(folder / "aggtrades.ndjson.gz", read_recorded_day(folder), peers)


class System:
    """Processes on loopback that share one simulated clock; `collector`, `aggregator` and `api` can be killed and started.

    `spares` are a second collector and a second aggregator, where `replicated` asks for them. `sections` are more of the
    configuration, to be set before the start.
    """

    def __init__(
        self, folder: Path, *, kafka: KafkaServer, database: str, replicated: bool = False
    ) -> None:
        self.folder = folder
        self.kafka = kafka
        self.database = database
        self.config = folder / "vegamite.toml"
        self.clock: dict[str, Any] = {}
        self.sections: dict[str, dict[str, Any]] = {}
        self.base = ""
        self.key = ""
        self.control_url = ""
        self.collector = self._service("collector")
        self.aggregator = self._service("aggregator")
        self.api = self._service("api")
        self.spares = {
            name: self._service(name, log=f"{name}-spare")
            for name in ("collector", "aggregator")
            if replicated
        }
        self.exchange: ServiceProcess | None = None

    def _service(self, name: str, *, log: str = "") -> ServiceProcess:
        command = [sys.executable, "-m", f"vegamite_{name}", "--config", str(self.config)]
        return ServiceProcess(command, log=self.folder / f"{log or name}.log")

    def start(
        self,
        *,
        origin: str,
        file: Path | None = None,
        generated: Sequence[str] = (),
        speed: float = SPEED,
    ) -> None:
        """Start the exchange with a recording or `generated` markets (its arguments), migrate, start the services; blocking."""
        told = ["--file", str(file)] if file is not None else list(generated)
        self.exchange = ServiceProcess(
            [
                sys.executable, "-m", "vegamite_common.testing.fake_exchange",
                *told, "--origin", str(parse_time(origin)), "--speed", str(speed),
            ],
            log=self.folder / "exchange.log",
        )  # fmt: skip
        self.exchange.start()
        self.clock = self.exchange.wait_for_record("clock")
        self.control_url = self.exchange.wait_for_record("control_url")
        self._write_config(self.exchange.wait_for_record("url"))
        self.run("vegamite_aggregator", "migrate", "--config", str(self.config))
        self.key = (
            self.run(
                "vegamite_api",
                "keys",
                "create",
                "--name",
                "e2e",
                "--scope",
                "admin",
                "--config",
                str(self.config),
            )
            .strip()
            .splitlines()[-1]
        )
        for service in (self.aggregator, self.collector, *self.spares.values(), self.api):
            service.start()
        for service in (self.aggregator, self.collector):
            port = service.wait_for_record("management_port")
            service.wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        self.find_api()

    def find_api(self) -> None:
        """Wait until the API that was started last serves; its port is new each time."""
        management = self.api.wait_for_record("management_port")
        self.base = f"http://127.0.0.1:{self.api.wait_for_record('port')}"
        self.api.wait_until_ready(f"http://127.0.0.1:{management}/readyz")

    def _write_config(self, exchange_url: str) -> None:
        sections: dict[str, dict[str, Any]] = {
            "log": {"format": "json"},
            "clock": self.clock,
            "kafka": {"bootstrap_servers": self.kafka.bootstrap},
            "postgres": {"url": self.database},
            "collector": {"management_port": 0},
            "aggregator": {"management_port": 0},
            "api": {"management_port": 0, "port": 0, "anonymous_read": True},
            "exchanges.binance": {"urls": exchange_url},
            **self.sections,
        }
        lines = []
        for name, keys in sections.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def run(self, module: str, *arguments: str) -> str:
        """Run one of our programs to its end, which must be a good one; gives what it printed. Blocking."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (
            f"{module} {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def now(self) -> int:
        """The shared clock, in microseconds."""
        elapsed = time.time_ns() // 1000 - self.clock["wall_origin"]
        return int(self.clock["origin"] + elapsed * self.clock["speed"])

    def close(self) -> None:
        """End whatever still runs, by id."""
        services = (self.api, self.collector, self.aggregator, *self.spares.values())
        for process in (*services, self.exchange):
            if process is not None:
                process.kill()


class Client:
    """The API as a client sees it; `fetch_all` follows cursors."""

    def __init__(self, system: System, session: aiohttp.ClientSession) -> None:
        self.system = system
        self.session = session

    async def get(self, path: str, **query: object) -> Any:
        """Return one answer's JSON; asserts status 200."""
        address = f"{self.system.base}{path}?{urlencode({name: str(value) for name, value in query.items()})}"
        async with self.session.get(address) as response:
            body = await response.text()
            assert response.status == 200, f"GET {address}: {response.status} {body}"
            return json.loads(body)

    async def fetch_all(self, path: str, **query: object) -> list[dict[str, Any]]:
        """Return all pages' rows."""
        rows: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self.get(path, **query, **({"cursor": cursor} if cursor else {}))
            rows += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return rows

    async def candles(
        self, timeframe: str, start: str = DAY_START, end: str = DAY_END, *, market: str = MARKET
    ) -> list[dict[str, Any]]:
        """Return the stored candles of a time, all pages."""
        return await self.fetch_all(
            "/v1/candles", market=market, timeframe=timeframe, start=start, end=end, limit=5000
        )

    async def track(self, market: str, history_from: str) -> None:
        """Ask for a market to be collected from an instant on."""
        async with self.session.put(
            f"{self.system.base}/v1/tracked-markets",
            json={"markets": [market], "history_from": history_from},
            headers={"X-API-Key": self.system.key},
        ) as response:
            assert response.status == 202, await response.text()

    async def wait_until_covered(
        self, start: str, end: str, *, timeout_s: float, market: str = MARKET
    ) -> None:
        """Return once the market is known to be complete over [start, end)."""

        async def covered() -> None:
            spans = (await self.get("/v1/coverage", market=market))["data"]
            gaps = (await self.get("/v1/gaps", market=market))["data"]
            wanted = (parse_time(start), parse_time(end))
            inside = [
                (parse_time(span["from_time"]), parse_time(span["to_time"])) for span in spans
            ]
            assert any(a <= wanted[0] and wanted[1] <= b for a, b in inside), f"{spans} {gaps}"

        await eventually(covered, timeout_s=timeout_s)


@pytest_asyncio.fixture
async def system(database: str, tmp_path: Path) -> AsyncIterator[System]:
    """A system of its own for the test: own broker, own database, own processes; not started yet."""
    kafka = KafkaServer()
    try:
        await asyncio.to_thread(kafka.start)
        built = System(tmp_path, kafka=kafka, database=database)
        try:
            yield built
        finally:
            await asyncio.to_thread(built.close)
    finally:
        await asyncio.to_thread(kafka.close)


@dataclass(frozen=True)
class Fragile:
    """A system with two collectors and two aggregators, whose broker and database can be killed, too."""

    system: System
    client: Client
    kafka: KafkaServer
    postgres: PostgresServer


@pytest_asyncio.fixture
async def fragile(tmp_path: Path) -> AsyncIterator[Fragile]:
    """A system of its own for the test, with nothing in it that others use; not started yet."""
    kafka, postgres = KafkaServer(), PostgresServer()
    try:
        await asyncio.gather(asyncio.to_thread(kafka.start), asyncio.to_thread(postgres.start))
        system = System(tmp_path, kafka=kafka, database=postgres.url, replicated=True)
        try:
            async with aiohttp.ClientSession() as session:
                yield Fragile(system, Client(system, session), kafka, postgres)
        finally:
            await asyncio.to_thread(system.close)
    finally:
        await asyncio.to_thread(kafka.close)
        await asyncio.to_thread(postgres.close)


@pytest_asyncio.fixture
async def client(system: System) -> AsyncIterator[Client]:
    """A client of the system's API."""
    async with aiohttp.ClientSession() as session:
        yield Client(system, session)


@contextlib.asynccontextmanager
async def live_view(
    client: Client, subscriptions: list[dict[str, Any]], take: Callable[[dict[str, Any]], None]
) -> AsyncIterator[None]:
    """Hand every message of a WebSocket with these subscriptions to `take`, inside the block."""
    async with client.session.ws_connect(f"{client.system.base}/v1/ws") as socket:
        for number, params in enumerate(subscriptions, 1):
            await socket.send_json({"method": "subscribe", "req_id": number, "params": params})

        async def read() -> None:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    take(json.loads(message.data))

        reading = asyncio.create_task(read())
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@pytest.fixture
def watch() -> Callable[..., Any]:
    """`live_view`, for test modules, which can't import this one."""
    return live_view
