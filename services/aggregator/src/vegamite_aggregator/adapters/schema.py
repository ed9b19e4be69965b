"""The database schema: its version, and how it is brought to this release's.

Alembic and SQLAlchemy run in a process of their own: a service that stays for months shouldn't carry their memory for
a second's work. The database's address reaches it through standard input, so that no process list shows a password.
"""

import asyncio
import sys

import asyncpg

SCHEMA_VERSION = 1
"""Version that this release's migrations lead to."""

SCHEMA_MINIMUM = 1
"""Oldest schema that this release's aggregator can work with."""


class MigrationError(Exception):
    """The schema couldn't be upgraded; the text says why."""


async def schema_version(url: str) -> int:
    """Return the version of the schema at `url`, 0 where there is none; raise what asyncpg raises."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
            return 0
        return int(await connection.fetchval("SELECT version FROM schema_version"))
    finally:
        await connection.close()


async def upgrade_schema(url: str) -> bool:
    """Bring the schema at `url` to this release's version, never back; return whether there was something to do.

    Raise `MigrationError` where that fails; then nothing has changed. Two at once take turns.
    """
    if await schema_version(url) >= SCHEMA_VERSION:
        return False
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vegamite_aggregator.adapters.schema_upgrade",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await process.communicate(url.encode())
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or [
            f"exit {process.returncode}"
        ]
        raise MigrationError(f"the schema can't be upgraded: {lines[-1]}")
    return True
