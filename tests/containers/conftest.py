"""Docker, as the tests use it; `make test-containers` sees to it that a daemon answers and the images are there."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("collector", "aggregator", "api")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


def _tool(function: str, variable: str) -> list[str]:
    """The program that the scripts of `compose/` choose, so that tests use the same."""
    script = f'source compose/docker.sh && find_docker && {function} && printf "%s\\n" "{variable}"'
    found = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, f"{found.stderr}\nrun these tests by `make test-containers`"
    return found.stdout.split()


@pytest.fixture(scope="session")
def docker() -> Run:
    """Run the Docker client with these arguments; it must succeed unless `check=False`."""
    client = _tool("need_daemon", "$docker")

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*client, *arguments], capture_output=True, text=True, check=False, timeout=120
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def compose_command() -> list[str]:
    """Docker Compose, as `make dev` calls it."""
    return _tool("find_compose", "${compose[*]}")


@pytest.fixture(scope="session")
def tag() -> str:
    """The tag of the images under test."""
    return os.environ.get("TAG") or (ROOT / "VERSION").read_text().strip()


@pytest.fixture(scope="session", params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """One service after the other."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def image(service: str, tag: str) -> str:
    return f"vegamite/{service}:{tag}"


@pytest.fixture(scope="session")
def inspect(docker: Run) -> Callable[[str], dict[str, Any]]:
    """What Docker knows of an image or a container."""

    def look(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", name).stdout)[0]
        return found

    return look


@pytest.fixture
def readable_tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder that users inside of containers may read."""
    folder = Path("/tmp") / f"vegamite-containers-{tmp_path.name}-{os.getpid()}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
