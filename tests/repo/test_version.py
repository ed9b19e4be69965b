"""One VERSION file says the version of everything."""

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PACKAGES = ["common", "standalone", "collector", "aggregator", "api"]


@pytest.fixture
def version(repository: Path) -> str:
    return (repository / "VERSION").read_text().strip()


def test_the_version_is_semantic(version: str) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", version)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_member_reports_the_one_version(package: str, version: str) -> None:
    assert importlib.metadata.version(f"vegamite-{package}") == version


def test_these_are_all_members(members: dict[str, Path]) -> None:
    assert set(members) == {f"vegamite_{package}" for package in PACKAGES}


def test_no_member_states_a_version_of_its_own(members: dict[str, Path]) -> None:
    stated = [
        str(path)
        for folder in members.values()
        for path in (folder / "pyproject.toml", *folder.glob("src/*/__init__.py"))
        if re.search(r"^(?:__version__|version)\s*=", path.read_text(), re.MULTILINE)
    ]

    assert stated == []


def test_the_changelog_tells_of_the_version(repository: Path, version: str) -> None:
    headings = re.findall(
        r"^## \[?([^\]\s]+)", (repository / "CHANGELOG.md").read_text(), re.MULTILINE
    )

    assert version in headings


@pytest.fixture
def charts(repository: Path) -> dict[str, dict[str, Any]]:
    """What the Chart.yaml of every chart says."""
    paths = sorted((repository / "helm").glob("*/Chart.yaml"))
    return {path.parent.name: yaml.safe_load(path.read_text()) for path in paths}


def _semver(version: str) -> str:
    """The version as Helm wants it: 1.0.0rc1 is 1.0.0-rc.1."""
    return re.sub(r"(a|b|rc)(\d+)$", r"-\1.\2", version)


def test_every_chart_says_the_one_version(charts: dict[str, dict[str, Any]], version: str) -> None:
    assert set(charts) == {"vegamite-common", "collector", "aggregator", "api", "vegamite"}
    for name, chart in charts.items():
        assert chart["version"] == _semver(version), f"{name}: run `make version`"
        assert chart["appVersion"] == version, f"{name}: run `make version`"
        for dependency in chart.get("dependencies", []):
            assert dependency["version"] == _semver(version), f"{name}: run `make version`"


@pytest.mark.parametrize("other", ["2.3.4", "2.3.4rc1"])
def test_make_version_writes_it_into_every_chart(
    repository: Path, charts: dict[str, dict[str, Any]], tmp_path: Path, other: str
) -> None:
    shutil.copy(repository / "Makefile", tmp_path)
    for name in charts:
        (tmp_path / "helm" / name).mkdir(parents=True)
        shutil.copy(repository / "helm" / name / "Chart.yaml", tmp_path / "helm" / name)
    (tmp_path / "VERSION").write_text(f"{other}\n")
    subprocess.run(["make", "--silent", "version"], cwd=tmp_path, check=True, timeout=60)

    for name, before in charts.items():
        after = yaml.safe_load((tmp_path / "helm" / name / "Chart.yaml").read_text())
        dependencies = [
            {**each, "version": _semver(other)} for each in before.get("dependencies", [])
        ]
        expected = {**before, "version": _semver(other), "appVersion": other}
        assert after == ({**expected, "dependencies": dependencies} if dependencies else expected)
