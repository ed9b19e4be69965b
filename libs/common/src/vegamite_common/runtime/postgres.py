"""PostgreSQL for every service: one pool, opened with patience, and the check that the schema is one the service knows.

The connection speaks UTC; `numeric` comes as `Decimal` and `timestamptz` as an aware `datetime` (asyncpg's own
conversions; `domain.time` has those to microseconds).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import structlog

from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.lifecycle import StartError
from vegamite_common.runtime.section import PostgresSection

log = structlog.get_logger(__name__)

POSTGRES_FAULTS: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    socket.gaierror,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # Seen: what a statement gets on a connection that the server ended a moment before.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
)
"""What a database can do to a correct program: retried with backoff, never a crash."""

_UNKNOWN_SCHEMA: tuple[type[BaseException], ...] = (
    *POSTGRES_FAULTS,
    asyncpg.InsufficientPrivilegeError,
)
"""Who meets these can't tell the schema's version, for now."""

_REFUSALS = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def connect_arguments(section: PostgresSection, *, application_name: str) -> dict[str, Any]:
    """What `asyncpg.connect` and `create_pool` need to reach the database of a section, secrets included."""
    arguments: dict[str, Any] = {
        "dsn": section.url.get_secret_value(),
        "timeout": section.connect_timeout_ms / 1000,
        "command_timeout": section.command_timeout_ms / 1000,
        "server_settings": {"application_name": application_name, "TimeZone": "UTC"},
    }
    if section.password is not None:
        arguments["password"] = section.password.get_secret_value()
    return arguments


async def open_pool(
    section: PostgresSection, *, application_name: str = "vegamite"
) -> asyncpg.Pool[asyncpg.Record]:
    """Open a pool of up to `pool_size` connections; waits `start_timeout_ms` for a database that isn't there yet.

    Raises `StartError` where it stays away, or refuses the user, the password or the database.
    """
    arguments = connect_arguments(section, application_name=application_name)
    _check_certificate_files(arguments["dsn"])
    deadline = time.monotonic() + section.start_timeout_ms / 1000
    backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
    told = False
    while True:
        try:
            return await asyncpg.create_pool(
                min_size=1, max_size=section.pool_size, init=_meet_arrays, **arguments
            )
        except _REFUSALS as error:
            raise StartError(f"PostgreSQL refused the connection: {error}") from None
        except ssl.SSLCertVerificationError as error:
            raise StartError(
                f"PostgreSQL's certificate isn't trusted: {error.verify_message}"
            ) from None
        except ValueError as error:
            raise StartError(f"postgres.url can't be used: {type(error).__name__}") from None
        except POSTGRES_FAULTS as error:
            if time.monotonic() >= deadline:
                raise StartError(f"PostgreSQL can't be reached: {describe(error)}") from None
            if not told:
                log.warning("waiting for PostgreSQL", error=describe(error))
                told = True
            await asyncio.sleep(backoff.next_delay())


async def _meet_arrays(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Have the client ask once for all the arrays that statements take: it does for each new one, in the midst of the work."""
    await connection.fetch(_ARRAYS, [], [], [], [], [], [], [])


_ARRAYS = "SELECT $1::int[], $2::bigint[], $3::text[], $4::timestamptz[], $5::bytea[], $6::numeric[], $7::bool[]"


def _check_certificate_files(url: str) -> None:
    """Raise `StartError` for a file of the url that can't be read: asyncpg's own error doesn't name it."""
    options = parse_qs(urlsplit(url).query)
    for option in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        for name in options.get(option, ()):
            try:
                Path(name).open("rb").close()
            except OSError as error:
                raise StartError(
                    f"postgres.url names {name} as {option}, which can't be read: {error.strerror}"
                ) from None


def describe(error: BaseException) -> str:
    """One line for a fault; an exception without a text is named by its type."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


async def wait_for_schema(
    pool: asyncpg.Pool[asyncpg.Record], *, minimum: int, own: int, timeout_seconds: float = 60.0
) -> int:
    """Wait until the schema's version is at least `minimum`, and return it.

    Raises `StartError` when the time is over, or when the schema's `compatible_from` says that code which knows version
    `own` can't use it. No table at all counts as version 0.
    """
    deadline = time.monotonic() + timeout_seconds
    told = False
    while True:
        version, compatible_from = await _schema_version(pool)
        if compatible_from > own:
            raise StartError(
                f"the database schema is version {version} and needs a vegamite that knows version {compatible_from}; "
                f"this one knows {own}"
            )
        if version >= minimum:
            return version
        if time.monotonic() >= deadline:
            raise StartError(
                f"the database schema is version {version}, version {minimum} or later is needed: run the migrations"
            )
        if not told:
            log.info("waiting for the database schema", version=version, minimum=minimum)
            told = True
        await asyncio.sleep(0.25)


async def _schema_version(pool: asyncpg.Pool[asyncpg.Record]) -> tuple[int, int]:
    try:
        row = await pool.fetchrow("SELECT version, compatible_from FROM schema_version")
    except asyncpg.UndefinedTableError:
        return 0, 0
    except _UNKNOWN_SCHEMA:
        return 0, 0
    return (row["version"], row["compatible_from"]) if row else (0, 0)
