"""One VERSION file says the version of everything."""

import importlib.metadata
import re
from pathlib import Path

import pytest

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
