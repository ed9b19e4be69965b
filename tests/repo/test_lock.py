"""The locks: every package pinned by hash, and no word about where to get it."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Beside requirements/: what benchmarks/peers/run.py installs into an environment of its own.
PEERS = "../benchmarks/peers/peers"
LOCKS = ["dev", "node", "build", "compile", "collector", "aggregator", "api", "standalone"]


def _pins(lock: Path) -> dict[str, str]:
    """The pinned version of every package in a lock; of several, that for the newest Python."""
    pins: dict[str, str] = {}
    for line in lock.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name, _, rest = line.partition("==")
            pins[canonicalize_name(name)] = rest.split()[0]
    return pins


def _declared(pyproject: Path, *, extras: bool) -> list[Requirement]:
    project = tomllib.loads(pyproject.read_text())["project"]
    texts = list(project["dependencies"])
    if extras:
        for extra in project.get("optional-dependencies", {}).values():
            texts += extra
    requirements = [Requirement(text) for text in texts]
    return [each for each in requirements if not each.name.startswith("vegamite-")]


def test_these_are_all_locks(repository: Path) -> None:
    assert {path.stem for path in repository.glob("requirements/*.txt")} == set(LOCKS)


@pytest.mark.parametrize("name", [*LOCKS, PEERS])
def test_a_lock_names_no_host_and_no_path(repository: Path, name: str) -> None:
    text = (repository / "requirements" / f"{name}.txt").read_text()

    assert (
        re.findall(r"^.*(?:://|--(?:extra-)?index-url|--find-links|^-e|@ ).*$", text, re.MULTILINE)
        == []
    )


@pytest.mark.parametrize("name", [*LOCKS, PEERS])
def test_every_package_of_a_lock_is_pinned_by_hash(repository: Path, name: str) -> None:
    text = (repository / "requirements" / f"{name}.txt").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if entry.strip()]
    unpinned = [
        entry
        for entry in entries
        if not re.match(r"[A-Za-z0-9._-]+==[^\s;]+( ; [^\\]+)? \\\n", entry)
        or not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)
    ]

    assert entries
    assert unpinned == []


@pytest.mark.parametrize("name", LOCKS)
def test_no_runtime_lock_differs_from_what_is_tested(repository: Path, name: str) -> None:
    tested = _pins(repository / "requirements/dev.txt")
    pins = _pins(repository / "requirements" / f"{name}.txt")
    if name == "node":
        assert not pins.keys() & tested.keys()
        return

    assert {
        package: (pin, tested.get(package))
        for package, pin in pins.items()
        if pin != tested.get(package)
    } == {}


@pytest.mark.parametrize("name", LOCKS[4:])
def test_a_lock_meets_what_its_member_declares(repository: Path, name: str) -> None:
    folder = repository / ("libs" if name == "standalone" else "services") / name
    pins = _pins(repository / "requirements" / f"{name}.txt")
    declared = [
        *_declared(folder / "pyproject.toml", extras=False),
        *_declared(repository / "libs/common/pyproject.toml", extras=False),
    ]

    unmet = [
        str(each)
        for each in declared
        if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
    ]
    assert unmet == []


def test_the_development_lock_meets_what_all_declare(
    repository: Path, members: dict[str, Path]
) -> None:
    pins = _pins(repository / "requirements/dev.txt")
    declared = [
        each
        for folder in members.values()
        for each in _declared(folder / "pyproject.toml", extras=True)
    ]
    declared += [
        Requirement(line)
        for name in ("dev.in", "build.in", "compile.in")
        for line in (repository / "requirements" / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]

    unmet = [
        str(each)
        for each in declared
        if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
    ]
    assert unmet == []
