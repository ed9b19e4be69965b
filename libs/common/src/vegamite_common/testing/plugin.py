"""pytest fixtures for real servers; the root conftest.py activates this plugin.

`postgres_url`, `kafka_bootstrap` and `influxdb` last for the session, `database` is a fresh database a test.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from vegamite_common.testing.services.chromium import find_chromium
from vegamite_common.testing.services.influxdb import InfluxAddress
from vegamite_common.testing.services.source import Say, open_influxdb, open_kafka, open_postgres

_TAKEN = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep a list of the servers that the session takes."""
    config.stash[_TAKEN] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """End the run's report with where its servers came from."""
    for line in config.stash[_TAKEN]:
        terminalreporter.write_line(f"server used: {line}")


def _say(config: pytest.Config) -> Say:
    return config.stash[_TAKEN].append


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """A real PostgreSQL server's superuser URL, for the whole session."""
    with open_postgres(_say(pytestconfig)) as url:
        yield url


@pytest.fixture(scope="session")
def kafka_bootstrap(pytestconfig: pytest.Config) -> Iterator[str]:
    """A real Kafka broker's address, for the whole session; name topics and groups for yourself."""
    with open_kafka(_say(pytestconfig)) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def influxdb(pytestconfig: pytest.Config) -> Iterator[InfluxAddress]:
    """A real InfluxDB's address and token, for the whole session; name buckets for yourself."""
    with open_influxdb(_say(pytestconfig)) as address:
        yield address


@pytest_asyncio.fixture
async def database(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a fresh, empty database, dropped after the test whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(postgres_url)
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        yield urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser that page tests drive through Playwright's `executable_path`."""
    return find_chromium()
