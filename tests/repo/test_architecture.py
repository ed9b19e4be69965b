"""The architecture checks itself: the contracts hold, and each of them can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def _lint_imports(
    tree: Path, *, cache: Path, contract: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages below `tree`, whatever else is installed."""
    sources = [*tree.glob("libs/*/src"), *tree.glob("services/*/src")]
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-logo",
        "--cache-dir",
        str(cache),
    ]
    if contract is not None:
        command += ["--contract", contract]
    return subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def pristine(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of every member's Python sources, and of the contracts."""
    copy = tmp_path_factory.mktemp("architecture")
    shutil.copy(repository / ".importlinter", copy)
    for source in (*repository.glob("libs/*/src"), *repository.glob("services/*/src")):
        for path in source.rglob("*.py"):
            target = copy / path.relative_to(repository)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return copy


def test_every_contract_is_kept(repository: Path, tmp_path: Path) -> None:
    result = _lint_imports(repository, cache=tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


COLLECTOR = "services/collector/src/vegamite_collector"
AGGREGATOR = "services/aggregator/src/vegamite_aggregator"
API = "services/api/src/vegamite_api"
COMMON = "libs/common/src/vegamite_common"

VIOLATIONS = [
    ("members", f"{COLLECTOR}/service/__init__.py", "import vegamite_aggregator.service"),
    ("members", f"{COMMON}/runtime/health.py", "import vegamite_api.service"),
    ("common-layers", f"{COMMON}/domain/trade.py", "import vegamite_common.messages.trades"),
    ("common-layers", f"{COMMON}/newcomer.py", ""),
    ("collector-layers", f"{COLLECTOR}/core/__init__.py", "import vegamite_collector.ports"),
    ("collector-layers", f"{COLLECTOR}/newcomer.py", ""),
    (
        "aggregator-layers",
        f"{AGGREGATOR}/service/__init__.py",
        "import vegamite_aggregator.adapters",
    ),
    ("aggregator-layers", f"{AGGREGATOR}/newcomer.py", ""),
    ("api-layers", f"{API}/service/__init__.py", "import vegamite_api.http"),
    ("api-layers", f"{API}/newcomer.py", ""),
    ("standalone-layers", "libs/standalone/src/vegamite_standalone/newcomer.py", ""),
    ("production", f"{AGGREGATOR}/bootstrap.py", "import vegamite_common.testing"),
    ("pure", f"{AGGREGATOR}/core/__init__.py", "import time"),
    ("pure", f"{AGGREGATOR}/core/__init__.py", "import vegamite_common.bus.port"),
    ("pure", f"{COMMON}/domain/trade.py", "import asyncio"),
    ("foreign-systems", f"{API}/service/__init__.py", "import asyncpg"),
    ("foreign-systems", f"{COLLECTOR}/bootstrap.py", "import ccxt"),
    ("web", f"{API}/service/__init__.py", "import fastapi"),
]


@pytest.mark.parametrize(("contract", "path", "line"), VIOLATIONS)
def test_a_violation_breaks_its_contract(
    pristine: Path, contract: str, path: str, line: str
) -> None:
    module = pristine / path
    original = module.read_text() if module.exists() else None
    try:
        with module.open("a") as source:
            source.write(f"\n{line}\n")
        result = _lint_imports(pristine, cache=pristine / "cache", contract=contract)
    finally:
        if original is None:
            module.unlink()
        else:
            module.write_text(original)

    assert result.returncode == 1, f"{line!r} in {path} went unseen:\n{result.stdout}"
    assert "1 broken" in result.stdout or "BROKEN" in result.stdout, result.stdout + result.stderr


def test_every_contract_has_a_violation_that_breaks_it(repository: Path) -> None:
    declared = {
        line.removeprefix("[importlinter:contract:").removesuffix("]")
        for line in (repository / ".importlinter").read_text().splitlines()
        if line.startswith("[importlinter:contract:")
    }

    assert declared == {contract for contract, _, _ in VIOLATIONS}
