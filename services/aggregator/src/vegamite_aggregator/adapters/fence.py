"""The fence of a partition: a row that its one writer locks first in each transaction, and whose version it raises.

A process that was stopped inside a transaction holds the lock until its connection ends. So after two seconds of waiting
the assigned owner ends the backend that has the row, if that backend is of its own role. Whoever was ended finds its
transaction gone; whoever waited finds another version than it knew, or its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from vegamite_aggregator.adapters.row import Connection, optional_datetime
from vegamite_aggregator.core.allowance import SetApart
from vegamite_aggregator.metrics import COMMIT_SECONDS, LOCKS_BROKEN
from vegamite_aggregator.ports import FenceLostError, StoreError
from vegamite_common.domain.time import Micros
from vegamite_common.runtime.postgres import POSTGRES_FAULTS, describe

log = structlog.get_logger(__name__)

LOCK_TIMEOUT = "2s"
_ATTEMPTS = 3

STORE_FAULTS: tuple[type[BaseException], ...] = (
    *POSTGRES_FAULTS,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
    # The server's own trouble, as a file that can't grow for another reason than a full disk (a quota, a limit).
    asyncpg.InternalServerError,
    asyncpg.PostgresSystemError,
    # What an operator mends: a right that was revoked, a password that changed, a schema that isn't (yet) what it has to be.
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    # A migration beside us changed a table that we had asked before.
    asyncpg.InvalidCachedStatementError,
)
"""What a correct program meets when the database is away, restarts, is full, read-only, or not as it has to be."""

_LOCK = "SELECT version FROM partition_fence WHERE partition = $1 FOR UPDATE"
_WRITE = """
    UPDATE partition_fence SET version = version + 1, epoch = $2, next_offset = $3, last_append_time = $4, owner = $5,
        set_apart = $6, set_apart_since = $7
    WHERE partition = $1
"""

_CLOSED_HANDLE = "the handler is closed"
"""What uvloop says to who writes to a connection that has ended: asyncpg does, to say that a COPY failed by that very end."""

# The row's xmax is the transaction that has it locked; a backend of our role that runs that transaction is ended.
_END_HOLDER = """
    SELECT pg_terminate_backend(activity.pid, 2000) FROM partition_fence fence
    JOIN pg_stat_activity activity ON activity.backend_xid = fence.xmax
    WHERE fence.partition = $1 AND activity.pid <> pg_backend_pid()
        AND activity.usename = current_user AND activity.datname = current_database()
"""


@asynccontextmanager
async def store_faults() -> AsyncIterator[None]:
    """Turn the database's faults inside the block into `StoreError`; bugs stay what they are, and so does a cancellation."""
    try:
        yield
    except STORE_FAULTS as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Cleaning up on a dead connection raises instead of the cancellation that it was for.
            raise asyncio.CancelledError from error
        raise StoreError(describe(error)) from error
    except RuntimeError as error:
        if _CLOSED_HANDLE not in str(error):
            raise
        raise StoreError(f"the connection has ended: {error}") from error


async def begin_locked(connection: Connection, *, partition: int, version: int) -> None:
    """Begin a transaction whose first statement locks the partition's fence; raise `FenceLostError` for another version.

    Raise `StoreError` where the lock can't be had. Whoever calls this ends the transaction, after an error too.
    """
    for _ in range(_ATTEMPTS):
        # One message: the time-out holds for this transaction alone.
        await connection.execute(f"BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        try:
            found = await connection.fetchval(_LOCK, partition)
        except asyncpg.LockNotAvailableError:
            await connection.execute("ROLLBACK")
            await _end_holder(connection, partition)
            continue
        if found != version:
            raise FenceLostError(f"partition {partition}: version {found}, not {version}")
        return
    raise StoreError(f"partition {partition}: its fence stays locked")


async def _end_holder(connection: Connection, partition: int) -> None:
    ended: list[Any] = await connection.fetch(_END_HOLDER, partition)
    if ended:
        LOCKS_BROKEN.inc(len(ended))
        log.warning("ended a backend that held a partition's fence", partition=partition)


async def advance(
    connection: Connection,
    *,
    partition: int,
    epoch: int,
    next_offset: int,
    last_append_time: Micros | None,
    owner: str,
    set_apart: SetApart,
) -> None:
    """Write the fence's next version with where the log was read to, inside the transaction that locked it."""
    await connection.execute(
        _WRITE,
        partition,
        epoch,
        next_offset,
        optional_datetime(last_append_time),
        owner,
        set_apart.count,
        optional_datetime(set_apart.since),
    )


async def commit(connection: Connection) -> None:
    """Commit; raise `StoreError` unless the server said that it did."""
    with COMMIT_SECONDS.time():
        answer = await connection.execute("COMMIT")
    if answer != "COMMIT":
        raise StoreError(f"the transaction ended with {answer}")
