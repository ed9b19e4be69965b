"""What the services of one process share: the data directory, its PostgreSQL, the bus, the clock.

Opened in this order, closed in the other: lock, database server, schema, pool, bus. Whatever an operator can
mend is a `StartError` of one sentence.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from vegamite_aggregator.bootstrap import open_service as open_aggregator
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.migrate import MigrationError, migrate_database
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.offset_store import FileOffsetStore
from vegamite_common.bus.port import BusError
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.data_directory import DataDirectory, DataDirectoryError
from vegamite_common.runtime.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from vegamite_common.runtime.lifecycle import Resources, StartError, Stop
from vegamite_common.runtime.logging import RepeatedFault
from vegamite_common.runtime.postgres import open_pool
from vegamite_common.runtime.section import PostgresSection
from vegamite_standalone.config import PARTITIONS, StandaloneSection, StandaloneSettings

_LOCK = 0x7665_6761_6D69_7465  # "vegamite": the key of the advisory lock on a given database

READY_POLL_SECONDS = 0.02

WATCH_SECONDS = 1.0
"""How often we look whether the database still runs."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class LocalSystem:
    """An open instance: its directory, what its services share, and the database's settings."""

    directory: Path
    resources: Resources
    postgres: PostgresSection


@asynccontextmanager
async def hold_data_directory(section: StandaloneSection) -> AsyncIterator[Path]:
    """Hold the instance's directory for this process; `StartError` where it is in use or can't be used."""
    held = DataDirectory(section.data_directory, with_database=section.database_url is None)
    try:
        await asyncio.to_thread(held.open)
    except DataDirectoryError as error:
        raise StartError(str(error)) from None
    try:
        yield held.path
    finally:
        held.close()


@asynccontextmanager
async def hold_used_directory(section: StandaloneSection) -> AsyncIterator[Path]:
    """Hold the directory of an instance that has run before; `StartError` where none has, and nothing is made."""
    directory = section.data_directory.expanduser()
    if section.database_url is None and not (directory / "postgres" / "data").exists():
        raise StartError(f"no instance has kept data in {directory}")
    async with hold_data_directory(section) as held:
        yield held


@asynccontextmanager
async def open_database(
    settings: StandaloneSettings, directory: Path, *, migrate: bool = True
) -> AsyncIterator[PostgresSection]:
    """Give the settings of a database: the one configured, or our own server in `directory`.

    It is migrated, unless whoever asks only wants to read what is there.
    """
    given = settings.standalone.database_url
    async with AsyncExitStack() as stack:
        if given is not None:
            section = settings.postgres.model_copy(update={"url": given, "password": None})
        else:
            server = await stack.enter_async_context(_run_server(settings, directory))
            update = {"url": SecretStr(server.url), "password": None}
            section = settings.postgres.model_copy(update=update)
        if migrate:
            try:
                await migrate_database(section)
            except MigrationError as error:
                raise StartError(f"the database can't be migrated: {error}") from None
        yield section


@asynccontextmanager
async def _run_server(
    settings: StandaloneSettings, directory: Path
) -> AsyncIterator[EmbeddedPostgres]:
    """Run our own server inside the block, and again whenever it dies there."""
    server = EmbeddedPostgres(directory / "postgres", bin_dir=settings.standalone.postgres_bin_dir)
    try:
        await _in_thread(server.start)
        log.info("database running", process=server.pid, adopted=server.adopted)
        watching = asyncio.create_task(_keep_running(server), name="database")
        try:
            yield server
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    except EmbeddedPostgresError as error:
        raise StartError(str(error)) from None
    finally:
        await _in_thread(server.stop)


async def _keep_running(server: EmbeddedPostgres) -> None:
    fault = RepeatedFault("the database can't be started again", over="the database is back")
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if server.running:
            continue
        log.error("the database ended by itself")
        try:
            await _in_thread(server.start)
        except EmbeddedPostgresError as error:
            fault.failed(error)
        else:
            fault.went_well()
            log.info("database running", process=server.pid, adopted=server.adopted)


async def _in_thread(call: Callable[[], None]) -> None:
    """Call it in a thread, and end only with it: a thread can't be cancelled, and its server has to be known."""
    calling = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait({calling})
        raise


@asynccontextmanager
async def open_local_system(
    settings: StandaloneSettings, *, directory: Path
) -> AsyncIterator[LocalSystem]:
    """Open database, pool and bus of the instance in `directory`, which the caller holds."""
    async with AsyncExitStack() as stack:
        section = await stack.enter_async_context(open_database(settings, directory))
        pool = await open_pool(section, application_name="vegamite")
        stack.push_async_callback(pool.close)
        if settings.standalone.database_url is not None:
            await stack.enter_async_context(_only_user(pool))
        clock = settings.clock.clock()
        bus = await stack.enter_async_context(_run_bus(clock, directory))
        resources = Resources(clock=clock, bus=bus, pool=pool)
        yield LocalSystem(directory=directory, resources=resources, postgres=section)


@asynccontextmanager
async def _run_bus(clock: Clock, directory: Path) -> AsyncIterator[MemoryBus]:
    store = FileOffsetStore(directory / "offsets.json")
    bus = MemoryBus(clock=clock, partitions=PARTITIONS, offsets=store)
    try:
        await bus.start()
    except BusError as error:
        raise StartError(str(error)) from None
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def _only_user(pool: Any) -> AsyncIterator[None]:
    """Hold a given database for this process: another one has other offsets, and both would be wrong."""
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise StartError("the database is in use by another vegamite process")
        yield


@asynccontextmanager
async def run_aggregator(settings: AggregatorSettings, resources: Resources) -> AsyncIterator[None]:
    """Run the aggregator beside the block, and drain it at the block's end; its failure ends the block."""
    stop = Stop()
    async with (
        open_aggregator(settings, resources=resources) as aggregator,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(aggregator.run(stop), name=aggregator.name)
        try:
            # The bus inside the process keeps for a reader what it hasn't read: from when it is there, not before.
            while not aggregator.health.ready().ok:  # noqa: ASYNC110 -- health is asked, it tells nobody
                await asyncio.sleep(READY_POLL_SECONDS)
            yield
        finally:
            stop.request()
