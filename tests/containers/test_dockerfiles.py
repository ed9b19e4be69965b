"""Laws of the Dockerfiles and the build context, checked without building."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def dockerfiles(repository: Path) -> list[Path]:
    found = sorted(repository.glob("services/*/Dockerfile"))
    assert len(found) == 3
    return found


def test_hadolint_finds_nothing(repository: Path, dockerfiles: list[Path]) -> None:
    standins = sorted(repository.glob("tests/containers/standins/*/Dockerfile"))
    linted = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", *dockerfiles, *standins],
        capture_output=True,
        text=True,
        check=False,
    )

    assert linted.returncode == 0, linted.stdout


def test_no_build_fetches_a_front_end(dockerfiles: list[Path]) -> None:
    """A `# syntax=` line would pull an image before anything is built."""
    named = [str(path) for path in dockerfiles if "syntax=" in path.read_text()]

    assert named == []


def test_every_package_is_held_to_its_hash(dockerfiles: list[Path]) -> None:
    loose = [
        f"{path}: {line.strip()}"
        for path in dockerfiles
        for line in path.read_text().splitlines()
        if " install " in line
        # Debian has one version of a package at a time, and its mirrors drop the others.
        and not any(
            held in line for held in ("--require-hashes", "--no-index", "npm ci", "apt-get install")
        )
    ]

    assert loose == []


def test_the_three_differ_only_in_what_they_are(repository: Path) -> None:
    """The collector's and the aggregator's are the same lines but for names and the core; the api's adds its page and port."""

    def lines(service: str) -> list[str]:
        text = (repository / f"services/{service}/Dockerfile").read_text()
        return [
            line.replace(service, "SERVICE")
            for line in text.splitlines()
            if "description" not in line
        ]

    of_the_core = ("core, which is compiled", "DL3008", "apt-get", "compile_core.py")
    aggregator = [
        line.replace(" -r requirements/compile.txt", "").replace(" requirements/compile.txt", "")
        for line in lines("aggregator")
        if not any(said in line for said in of_the_core)
    ]
    assert lines("collector") == aggregator
    assert set(lines("collector")) - set(lines("api")) == {"EXPOSE 8001"}
