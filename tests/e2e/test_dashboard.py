"""Every expression of the dashboards against a real Prometheus that scrapes the running services."""

import asyncio
import contextlib
import math
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.dashboard import Dashboard, Target, Variable, metric_names
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.influxdb import InfluxServer
from vegamite_common.testing.services.prometheus import PrometheusServer, check_metrics

DAY_START = "2019-10-11T00:00:00Z"
MARKET = "binance:XRP/ETH"
DASHBOARDS = Path(__file__).resolve().parents[2] / "helm/vegamite/dashboards"

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def dashboard() -> Dashboard:
    """The overview."""
    return Dashboard(DASHBOARDS / "overview.json")


@pytest.fixture
def influx() -> Iterator[InfluxServer]:
    with InfluxServer() as server:
        yield server


def address(service: ServiceProcess) -> str:
    """Where the service's metrics are."""
    return f"127.0.0.1:{service.wait_for_record('management_port')}"


def exposition(service: ServiceProcess) -> str:
    """The service's metrics as they are served."""
    with urllib.request.urlopen(f"http://{address(service)}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


@asynccontextmanager
async def scraping(services: dict[str, list[ServiceProcess]]) -> AsyncIterator[PrometheusServer]:
    """A Prometheus that has scraped all of the services."""
    server = PrometheusServer(
        {name: [address(each) for each in replicas] for name, replicas in services.items()}
    )
    try:
        await asyncio.to_thread(server.start)

        def all_scraped() -> None:
            assert server.healthy_jobs() == set(services)

        await eventually(lambda: asyncio.to_thread(all_scraped), timeout_s=60, interval_s=0.2)
        yield server
    finally:
        await asyncio.to_thread(server.close)


@asynccontextmanager
async def in_use(client: Any, watch: Callable[..., Any]) -> AsyncIterator[None]:
    """Clients that read history again and again, and one that follows the streams."""

    async def read() -> None:
        while True:
            await client.get("/v1/markets")
            await client.get("/v1/candles", market=MARKET, timeframe="1m", limit=5)
            await asyncio.sleep(0.2)  # how often such a client asks

    subscriptions = [
        {"channel": "trades", "markets": [MARKET]},
        {"channel": "candles", "markets": [MARKET], "timeframe": "1m"},
    ]
    async with watch(client, subscriptions, lambda _: None):
        reading = asyncio.create_task(read())
        try:
            yield
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


def numbers(found: list[dict[str, Any]]) -> list[float]:
    """The values of all series that are numbers."""
    return [value for value in (float(each["value"][1]) for each in found) if math.isfinite(value)]


def sink_of(system: Any, influx: InfluxServer) -> ServiceProcess:
    """The sink beside the system's services, to be started after them; puts its section into their configuration."""
    address = influx.address
    system.sections["influxdb"] = {"url": address.url, "token": address.token}
    command = [sys.executable, "-m", "vegamite_aggregator", "--role", "influx"]
    return ServiceProcess(
        [*command, "--config", str(system.config)], log=system.folder / "sink.log"
    )


async def test_every_panel_shows_what_the_running_system_does(
    system: Any,
    client: Any,
    recorded_day: Any,
    influx: InfluxServer,
    watch: Callable[..., Any],
    dashboard: Dashboard,
) -> None:
    system.sections["aggregator.retention"] = {"trades_days": 1}
    sink = sink_of(system, influx)
    await asyncio.to_thread(system.start, file=recorded_day.file, origin="2019-10-11T22:55:00Z")
    await client.track(MARKET, DAY_START)
    with sink:
        services = {
            "collector": [system.collector],
            "aggregator": [system.aggregator],
            "api": [system.api],
            "sink": [sink],
        }
        async with scraping(services) as prometheus, in_use(client, watch):
            await maintained(system, client)
            for file in sorted(DASHBOARDS.glob("*.json")):
                await assert_shows_all(prometheus, Dashboard(file))
            await assert_truth(prometheus, dashboard, client)
            assert_names(services)


async def maintained(system: Any, client: Any) -> None:
    """Run a maintenance that moves the market's horizon, once the first trades are stored."""

    async def stored() -> None:
        page = await client.get("/v1/trades", market=MARKET, limit=1)
        assert page["data"]

    await eventually(stored, timeout_s=60)
    told = ("vegamite_aggregator", "maintain", "--config", str(system.config))
    await asyncio.to_thread(system.run, *told)


async def assert_shows_all(prometheus: PrometheusServer, dashboard: Dashboard) -> None:
    """Every panel of it has numbers, with the variables at All and with each value chosen."""
    chosen = {
        variable.name: await values_of(prometheus, dashboard, variable)
        for variable in dashboard.variables
        # Where nothing is on Kubernetes there are no namespaces, and All still finds everything.
        if variable.name != "namespace"
    }
    wanted = {"vegamite-overview": 4, "vegamite-aggregator": 2}
    assert len(chosen["instance"]) == wanted[dashboard.body["uid"]]
    assert chosen.get("exchange", ["binance"]) == ["binance"]
    for target in dashboard.targets:
        await assert_shows(prometheus, dashboard.substitute(target.expression), target)
        await assert_shows(
            prometheus, dashboard.substitute(target.expression, chosen=chosen), target
        )


async def values_of(
    prometheus: PrometheusServer, dashboard: Dashboard, variable: Variable
) -> list[str]:
    """What there is to choose from, once there is something."""
    match = dashboard.substitute(variable.match)
    found: list[str] = []

    def probe() -> None:
        found[:] = prometheus.label_values(variable.label, match)
        assert found, f"{variable.name}: {match} has no {variable.label}"

    await eventually(lambda: asyncio.to_thread(probe), timeout_s=60, interval_s=0.2)
    return found


async def assert_shows(prometheus: PrometheusServer, expression: str, target: Target) -> None:
    """The expression finds numbers, and whatever the legend names; one that is refused fails at once."""

    def probe() -> None:
        found = prometheus.query(expression)
        assert numbers(found), f"{target.panel}: {expression} finds {found}"
        for series in found:
            lacking = [name for name in target.legend_labels if name not in series["metric"]]
            assert not lacking, f"{target.panel}: {series['metric']} has no {lacking}"

    await eventually(lambda: asyncio.to_thread(probe), timeout_s=120, interval_s=0.3)


async def assert_truth(prometheus: PrometheusServer, dashboard: Dashboard, client: Any) -> None:
    """What the stats at the top say is what is the case."""

    async def value(expression: str) -> list[float]:
        return numbers(await asyncio.to_thread(prometheus.query, dashboard.substitute(expression)))

    async def settled() -> None:
        for panel, wanted in (
            ("Markets live", 1),
            ("Markets not live", 0),
            ("Behind the log", 0),
            ("Open gaps", 0),
            ("Oldest open gap", 0),
            ("HTTP answers 5xx", 0),
            ("WebSocket clients", 1),
            ("Waiting partitions", 0),
            ("Dead letters, last hour", 0),
        ):
            assert await value(dashboard.target(panel).expression) == [wanted], panel
        assert await value(dashboard.target("Services").expression) == [1, 1, 1, 1]
        assert await value(dashboard.target("InfluxDB sink").expression) == [1]
        assert await value("sum(vegamite_collector_tracked_markets)") == [1]
        [coverage_lag] = await value(dashboard.target("Coverage lag").expression)
        assert 0 < coverage_lag < 30

    await eventually(settled, timeout_s=120, interval_s=0.3)

    async def all_counted() -> None:
        stored = await client.fetch_all(
            "/v1/trades", market=MARKET, start=DAY_START, end="2019-10-12T00:00:00Z", limit=5000
        )
        counted = await value('sum(vegamite_aggregator_trades_total{outcome="inserted"})')
        assert counted == [len(stored)]

    await eventually(all_counted, timeout_s=120, interval_s=0.3)


def assert_names(services: dict[str, list[ServiceProcess]]) -> None:
    """Each metric that is asked for is served, and each that is served is named as Prometheus has it."""
    served: set[str] = set()
    for name, [service] in services.items():
        text = exposition(service)
        assert check_metrics(text) == "", name
        served |= {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"}
    for file in DASHBOARDS.glob("*.json"):
        for target in Dashboard(file).targets:
            assert metric_names(target.expression) <= served, target.panel


async def test_the_database_being_away_is_seen_as_lag_and_errors_that_end(
    fragile: Any, recorded_day: Any, dashboard: Dashboard
) -> None:
    system, postgres = fragile.system, fragile.postgres
    await asyncio.to_thread(system.start, file=recorded_day.file, origin="2019-10-11T22:55:00Z")
    await fragile.client.track(MARKET, DAY_START)
    services = {
        "collector": [system.collector, system.spares["collector"]],
        "aggregator": [system.aggregator, system.spares["aggregator"]],
        "api": [system.api],
    }
    async with scraping(services) as prometheus:

        async def assert_panel(panel: str, holds: Callable[[float], bool]) -> None:
            expression = dashboard.substitute(dashboard.target(panel).expression)

            def probe() -> None:
                found = numbers(prometheus.query(expression))
                assert [value for value in found if holds(value)] == found != [], (
                    f"{panel}: {found}"
                )

            await eventually(lambda: asyncio.to_thread(probe), timeout_s=120, interval_s=0.3)

        await assert_panel("Markets live", lambda live: live == 1)
        await assert_panel("Behind the log", lambda lag: lag == 0)
        await assert_panel("Coverage lag", lambda lag: lag < 10)
        await assert_panel("Errors, last 10 minutes", lambda errors: errors >= 0)
        await assert_panel("Waiting partitions", lambda waiting: waiting == 0)
        await asyncio.to_thread(postgres.stop)
        await assert_panel("Waiting partitions", lambda waiting: waiting > 0)
        await assert_panel("Behind the log", lambda lag: lag > 5)
        await assert_panel("Coverage lag", lambda lag: lag > 5)
        await assert_panel("Errors, last 10 minutes", lambda errors: errors > 0)
        await asyncio.to_thread(postgres.start)
        await assert_panel("Waiting partitions", lambda waiting: waiting == 0)
        await assert_panel("Behind the log", lambda lag: lag == 0)
        await assert_panel("Coverage lag", lambda lag: lag < 10)
        await assert_panel("Markets live", lambda live: live == 1)
