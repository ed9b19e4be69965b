"""Continuous integration calls the same targets as everybody, with the least rights and pinned actions."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

TARGETS = {
    *("install", "run", "test", "check", "lint", "fmt", "types", "build", "clean"),
    *("charts", "images", "version", "packages", "publish-images", "publish-charts"),
}
WRITES = {"release.yml:release": {"contents": "write"}}
"""The jobs that may do more than read, and what."""


@pytest.fixture
def workflows(repository: Path) -> dict[str, Any]:
    paths = sorted((repository / ".github/workflows").glob("*.yml"))
    # YAML 1.1 takes the key `on` for true.
    return {path.name: yaml.safe_load(path.read_text()) for path in paths}


@pytest.fixture
def jobs(workflows: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for file, workflow in workflows.items():
        assert workflow["permissions"] == {}, f"{file} grants rights to all its jobs"
        found.update({f"{file}:{name}": job for name, job in workflow["jobs"].items()})
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
    assert jobs.keys() >= WRITES.keys()
    for name, job in jobs.items():
        assert job["permissions"] == WRITES.get(name, {"contents": "read"}), name
        assert job["timeout-minutes"] <= 60, name


def test_no_job_leaves_its_token_in_the_checkout(jobs: dict[str, Any]) -> None:
    checkouts = [
        step
        for job in jobs.values()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/checkout@")
    ]

    assert len(checkouts) == len(jobs)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_secrets_are_given_to_single_steps_of_jobs_that_write_nothing(
    workflows: dict[str, Any], jobs: dict[str, Any]
) -> None:
    holders = set()
    for name, job in jobs.items():
        outside = {key: value for key, value in job.items() if key != "steps"}
        assert "secrets." not in str(outside), name
        if "secrets." in str(job["steps"]):
            holders.add(name)
            assert job["environment"] == "release", name

    assert holders == {"release.yml:publish"}
    assert not holders & WRITES.keys()
    assert all("secrets." not in str(workflow.get("env")) for workflow in workflows.values())


def test_nothing_from_outside_is_put_into_a_command(jobs: dict[str, Any]) -> None:
    """A branch or a title may be called anything; what a command needs comes by its environment."""
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]

    assert [command for command in commands if "${{" in command] == []


def test_only_a_tag_makes_a_release_and_no_pull_request_sees_a_secret(
    workflows: dict[str, Any],
) -> None:
    assert workflows["release.yml"][True] == {"push": {"tags": ["v*"]}}
    assert set(workflows["ci.yml"][True]) == {"push", "pull_request"}
    assert "secrets." not in str(workflows["ci.yml"])


def test_the_first_thing_that_a_release_does_is_to_look_at_its_tag(jobs: dict[str, Any]) -> None:
    first = next(step for step in jobs["release.yml:verify"]["steps"] if "run" in step)

    assert first["run"] == "make release-check"
    assert jobs["release.yml:publish"]["needs"] == ["verify"]
    assert jobs["release.yml:release"]["needs"] == ["publish"]


@pytest.fixture
def release(repository: Path, tmp_path: Path) -> Path:
    """What `.ci/release` reads, in a folder where it can be changed: version 9.8.7, in order."""
    for name in (".ci/release", "compose/docker.sh"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((repository / name).read_text())
    (tmp_path / "VERSION").write_text("9.8.7\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [9.8.7] - 2031-02-03\n\n- New.\n\n## [9.8.6] - 2031-01-01\n\n- Old.\n"
    )
    (tmp_path / "helm/api").mkdir(parents=True)
    (tmp_path / "helm/api/Chart.yaml").write_text("name: api\nversion: 9.8.7\n")
    return tmp_path


def _release(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(folder / ".ci/release"), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_release_whose_parts_agree_is_let_through(release: Path) -> None:
    done = _release(release, "check", RELEASE_TAG="v9.8.7")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("VERSION", "9.8.7", "9.8.8", "the tag would have to be v9.8.8"),
        ("CHANGELOG.md", "2031-02-03", "unreleased", "has no date"),
        ("CHANGELOG.md", "[9.8.7]", "[9.8.9]", "has no section [9.8.7]"),
        ("CHANGELOG.md", "- New.", "", "is empty"),
        ("helm/api/Chart.yaml", "9.8.7", "9.8.6", "helm/api/Chart.yaml isn't version 9.8.7"),
    ],
)
def test_a_release_whose_parts_differ_is_refused_in_one_sentence(
    release: Path, file: str, old: str, new: str, reason: str
) -> None:
    path = release / file
    path.write_text(path.read_text().replace(old, new))

    done = _release(release, "check", RELEASE_TAG="v9.8.7")

    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_candidate_s_chart_is_called_as_helm_wants_it(release: Path) -> None:
    for file in ("VERSION", "CHANGELOG.md"):
        path = release / file
        path.write_text(path.read_text().replace("9.8.7", "9.8.7rc1"))
    (release / "helm/api/Chart.yaml").write_text("name: api\nversion: 9.8.7-rc.1\n")

    assert _release(release, "check", RELEASE_TAG="v9.8.7rc1").returncode == 0


def test_the_notes_of_a_release_are_its_own_section(release: Path) -> None:
    assert _release(release, "notes").stdout.strip() == "- New."


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
