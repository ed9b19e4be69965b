"""The stack of docker-compose.dev.yml, started as `make dev` does, with all profiles, and used from outside."""

import asyncio
import json
import os
import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from vegamite_common.bus.port import TOPICS
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.process import free_ports

Run = Callable[..., subprocess.CompletedProcess[str]]
Inspect = Callable[[str], dict[str, Any]]

pytestmark = pytest.mark.timeout(420)

DEMO = "sim:DEMO/USD"
PROFILES = ("--profile", "demo", "--profile", "influxdb")
PORTS = ("API", "GRAFANA", "PROMETHEUS", "INFLUXDB", "KAFKA", "POSTGRES")
ONCE = {"demo", "migrate", "secrets"}
OURS = {"collector", "aggregator", "api", "sink"}
OTHERS = {"kafka", "postgres", "influxdb", "prometheus", "grafana"}


@dataclass(frozen=True)
class Stack:
    """A project of Docker Compose with a name and ports of its own; `printed` is what its start said."""

    repository: Path
    command: list[str]
    project: str
    tag: str
    docker: Run
    ports: dict[str, int]
    printed: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        ports = {f"VEGAMITE_{name}_PORT": str(port) for name, port in self.ports.items()}
        own = {"COMPOSE_PROJECT_NAME": self.project, "VEGAMITE_TAG": self.tag}
        return {**os.environ, **own, **ports}

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def run(self, *command: str | Path, timeout_s: float = 120) -> str:
        """Run a command in the repository, with the project's environment; it must go well."""
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            cwd=self.repository,
            env=self.environment,
        )
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        file = ("--file", "docker-compose.dev.yml")
        return self.run(*self.command, *file, *PROFILES, *arguments, timeout_s=timeout_s)

    def logs(self) -> str:
        """The end of what every container said."""
        names = self.docker("ps", "--all", "--quiet", *self._label()).stdout.split()
        return "".join(self.docker("logs", "--tail=10", name).stderr for name in names)

    def up(self) -> None:
        script = self.repository / "compose/dev"
        self.printed.append(self.run(script, "up", *PROFILES, timeout_s=300))

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker knows of each service's container, by the service's name."""
        names = self.docker("ps", "--all", "--quiet", *self._label()).stdout.split()
        found = json.loads(self.docker("inspect", *names).stdout)
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def secret(self, name: str) -> str:
        """A secret, read from its volume."""
        volume, file = name.split("/")
        mount = f"--volume={self.project}_secret-{volume}:/secret:ro"
        image = f"vegamite/aggregator:{self.tag}"
        arguments = ("--rm", "--network=none", "--entrypoint=cat", mount, image)
        return self.docker("run", *arguments, f"/secret/{file}").stdout

    def remains(self) -> list[str]:
        """Everything in Docker that belongs to the project."""
        label = self._label()
        listed = [
            self.docker("ps", "--all", "--quiet", *label),
            self.docker("volume", "ls", "--quiet", *label),
            self.docker("network", "ls", "--quiet", *label),
        ]
        return [line for each in listed for line in each.stdout.split()]

    def drop(self) -> None:
        """End it, with its volumes, and see that nothing of it is left."""
        said = self.run(self.repository / "compose/dev", "down", "--volumes")
        assert "its data is gone" in said
        assert self.remains() == []

    def _label(self) -> tuple[str, str]:
        return ("--filter", f"label=com.docker.compose.project={self.project}")


@pytest.fixture(scope="module")
def make_stack(
    repository: Path, compose_command: list[str], docker: Run, tag: str
) -> Iterator[Callable[[], Stack]]:
    """Make projects, not started; dropped in the end."""
    made: list[Stack] = []

    def make() -> Stack:
        name = f"vegamite-test-{uuid.uuid4().hex[:8]}"
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        made.append(Stack(repository, compose_command, name, tag, docker, ports))
        return made[-1]

    yield make
    for each in made:
        each.drop()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[[], Stack]) -> Stack:
    """The whole stack, up and healthy, with the simulated market and the sink."""
    made = make_stack()
    made.up()
    return made


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as opened:
        yield opened


async def _get(session: aiohttp.ClientSession, address: str, **parameters: str) -> Any:
    async with session.get(address, params=parameters) as answer:
        body = await answer.json()
        assert answer.status == 200, body
        return body


async def _candles(
    session: aiohttp.ClientSession, stack: Stack, timeframe: str
) -> list[dict[str, Any]]:
    page = await _get(
        session,
        f"{stack.address('API')}/v1/candles",
        market=DEMO,
        timeframe=timeframe,
        limit="1000",
    )
    rows: list[dict[str, Any]] = page["data"]
    return rows


def test_up_waits_until_everything_is_healthy_and_prints_where_it_is(stack: Stack) -> None:
    states = {name: each["State"] for name, each in stack.containers().items()}

    assert set(states) == ONCE | OURS | OTHERS
    assert {name: states[name]["Health"]["Status"] for name in OURS | OTHERS} == dict.fromkeys(
        OURS | OTHERS, "healthy"
    )
    assert {name: states[name]["ExitCode"] for name in ONCE} == dict.fromkeys(ONCE, 0)
    for port in stack.ports.values():
        assert re.search(rf"127\.0\.0\.1:{port}\b", stack.printed[0]), stack.printed[0]


async def test_the_history_grows_to_a_complete_day_and_goes_on(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async def whole_day() -> list[dict[str, Any]]:
        rows = [row for row in await _candles(session, stack, "1h") if row["final"]]
        assert len(rows) >= 24, f"{len(rows)} final hours"
        assert [row["open_time"] for row in rows if not row["complete"]] == []
        return rows

    hours = await eventually(whole_day, timeout_s=180, interval_s=0.5)
    assert all(row["trade_count"] > 0 for row in hours)

    newest = (await _candles(session, stack, "1m"))[-1]

    async def goes_on() -> bool:
        after = (await _candles(session, stack, "1m"))[-1]
        return bool(
            (after["open_time"], after["trade_count"])
            > (newest["open_time"], newest["trade_count"])
        )

    await eventually(goes_on, timeout_s=30, interval_s=0.2)


async def test_a_websocket_brings_the_past_and_then_what_happens(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async with session.ws_connect(f"{stack.address('API')}/v1/ws") as socket:
        parameters = {"channel": "candles", "markets": [DEMO], "timeframe": "1m", "snapshot": 5}
        await socket.send_json({"method": "subscribe", "req_id": 1, "params": parameters})
        kinds: set[str] = set()
        while "update" not in kinds:
            message = await socket.receive_json(timeout=30)
            kinds.add(message.get("type", "reply"))

    assert "snapshot" in kinds


async def test_the_chart_page_is_served(stack: Stack, session: aiohttp.ClientSession) -> None:
    async with session.get(stack.address("API")) as answer:
        page = await answer.text()

    assert answer.status == 200
    assert "<title>" in page


async def test_prometheus_has_scraped_all_services(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async def all_up() -> None:
        asked = f"{stack.address('PROMETHEUS')}/api/v1/query"
        found = (await _get(session, asked, query="up"))["data"]["result"]
        up = {
            (row["metric"]["service"], row["metric"]["instance"]): row["value"][1] for row in found
        }
        assert up == {(name, f"{name}:8001"): "1" for name in OURS}

    await eventually(all_up, timeout_s=60, interval_s=0.5)


async def test_grafana_has_the_dashboards_and_shows_them_without_a_login(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    files = sorted((stack.repository / "helm/vegamite/dashboards").glob("*.json"))
    wanted = {each["uid"]: each["title"] for each in map(_load, files)}
    assert wanted

    found = await _get(session, f"{stack.address('GRAFANA')}/api/search", type="dash-db")
    assert {row["uid"]: row["title"] for row in found} == wanted
    assert {row["folderTitle"] for row in found} == {"vegamite"}


def _load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


async def test_grafana_asks_prometheus_and_its_admin_has_the_generated_password(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    address = f"{stack.address('GRAFANA')}/api/datasources"
    statuses = []
    for password in ("admin", stack.secret("grafana/password")):
        proof = {"Authorization": aiohttp.encode_basic_auth("admin", password)}
        async with session.get(address, headers=proof) as answer:
            statuses.append(answer.status)
            body = await answer.json()

    assert statuses == [401, 200]
    assert [(row["type"], row["url"]) for row in body] == [("prometheus", "http://prometheus:9090")]


def _database_url(stack: Stack, password: str) -> str:
    return f"postgresql://vegamite:{password}@127.0.0.1:{stack.ports['POSTGRES']}/vegamite"


async def test_the_database_takes_the_generated_password_alone(stack: Stack) -> None:
    connection = await asyncpg.connect(_database_url(stack, stack.secret("postgres/password")))
    try:
        assert await connection.fetchval("SELECT count(*) FROM tracked_market") == 1
    finally:
        await connection.close()

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(_database_url(stack, "vegamite"))


async def test_maintenance_runs_when_it_is_asked_for(stack: Stack) -> None:
    completed = "SELECT completed_time IS NOT NULL FROM maintenance"
    connection = await asyncpg.connect(_database_url(stack, stack.secret("postgres/password")))
    try:
        assert not await connection.fetchval(completed)
        stack.compose("run", "--rm", "--no-deps", "maintain")
        assert await connection.fetchval(completed)
    finally:
        await connection.close()


async def test_the_log_is_reached_from_this_machine_too(stack: Stack) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{stack.ports['KAFKA']}")
    await admin.start()
    try:
        topics = await admin.list_topics()
    finally:
        await admin.close()

    assert set(TOPICS) <= set(topics)


async def test_influxdb_has_the_trades_and_candles_that_postgresql_has(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async def history() -> list[dict[str, Any]]:
        rows = [row for row in await _candles(session, stack, "1h") if row["final"]]
        assert len(rows) >= 24, f"{len(rows)} final hours"
        return rows[-24:]

    hours = await eventually(history, timeout_s=180, interval_s=0.5)
    start, stop = hours[0]["open_time"], hours[-1]["close_time"]
    stored = await _stored(stack, start, stop)
    assert stored["trades"] > 1000
    assert stored["hours"] == 24

    async def all_there() -> None:
        window = (start, stop)
        trades = 'r._measurement == "trade" and r._field == "amount"'
        assert await _flux(stack, "vegamite", window, trades, "count") == stored["trades"]
        amount = await _flux(stack, "vegamite", window, trades, "sum")
        assert amount == pytest.approx(stored["amount"], rel=1e-9)
        candles = 'r._measurement == "candle" and r._field == "close" and r.timeframe == '
        assert (
            await _flux(stack, "vegamite", window, f'{candles} "1m"', "count") == stored["minutes"]
        )
        longer = "vegamite_downsampled"
        assert await _flux(stack, longer, window, f'{candles} "1h"', "count") == stored["hours"]

    await eventually(all_there, timeout_s=120, interval_s=1)


async def _stored(stack: Stack, start: str, stop: str) -> asyncpg.Record:
    """What PostgreSQL has of a time: trades, their amount, and final candles of a minute and of an hour."""
    database = await asyncpg.connect(_database_url(stack, stack.secret("postgres/password")))
    try:
        found = await database.fetchrow(
            """
            WITH asked AS (SELECT $1::text::timestamptz AS start, $2::text::timestamptz AS stop),
            traded AS (
                SELECT count(*) AS trades, sum(amount)::float AS amount
                FROM trade, asked WHERE event_time >= start AND event_time < stop
            ),
            folded AS (
                SELECT count(*) FILTER (WHERE timeframe = '1m') AS minutes,
                       count(*) FILTER (WHERE timeframe = '1h') AS hours
                FROM candle, asked WHERE final AND open_time >= start AND open_time < stop
            )
            SELECT * FROM traded, folded
            """,
            start,
            stop,
        )
    finally:
        await database.close()
    assert found is not None
    return found


async def _flux(
    stack: Stack, bucket: str, window: tuple[str, str], condition: str, function: str
) -> float:
    """One number about the points of a time for which the condition holds, asked with the generated token."""
    start, stop = window
    question = (
        f'from(bucket: "{bucket}") |> range(start: {start}, stop: {stop})'
        # Version 1.8 counts the end of a range in, 2 doesn't.
        f" |> filter(fn: (r) => {condition} and r._time < {stop}) |> group() |> {function}()"
    )
    token = stack.secret("influxdb-token/token")

    def ask() -> float:
        with InfluxDBClient(stack.address("INFLUXDB"), token=token, org="vegamite") as client:
            try:
                tables = client.query_api().query(question)
            except (ApiException, HTTPError) as error:
                raise AssertionError(f"InfluxDB has no answer: {error}") from None
        [[record]] = tables or [[None]]
        assert record is not None, f"{question} finds nothing"
        return float(record.get_value())

    return await asyncio.to_thread(ask)


async def test_influxdb_takes_the_generated_token_alone(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{stack.address('INFLUXDB')}/ping") as answer:
        assert answer.status == 204
    statuses = []
    for token in (stack.secret("influxdb-token/token"), "0" * 48):
        address = f"{stack.address('INFLUXDB')}/api/v2/write?org=vegamite&bucket=vegamite"
        proof = {"Authorization": f"Token {token}"}
        async with session.post(address, headers=proof, data="greeting said=1") as answer:
            statuses.append(answer.status)

    assert statuses == [204, 401]


def test_influxdb_and_the_sink_come_with_their_profile_alone(stack: Stack) -> None:
    file = ("--file", "docker-compose.dev.yml")
    listed = stack.run(*stack.command, *file, "config", "--services").split()

    assert set(listed) == (ONCE | OURS | OTHERS) - {"demo", "influxdb", "sink"}


def test_every_port_is_published_on_loopback_alone(stack: Stack) -> None:
    bound = {
        (name, binding["HostIp"])
        for name, each in stack.containers().items()
        for bindings in (each["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    }

    assert bound == {(name, "127.0.0.1") for name in OTHERS | {"api"}}


def test_every_container_is_hardened(stack: Stack) -> None:
    for name, each in stack.containers().items():
        host = each["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        user = each["Config"]["User"].split(":")[0]
        assert user.isdigit(), name
        assert (user == "0") == (name == "secrets"), name


def test_no_secret_is_in_the_file_or_in_what_docker_shows(stack: Stack) -> None:
    names = (
        "postgres/password",
        "influxdb/password",
        "influxdb-token/token",
        "grafana/password",
    )
    secrets = [stack.secret(name) for name in names]
    shown = stack.compose("config") + json.dumps(stack.containers())

    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)
    assert len(set(secrets)) == len(secrets)
    assert [secret for secret in secrets if secret in shown] == []


def test_secrets_differ_from_start_to_start_and_stay_while_their_volumes_do(
    make_stack: Callable[[], Stack], stack: Stack
) -> None:
    other = make_stack()
    other.compose("up", "--no-deps", "secrets")
    first = other.secret("postgres/password")
    other.compose("up", "--no-deps", "--force-recreate", "secrets")

    assert other.secret("postgres/password") == first
    assert stack.secret("postgres/password") != first


async def test_told_to_stop_all_services_end_well_and_go_on_later(
    stack: Stack, session: aiohttp.ClientSession
) -> None:
    before = await eventually(lambda: _candles(session, stack, "1h"), timeout_s=60, interval_s=0.5)
    stack.compose("stop", *sorted(OURS))
    codes = {
        name: each["State"]["ExitCode"] for name, each in stack.containers().items() if name in OURS
    }
    assert codes == dict.fromkeys(OURS, 0), stack.logs()

    stack.up()
    after = await _candles(session, stack, "1h")
    assert {row["open_time"] for row in before} <= {row["open_time"] for row in after}
