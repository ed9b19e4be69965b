"""Continuous integration calls the same targets as everybody, with the least rights and pinned actions."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

TARGETS = {"install", "run", "test", "check", "lint", "fmt", "types", "build", "clean"}


@pytest.fixture
def jobs(repository: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((repository / ".github/workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, f"{path.name} grants rights to all its jobs"
        found.update({f"{path.name}:{name}": job for name, job in workflow["jobs"].items()})
    return found


def _targets(repository: Path) -> dict[str, str]:
    """Every target that `make help` shows, with its explanation."""
    text = (repository / "Makefile").read_text()
    return dict(re.findall(r"^([a-z-]+):.*?## (.+)$", text, re.MULTILINE))


def test_make_help_explains_every_target(repository: Path) -> None:
    targets = _targets(repository)

    assert targets.keys() >= TARGETS
    assert all(len(explanation) > 10 for explanation in targets.values())


def test_every_action_is_pinned_by_its_commit(jobs: dict[str, Any]) -> None:
    actions = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]

    assert actions
    assert [action for action in actions if not re.search(r"@[0-9a-f]{40}$", action)] == []


def test_jobs_run_make_targets_only(repository: Path, jobs: dict[str, Any]) -> None:
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]

    assert commands
    allowed = {f"make {target}" for target in _targets(repository)}
    assert [command for command in commands if command not in allowed] == []


def test_jobs_can_only_read_and_end_by_themselves(jobs: dict[str, Any]) -> None:
    for name, job in jobs.items():
        assert job["permissions"] == {"contents": "read"}, name
        assert job["timeout-minutes"] <= 60, name


def test_every_supported_python_is_tested(repository: Path, jobs: dict[str, Any]) -> None:
    tested = {
        version
        for job in jobs.values()
        for version in job.get("strategy", {}).get("matrix", {}).get("python", [])
    }
    pyproject = tomllib.loads((repository / "libs/common/pyproject.toml").read_text())

    assert (
        f">={min(tested, key=lambda text: tuple(map(int, text.split('.'))))}"
        == pyproject["project"]["requires-python"]
    )
