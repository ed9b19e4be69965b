"""The charts of this repository, rendered by both Helms before anything is asked of them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vegamite_common.testing.charts.helm import Helm
from vegamite_common.testing.charts.kubernetes_schemas import CustomSchemas
from vegamite_common.testing.charts.release import Release
from vegamite_common.testing.charts.scenario import Renders, Scenario, find_charts, find_scenarios
from vegamite_common.testing.services.kubernetes_tools import find_kubernetes_tools

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = find_scenarios(ROOT / "helm")
CHARTS = find_charts(ROOT / "helm")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def version() -> str:
    """What VERSION says."""
    return (ROOT / "VERSION").read_text().strip()


@pytest.fixture(scope="session")
def helms() -> dict[str, Helm]:
    """Both Helms by name."""
    tools = find_kubernetes_tools()
    return {"helm3": Helm(tools.helm3), "helm4": Helm(tools.helm4)}


@pytest.fixture(scope="session")
def helm(helms: dict[str, Helm]) -> Helm:
    """The newer Helm."""
    return helms["helm4"]


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads in which Helm's processes are waited for."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        yield threads


@pytest.fixture(scope="session")
def renders(helms: dict[str, Helm], pool: ThreadPoolExecutor) -> Renders:
    """What the charts make of every scenario."""
    made = Renders(helms, pool)
    for each in SCENARIOS:
        for name in helms:
            made.start(each, helm=name)
    return made


@pytest.fixture(scope="session", params=CHARTS, ids=lambda path: path.name)
def chart(request: pytest.FixtureRequest) -> Path:
    """The folder of every chart that renders, in turn."""
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture(scope="session", params=SCENARIOS, ids=str)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """Every scenario in turn."""
    assert isinstance(request.param, Scenario)
    return request.param


@pytest.fixture(scope="session")
def release(scenario: Scenario, renders: Renders) -> Release:
    """What the scenario makes on a cluster that has every API that the charts know of."""
    return Release(renders.get(scenario).manifests)


@pytest.fixture(scope="session")
def releases(renders: Renders) -> dict[str, Release]:
    """What every scenario makes, by chart-scenario."""
    return {str(each): Release(renders.get(each).manifests) for each in SCENARIOS}


@pytest.fixture(scope="session")
def custom_schemas() -> CustomSchemas | None:
    """Definitions of others' kinds, from the folder `crds` beside the recorded data; None where there is none."""
    data = os.environ.get("VEGAMITE_TEST_DATA")
    folder = Path(data).parent / "crds" if data else None
    return CustomSchemas(folder) if folder and folder.is_dir() else None
