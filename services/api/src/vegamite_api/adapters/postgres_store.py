"""What the PostgreSQL stores share: one faithful translation of faults, and instants in and out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeAlias

import asyncpg

from vegamite_api.ports import StoreError
from vegamite_common.domain.time import LATEST, Micros, from_datetime, to_datetime
from vegamite_common.runtime.postgres import POSTGRES_FAULTS, describe

# Quoted: asyncpg's classes take parameters in its stubs alone.
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)

ACQUIRE_SECONDS = 10.0
SCHEMA_MINIMUM = 1
SCHEMA_KNOWN = 1


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection; faults of the database, and waiting too long for one, become `StoreError`."""
    try:
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as lent:
            yield lent
    except POSTGRES_FAULTS as error:
        raise StoreError(describe(error)) from error


def at(instant: Micros) -> datetime:
    """Return an instant as PostgreSQL takes it; the end of time stays inside what a datetime can be."""
    return to_datetime(min(instant, LATEST - 1))


def micros(instant: datetime) -> Micros:
    """Return an instant that PostgreSQL gave."""
    return from_datetime(instant)
