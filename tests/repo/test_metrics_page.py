"""`docs/metrics.md` tells of every metric that a service exports, and each is as our conventions have it."""

import importlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.metrics import MetricWrapperBase

MODULES = (
    "vegamite_common.runtime.metrics",
    "vegamite_collector.metrics",
    "vegamite_aggregator.metrics",
    "vegamite_api.metrics",
)
# Prometheus gives these to whatever it scrapes; ours of the same name would be renamed.
TAKEN_LABELS = {"job", "instance", "namespace", "service", "pod", "container", "endpoint", "node"}
UNBOUNDED_LABELS = {"market", "symbol", "client", "address", "key", "path"}
ROW = re.compile(r"^\| `(vegamite_\w+)` \| (\w+) \| ([^|]*)\| ([^|]+) \|$", re.MULTILINE)


class Exported(NamedTuple):
    name: str
    type: str
    labels: tuple[str, ...]


def exported(module: str) -> list[Exported]:
    metrics = [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, MetricWrapperBase)
    ]
    return [
        Exported(
            metric._name + ("_total" if metric._type == "counter" else ""),
            str(metric._type),
            tuple(metric._labelnames),
        )
        for metric in metrics
    ]


@pytest.fixture(scope="module")
def all_exported() -> list[Exported]:
    return [metric for module in MODULES for metric in exported(module)]


def test_every_metrics_module_is_looked_at(members: dict[str, Path]) -> None:
    found = {
        ".".join(path.relative_to(folder / "src").with_suffix("").parts)
        for folder in members.values()
        for path in (folder / "src").rglob("metrics.py")
    }
    assert found == set(MODULES)


def test_the_page_tells_of_every_metric_with_its_type_and_labels(
    repository: Path, all_exported: list[Exported]
) -> None:
    page = (repository / "docs/metrics.md").read_text()
    told = [
        Exported(name, kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in ROW.findall(page)
    ]
    assert len(set(told)) == len(told)
    assert sorted(told) == sorted(all_exported)


def test_a_metric_is_named_by_its_service_and_nothing_else_is_put_in_its_labels(
    all_exported: list[Exported],
) -> None:
    assert len(all_exported) > 40
    for module in MODULES:
        service = module.split(".")[0].removeprefix("vegamite_")
        for metric in exported(module):
            assert metric.name.startswith(f"vegamite_{service}_")
            assert not TAKEN_LABELS & set(metric.labels), metric
            assert not UNBOUNDED_LABELS & set(metric.labels), metric


def test_only_metrics_modules_make_metrics(members: dict[str, Path]) -> None:
    makers = [
        str(path)
        for folder in members.values()
        for path in (folder / "src").rglob("*.py")
        if path.name != "metrics.py"
        and re.search(r"\b(?:Counter|Gauge|Histogram|Summary)\(\s*\"vegamite_", path.read_text())
    ]
    assert makers == []
