"""The database schema: its version, and how it is brought to this release's.

Alembic and SQLAlchemy run in a process of their own: a service that stays for months shouldn't carry their memory for
a second's work. The database's address reaches it through standard input, so that no process list shows a password.
"""

import asyncio
import json
import sys

import asyncpg

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.ports import StoreError
from vegamite_common.runtime.postgres import POSTGRES_FAULTS, connect_arguments, describe
from vegamite_common.runtime.section import PostgresSection

SCHEMA_VERSION = 2
"""Version that this release's migrations lead to."""

SCHEMA_MINIMUM = 2
"""Oldest schema that this release's aggregator can work with."""

_VERSION = "SELECT version FROM schema_version"

_APPLICATION = "vegamite-migrate"
_FAULTS: tuple[type[BaseException], ...] = (*POSTGRES_FAULTS, asyncpg.PostgresError)


class MigrationError(Exception):
    """The schema couldn't be upgraded; the text says why."""


async def schema_version(postgres: PostgresSection) -> int:
    """Return the version of the schema, 0 where there is none; raise `MigrationError` where the database can't be asked."""
    try:
        connection = await asyncpg.connect(
            **connect_arguments(postgres, application_name=_APPLICATION)
        )
    except _FAULTS as error:
        raise MigrationError(f"PostgreSQL can't be reached: {describe(error)}") from None
    try:
        if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
            return 0
        return int(await connection.fetchval(_VERSION))
    finally:
        await connection.close()


async def require_schema(connection: Connection) -> None:
    """Raise `StoreError`, whose text says what to do, unless the schema is one that this release's aggregator can work with."""
    try:
        version = await connection.fetchval(_VERSION)
    except asyncpg.UndefinedTableError:
        version = 0
    if (version or 0) < SCHEMA_MINIMUM:
        raise StoreError(
            f"the database schema is version {version or 0}, version {SCHEMA_MINIMUM} or later is needed: run the migrations"
        )


async def upgrade_schema(postgres: PostgresSection) -> bool:
    """Bring the schema to this release's version, never back; return whether there was something to do.

    Raise `MigrationError` where that fails; then nothing has changed. Two at once take turns.
    """
    if await schema_version(postgres) >= SCHEMA_VERSION:
        return False
    arguments = connect_arguments(postgres, application_name=_APPLICATION)
    arguments.pop("command_timeout")  # a migration may take its time
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vegamite_aggregator.adapters.schema_upgrade",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await process.communicate(json.dumps(arguments).encode())
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit {process.returncode}"
        raise MigrationError(f"the schema can't be upgraded: {reason}")
    return True
