"""Metrics that every service has, whatever it does, and how all of them are kept; each service's own are in its `metrics.py`.

`docs/metrics.md` tells of every one of them.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

# When a series was first seen is Prometheus' own knowledge; said by us, it would be as many series again.
disable_created_metrics()  # type: ignore[no-untyped-call]

Labelled = TypeVar("Labelled", bound=MetricWrapperBase)

FAULTS = Counter(
    "vegamite_common_faults_total",
    "Operational faults that were met and retried, by what failed",
    ["fault"],
)
"""Counted by `RepeatedFault`, whose events are constant texts; so the label has few values."""

BUILD = Gauge(
    "vegamite_common_build_info",
    "1 for each service that runs in the process, with its version",
    # Not "service": on Kubernetes that label is the scrape target's own.
    ["component", "version"],
)


def tell_build(service: str, *, component: str = "") -> None:
    """Export that this process runs the service (`collector`, `aggregator` or `api`), and in which version.

    `component` is what it is called where it isn't the service's main one.
    """
    try:
        installed = version(f"vegamite-{service}")
    except PackageNotFoundError:
        installed = "unknown"
    BUILD.labels(component or service, installed).set(1)


def from_zero(metric: Labelled, *values: str | tuple[str, ...]) -> Labelled:
    """Return the metric, with these labels exported as 0 from now on.

    A series that begins with its first event hides that event from `rate` and `increase`.
    """
    for value in values:
        metric.labels(*((value,) if isinstance(value, str) else value))
    return metric


def replace_values(gauge: Gauge, values: Mapping[tuple[Any, ...], float]) -> None:
    """Make the gauge export exactly these values, by the values of its labels: others are forgotten."""
    wanted = {tuple(map(str, labels)): value for labels, value in values.items()}
    for family in gauge.collect():
        for sample in family.samples:
            labels = tuple(sample.labels.values())
            if labels not in wanted:
                gauge.remove(*labels)
    for labels, value in wanted.items():
        gauge.labels(*labels).set(value)
