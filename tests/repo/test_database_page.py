"""`docs/database.md` tells of every table and of every right that is granted."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def migrations(repository: Path) -> str:
    versions = repository / "services/aggregator/src/vegamite_aggregator/migrations/versions"
    return "\n".join(path.read_text() for path in sorted(versions.glob("*.py")))


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/database.md").read_text()


def test_every_table_is_told_of(migrations: str, page: str) -> None:
    tables = set(re.findall(r"CREATE TABLE (\w+) \(", migrations))
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))

    assert tables
    assert tables <= told


def test_every_role_is_told_of(migrations: str, page: str) -> None:
    roles = set(re.findall(r"'(vegamite_\w+)'", migrations))

    assert roles
    assert [role for role in roles if f"| `{role}` |" not in page] == []
