"""What is installed from a wheel is whole: the page, the migrations, the commands, the licence's name."""

import configparser
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(members: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a freshly built wheel of every member."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    for folder in members.values():
        build = [sys.executable, "-m", "build", "--quiet", "--wheel", "--no-isolation"]
        subprocess.run([*build, "--outdir", str(wheels), str(folder)], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, "--target", str(target), *map(str, wheels.glob("*.whl"))], check=True)
    return target


def test_every_source_file_is_installed(installed: Path, members: dict[str, Path]) -> None:
    missing = [
        str(path)
        for folder in members.values()
        for path in (folder / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        if not (installed / path.relative_to(folder / "src")).is_file()
    ]

    assert missing == []


def test_the_api_brings_its_page(installed: Path) -> None:
    page = (installed / "vegamite_api/static/index.html").read_text()

    scripts = list((installed / "vegamite_api/static").rglob("*.js"))
    assert "<script" in page
    assert any(script.name in page for script in scripts)


def test_the_aggregator_brings_its_migrations(installed: Path) -> None:
    assert (installed / "vegamite_aggregator/migrations/env.py").is_file()
    assert list((installed / "vegamite_aggregator/migrations/versions").glob("0001_*.py"))


def test_every_command_comes_with_its_member(installed: Path) -> None:
    scripts: dict[str, str] = {}
    for entry_points in installed.glob("vegamite_*.dist-info/entry_points.txt"):
        parser = configparser.ConfigParser()
        parser.read_string(entry_points.read_text())
        scripts.update(parser["console_scripts"])

    assert set(scripts) == {"vegamite", "vegamite-collector", "vegamite-aggregator", "vegamite-api"}


def test_wheels_say_version_and_licence(installed: Path, repository: Path) -> None:
    distributions = list(importlib.metadata.distributions(path=[str(installed)]))

    assert len(distributions) == 5
    for distribution in distributions:
        assert distribution.version == (repository / "VERSION").read_text().strip()
        assert distribution.metadata["License-Expression"] == "Apache-2.0"


def test_a_pure_wheel_of_the_aggregator_is_for_every_machine(
    members: dict[str, Path], tmp_path: Path
) -> None:
    build = [sys.executable, "-m", "build", "--quiet", "--wheel", "--no-isolation"]
    subprocess.run(
        [*build, "--outdir", str(tmp_path), str(members["vegamite_aggregator"])],
        check=True,
        env=os.environ | {"VEGAMITE_WHEEL": "pure"},
    )

    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as contents:
        assert [name for name in contents.namelist() if name.endswith(".so")] == []
