"""Builds the aggregator of settings: the only place that knows which adapters there are."""

import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from vegamite_aggregator.adapters.candle_reader import PostgresCandleReader
from vegamite_aggregator.adapters.maintenance_store import PostgresMaintenanceStore
from vegamite_aggregator.adapters.outbox_table import PostgresOutbox
from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.adapters.schema import SCHEMA_MINIMUM, SCHEMA_VERSION
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.metrics import SINK_RETRIES
from vegamite_aggregator.service import AggregatorService
from vegamite_aggregator.service.maintenance import Maintenance
from vegamite_aggregator.service.sink import REVISED_STREAMS, SinkService
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.lifecycle import Resources, StartError
from vegamite_common.runtime.postgres import open_pool, wait_for_schema


@asynccontextmanager
async def open_service(
    settings: AggregatorSettings,
    *,
    resources: Resources | None = None,
    new_log_epoch: bool = False,
) -> AsyncIterator[AggregatorService]:
    """Build the aggregator; what isn't given in `resources` is opened here, and closed at the block's end.

    Waits for the database; raises `StartError` where it or the log can't be had, or the schema is of a later release. One that is
    too old, or not there yet, the service waits for itself: not ready, and saying why.
    """
    async with AsyncExitStack() as stack:
        if resources is None:
            resources = await _open_resources(settings, stack)
        await wait_for_schema(resources.pool, minimum=0, own=SCHEMA_VERSION)
        yield AggregatorService(
            bus=resources.bus,
            store=PostgresCandleStore(resources.pool, owner=_owner()),
            outbox=PostgresOutbox(resources.pool),
            clock=resources.clock,
            section=settings.aggregator,
            new_log_epoch=new_log_epoch,
            upkeep=PostgresMaintenanceStore(resources.pool),
        )


@asynccontextmanager
async def open_sink(settings: AggregatorSettings) -> AsyncIterator[SinkService]:
    """Build the role `influx`, which needs Kafka and InfluxDB, and with `read_revised` PostgreSQL; InfluxDB is first asked when it runs.

    Raises `StartError` where the configuration names no InfluxDB, or Kafka or the database can't be had.
    """
    # InfluxDB's client takes 35 MB and a second to load, which the other role doesn't pay.
    from vegamite_aggregator.adapters.influx_store import InfluxPointStore

    section = settings.influxdb
    if section.url is None or section.token is None:
        raise StartError("the role influx needs url and token in [influxdb]")
    if section.ssl_ca_file is not None and not section.ssl_ca_file.is_file():
        raise StartError(f"influxdb.ssl_ca_file: no such file: {section.ssl_ca_file}")
    async with AsyncExitStack() as stack:
        clock = settings.clock.clock()
        bus = await _open_bus(settings, clock, stack)
        reader = await _open_reader(settings, stack) if section.read_revised else None
        stores = {}
        for name in REVISED_STREAMS:
            stores[name] = InfluxPointStore(
                section,
                url=section.url,
                token=section.token.get_secret_value(),
                on_retry=SINK_RETRIES.inc,
            )
            stack.push_async_callback(stores[name].close)
        yield SinkService(bus=bus, stores=stores, clock=clock, section=section, reader=reader)


@asynccontextmanager
async def open_maintenance(
    settings: AggregatorSettings, *, resources: Resources | None = None
) -> AsyncIterator[Maintenance]:
    """Build the maintenance; without `resources` it has a pool of its own, closed at the block's end, and needs no log.

    Waits for the database and its schema; raises `StartError` where they can't be had.
    """
    # What writes Parquet is some megabytes that nobody else needs.
    from vegamite_aggregator.adapters.parquet_archive import ParquetArchive

    async with AsyncExitStack() as stack:
        clock = settings.clock.clock()
        if resources is None:
            pool = await open_pool(settings.postgres, application_name="vegamite-maintain")
            stack.push_async_callback(pool.close)
        else:
            pool, clock = resources.pool, resources.clock
        await wait_for_schema(pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_VERSION)
        section = settings.aggregator
        directory = section.archive.directory
        yield Maintenance(
            store=PostgresMaintenanceStore(pool),
            archive=None if directory is None else ParquetArchive(directory),
            clock=clock,
            retention=section.retention.retention,
            days_ahead=section.maintenance.days_ahead,
        )


async def _open_resources(settings: AggregatorSettings, stack: AsyncExitStack) -> Resources:
    clock = settings.clock.clock()
    pool = await open_pool(settings.postgres, application_name="vegamite-aggregator")
    stack.push_async_callback(pool.close)
    return Resources(clock=clock, bus=await _open_bus(settings, clock, stack), pool=pool)


async def _open_reader(settings: AggregatorSettings, stack: AsyncExitStack) -> PostgresCandleReader:
    pool = await open_pool(settings.postgres, application_name="vegamite-influx")
    stack.push_async_callback(pool.close)
    await wait_for_schema(pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_VERSION)
    return PostgresCandleReader(pool)


async def _open_bus(settings: AggregatorSettings, clock: Clock, stack: AsyncExitStack) -> KafkaBus:
    bus = KafkaBus(settings.kafka, clock)
    try:
        await bus.start()
    except BusError as error:
        raise StartError(f"Kafka can't be reached: {error}") from None
    stack.push_async_callback(bus.close)
    return bus


def _owner() -> str:
    """A name for this process that no other has, readable for people who look at a fence."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
