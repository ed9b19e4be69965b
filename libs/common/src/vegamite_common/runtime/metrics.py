"""Metrics that every service has, whatever it does; each service's own are in its `metrics.py`."""

from prometheus_client import Counter

FAULTS = Counter(
    "vegamite_common_faults_total",
    "Operational faults that were met and retried, by what failed",
    ["fault"],
)
"""Counted by `RepeatedFault`, whose events are constant texts; so the label has few values."""
