"""What the laws about the repository look at."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def members() -> dict[str, Path]:
    """Every member's folder by the name of its import package."""
    pyprojects = sorted(
        (*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml"))
    )
    return {f"vegamite_{path.parent.name}": path.parent for path in pyprojects}


@pytest.fixture(scope="session")
def committed_files() -> list[Path]:
    """Every text file that is in the repository, or would be by the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = sorted({ROOT / name for name in listed.stdout.split("\0") if name})
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]
