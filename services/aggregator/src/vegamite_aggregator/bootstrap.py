"""Builds the aggregator of settings: the only place that knows which adapters there are."""

import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from vegamite_aggregator.adapters.outbox_table import PostgresOutbox
from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.adapters.schema import SCHEMA_MINIMUM, SCHEMA_VERSION
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.service import AggregatorService
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError
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

    Waits for the database and its schema; raises `StartError` where they or the log can't be had.
    """
    async with AsyncExitStack() as stack:
        if resources is None:
            resources = await _open_resources(settings, stack)
        await wait_for_schema(resources.pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_VERSION)
        yield AggregatorService(
            bus=resources.bus,
            store=PostgresCandleStore(resources.pool, owner=_owner()),
            outbox=PostgresOutbox(resources.pool),
            clock=resources.clock,
            section=settings.aggregator,
            new_log_epoch=new_log_epoch,
        )


async def _open_resources(settings: AggregatorSettings, stack: AsyncExitStack) -> Resources:
    clock = settings.clock.clock()
    pool = await open_pool(settings.postgres, application_name="vegamite-aggregator")
    stack.push_async_callback(pool.close)
    bus = KafkaBus(settings.kafka, clock)
    try:
        await bus.start()
    except BusError as error:
        raise StartError(f"Kafka can't be reached: {error}") from None
    stack.push_async_callback(bus.close)
    return Resources(clock=clock, bus=bus, pool=pool)


def _owner() -> str:
    """A name for this process that no other has, readable for people who look at a fence."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
