"""What is in the images of the services, and how they start and end under the hardening that charts and Compose give."""

import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.eventually import eventually

Run = Callable[..., subprocess.CompletedProcess[str]]
Inspect = Callable[[str], dict[str, Any]]

HARDENED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
)


@pytest.fixture
def shell(docker: Run, image: str) -> Callable[[str], str]:
    """Run a line of shell in the image, hardened; gives what it printed."""

    def run(line: str) -> str:
        return docker("run", "--rm", *HARDENED, "--entrypoint=sh", image, "-c", line).stdout.strip()

    return run


@pytest.fixture
def container(docker: Run) -> Iterator[str]:
    """A name for a container, which is gone after the test."""
    name = f"vegamite-test-{uuid.uuid4().hex[:12]}"
    yield name
    docker("rm", "--force", "--volumes", name, check=False)


def test_labels_say_what_it_is_and_from_which_commit(
    image: str, service: str, inspect: Inspect, repository: Path
) -> None:
    labels = inspect(image)["Config"]["Labels"]
    known = {
        name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()
    }

    assert known["title"] == f"vegamite-{service}"
    assert known["version"] == (repository / "VERSION").read_text().strip()
    assert known["licenses"] == "Apache-2.0"
    assert len(known["description"]) > 20
    assert re.fullmatch(r"[0-9a-f]{40}", known["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", known["created"])


def test_it_runs_the_service_alone_as_a_numeric_user(
    image: str, service: str, inspect: Inspect
) -> None:
    config = inspect(image)["Config"]

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == [f"vegamite-{service}"]
    assert not config.get("Cmd")
    assert config["WorkingDir"] == "/"
    ports = {"8000/tcp", "8001/tcp"} if service == "api" else {"8001/tcp"}
    assert set(config["ExposedPorts"]) == ports


def test_the_aggregators_core_is_compiled(shell: Callable[[str], str], service: str) -> None:
    if service == "aggregator":
        line = "from vegamite_aggregator.core.trade_block import COMPILED; print(COMPILED)"
        assert shell(f"python -c '{line}'") == "True"


def test_nothing_is_in_it_that_installs_or_tests(shell: Callable[[str], str]) -> None:
    assert shell("command -v pip pip3 || true") == ""
    assert shell("python -c 'import pip' 2>&1 | tail -1").startswith("ModuleNotFoundError")
    assert shell("python -m ensurepip 2>&1 | tail -1").endswith("No module named ensurepip")
    inside = shell("find /opt/vegamite -path '*vegamite_common/testing*' -o -type d -name tests")
    assert inside == ""


def test_only_the_services_own_code_is_in_it(shell: Callable[[str], str], service: str) -> None:
    packages = shell(
        "ls /opt/vegamite/lib/python3*/site-packages | grep '^vegamite_[a-z]*$'"
    ).split()

    assert sorted(packages) == sorted(["vegamite_common", f"vegamite_{service}"])


def test_its_packages_are_the_locked_ones(
    shell: Callable[[str], str], service: str, repository: Path
) -> None:
    lines = (repository / f"requirements/{service}.txt").read_text().splitlines()
    locked = {
        f"{match[1].replace('_', '-').lower()}=={match[2]}"
        for line in lines
        if (match := re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line))
    }
    listed = shell(
        "python -c 'from importlib.metadata import distributions as all\n"
        'for d in all(): print(d.name.lower().replace("_", "-") + "==" + d.version)\''
    ).split()
    others = {line for line in listed if not line.startswith("vegamite-")}

    assert others
    assert others - locked == set()


def test_it_is_compiled_so_that_a_read_only_root_starts_as_fast(
    shell: Callable[[str], str], service: str
) -> None:
    sources = shell(
        f"find /opt/vegamite -path '*/vegamite_{service}/*.py' -size +0 -not -path '*/migrations/*' | wc -l"
    )
    compiled = shell(f"find /opt/vegamite -path '*/vegamite_{service}/*.pyc' | wc -l")

    assert int(compiled) >= int(sources) > 10


def test_its_user_owns_nothing_in_it(docker: Run, image: str) -> None:
    """Where the root is writable for once, the service still can't change its own code."""
    command = "find / -xdev -writable -not -type l -not -path '/tmp*' -not -path '/var/tmp*' | grep -v '^/run/lock$' | head -5"

    assert docker("run", "--rm", "--entrypoint=sh", image, "-c", command).stdout == ""


def test_the_api_serves_the_page_that_was_built(docker: Run, tag: str, repository: Path) -> None:
    page = repository / "services/api/src/vegamite_api/static/index.html"
    inside = docker(
        *("run", "--rm", *HARDENED, "--entrypoint=python", f"vegamite/api:{tag}", "-c"),
        "import vegamite_api, pathlib as p; print((p.Path(vegamite_api.__file__).parent / 'static/index.html').read_text(), end='')",
    ).stdout

    assert inside == page.read_text()


def test_without_a_configuration_it_ends_with_one_sentence(docker: Run, image: str) -> None:
    ended = docker("run", "--rm", *HARDENED, image, "--config", "/nowhere.toml", check=False)

    assert ended.returncode == 2
    assert "/nowhere.toml" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


async def test_told_to_stop_while_it_waits_for_its_database_it_ends_with_0(
    docker: Run, image: str, container: str, inspect: Inspect, readable_tmp_path: Path
) -> None:
    config = readable_tmp_path / "vegamite.toml"
    config.write_text(
        '[kafka]\nbootstrap_servers = "127.0.0.1:9"\n[postgres]\nurl = "postgresql://nobody@127.0.0.1:9/none"\n'
    )
    mount = f"--volume={config}:/etc/vegamite/vegamite.toml:ro"
    arguments = ("--config", "/etc/vegamite/vegamite.toml")
    docker("run", "--detach", f"--name={container}", *HARDENED, mount, image, *arguments)

    def waits() -> bool:
        logs = docker("logs", container)
        assert inspect(container)["State"]["Running"], logs.stderr
        return bool(logs.stdout + logs.stderr)

    await eventually(waits, timeout_s=60, interval_s=0.2, message="a first word in the log")
    docker("stop", "--time=30", container)

    assert inspect(container)["State"]["ExitCode"] == 0, docker("logs", container).stderr


def test_it_is_built_again_from_what_is_here_within_its_limit(
    repository: Path, image: str, service: str
) -> None:
    built = subprocess.run(
        [repository / "compose/images", service],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={**os.environ, "REGISTRY": ""},
    )

    assert built.returncode == 0, built.stderr
    found = re.fullmatch(rf"{re.escape(image)}\s+(\d+) MB over the base,\s+\d+ s\n", built.stdout)
    assert found, built.stdout
    assert 0 < int(found[1]) <= (400 if service == "api" else 180)
