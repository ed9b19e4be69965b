"""A deployed system, as a command beside it sees it: its database, and its log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from vegamite_aggregator.adapters.schema import SCHEMA_MINIMUM, SCHEMA_VERSION
from vegamite_aggregator.config import AggregatorSettings
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError
from vegamite_common.runtime.lifecycle import Resources, StartError
from vegamite_common.runtime.postgres import open_pool, wait_for_schema
from vegamite_common.runtime.section import PostgresSection

SCHEMA_SECONDS = 5.0
"""How long a command waits for a schema: whoever gives it is at the terminal."""


@asynccontextmanager
async def open_known_database(section: PostgresSection, *, name: str) -> AsyncIterator[Any]:
    """Open a pool on a database whose schema is there; `StartError` otherwise. `name` is what the server calls us."""
    pool = await open_pool(section, application_name=name)
    try:
        await wait_for_schema(
            pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_VERSION, timeout_seconds=SCHEMA_SECONDS
        )
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def open_cluster(settings: AggregatorSettings, *, name: str) -> AsyncIterator[Resources]:
    """Open database and log of a deployed system; `StartError` where one can't be reached."""
    clock = settings.clock.clock()
    async with open_known_database(settings.postgres, name=name) as pool:
        bus = KafkaBus(settings.kafka, clock)
        try:
            await bus.start()
        except BusError as error:
            raise StartError(f"Kafka can't be reached: {error}") from None
        try:
            yield Resources(clock=clock, bus=bus, pool=pool)
        finally:
            await bus.close()
