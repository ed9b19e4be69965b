"""The Prometheus that tests have: what it scrapes, what it refuses, and where its programs come from."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from vegamite_common.runtime.health import Health
from vegamite_common.runtime.management import open_management
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.process import ServiceError
from vegamite_common.testing.services.prometheus import (
    PrometheusServer,
    check_metrics,
    prometheus_programs,
)


async def test_what_a_service_counts_can_be_asked_for() -> None:
    registry = CollectorRegistry()
    counter = Counter("vegamite_test_things_total", "Things", ["kind"], registry=registry)
    counter.labels("one").inc(3)
    async with open_management(Health(), host="127.0.0.1", port=0, registry=registry) as port:
        server = PrometheusServer({"things": f"127.0.0.1:{port}"})
        try:
            await asyncio.to_thread(server.start)

            async def assert_sum(expected: str) -> None:
                found = await asyncio.to_thread(server.query, "sum(vegamite_test_things_total)")
                assert [series["value"][1] for series in found] == [expected]

            await eventually(lambda: assert_sum("3"), timeout_s=60)
            counter.labels("two").inc()
            await eventually(lambda: assert_sum("4"), timeout_s=60)
            assert server.healthy_jobs() == {"things"}
            assert server.label_values("kind", "vegamite_test_things_total") == ["one", "two"]
            with pytest.raises(ServiceError, match="parse error"):
                server.query("sum(")
        finally:
            await asyncio.to_thread(server.close)
    assert not server.directory.exists()


def test_a_name_that_breaks_the_conventions_is_found() -> None:
    good = "# HELP things_total Things.\n# TYPE things_total counter\nthings_total 1\n"
    assert check_metrics(good) == ""
    assert "_total" in check_metrics(good.replace("things_total", "things"))


def test_without_programs_and_packages_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VEGAMITE_TEST_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ServiceError, match="install Debian's `prometheus`"):
        prometheus_programs()


def test_a_package_is_unpacked_into_the_cache_and_never_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in (
        ("apt-get", "/usr/bin/touch prometheus_1_all.deb"),
        ("dpkg-deb", "/bin/mkdir -p tree/usr/bin"),
    ):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $@" >> {calls}\n{body}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("VEGAMITE_TEST_CACHE", str(tmp_path / "cache"))

    found = prometheus_programs()
    again = prometheus_programs()

    assert found == again
    assert found.promtool == tmp_path / "cache/prometheus/usr/bin/promtool"
    assert calls.read_text().splitlines() == [
        "apt-get download -q prometheus",
        "dpkg-deb -x prometheus_1_all.deb tree",
    ]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["prometheus"]
