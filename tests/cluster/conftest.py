"""A real cluster with our images in it: what the charts' tests install into. Run by `make cluster-test`."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vegamite_common.testing.cluster import Cluster, open_cluster

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()
OURS = [f"vegamite/{service}:{VERSION}" for service in ("collector", "aggregator", "api")]
OTHERS = ["apache/kafka:4.1.0", "postgres:17-bookworm", "influxdb:2.7"]

Tell = Callable[[str], None]


@pytest.fixture(scope="session")
def tell() -> Tell:
    """Say what was seen and when, past pytest's capturing: this output is the evidence of a run."""
    began = time.monotonic()
    stream = sys.__stderr__ or sys.stderr

    def write(text: str) -> None:
        stream.write(f"{time.monotonic() - began:7.1f} s  {text}\n")
        stream.flush()

    return write


@pytest.fixture(scope="session")
def cluster(tell: Tell) -> Iterator[Cluster]:
    with open_cluster(tell) as opened:
        opened.load_images([*OURS, *OTHERS])
        tell(f"images are there: {', '.join([*OURS, *OTHERS])}")
        yield opened


@pytest.fixture(scope="session")
def charts() -> Path:
    return ROOT / "helm"
