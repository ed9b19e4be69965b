"""`python -m vegamite_aggregator.adapters.schema_upgrade`: runs alembic to the head; asyncpg's arguments come as JSON by stdin."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

MIGRATIONS = Path(__file__).parents[1] / "migrations"


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _run(arguments: dict[str, Any]) -> None:
    async def connect(*_: object, **__: object) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(**arguments)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
            await connection.commit()
    finally:
        await engine.dispose()


def main() -> None:
    """Upgrade; end with one line on standard error and status 1 where the database refuses."""
    try:
        asyncio.run(_run(json.load(sys.stdin)))
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        sys.exit(str(cause or error.orig or error).splitlines()[0])
    except (OSError, asyncpg.PostgresError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
