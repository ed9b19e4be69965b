"""The bulk job itself, over a real database and the bus inside the process."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.migrate import migrate_database
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import parse_time
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.lifecycle import Resources, StartError, Stop
from vegamite_common.runtime.postgres import open_pool
from vegamite_common.runtime.section import PostgresSection
from vegamite_standalone.archive.import_job import ImportRequest, read_archives, store_archives
from vegamite_standalone.local_system import run_aggregator

SETTINGS = AggregatorSettings()
SMALL = 300_000

pytestmark = pytest.mark.timeout(180)


class Watcher:
    """Remembers how far each step was said to be."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[int, int]]] = {"reading": [], "sending": [], "storing": []}

    def reading(self, done: int, total: int) -> None:
        self.told["reading"].append((done, total))

    def sending(self, done: int, total: int) -> None:
        self.told["sending"].append((done, total))

    def storing(self, stored: int, total: int) -> None:
        self.told["storing"].append((stored, total))


@pytest_asyncio.fixture
async def resources(database: str) -> AsyncIterator[Resources]:
    """A migrated database, and a bus with room for a fraction of the day."""
    section = PostgresSection(url=SecretStr(database))
    await migrate_database(section)
    pool = await open_pool(section)
    clock = SystemClock()
    bus = MemoryBus(clock=clock, retained_bytes=SMALL)
    await bus.start()
    try:
        yield Resources(clock=clock, bus=bus, pool=pool)
    finally:
        await bus.close()
        await pool.close()


def request_of(day: Any) -> ImportRequest:
    return ImportRequest(
        market=Market.parse(day.market),
        files=[day.file],
        resolution=1000,
        covered=(parse_time(day.begin), parse_time(day.end)),
    )


async def test_nothing_is_lost_where_the_bus_has_room_for_a_part_only(
    resources: Resources, day: Any
) -> None:
    watcher, stop = Watcher(), Stop()
    now = resources.clock.now()
    async with read_archives(request_of(day), now=now, stop=stop, progress=watcher) as read:
        assert sum(map(len, read.spool.read())) > 2 * SMALL
        async with run_aggregator(SETTINGS, resources):
            await store_archives(read, resources=resources, stop=stop, progress=watcher)
    assert (read.result.stored, read.result.duplicates) == (len(day.trades), 0)
    assert read.result.covered == request_of(day).covered
    for told in watcher.told.values():
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] == told[-1][1]


async def test_a_candle_gets_one_final_state_and_no_message_on_the_way(
    resources: Resources, day: Any
) -> None:
    watcher, stop = Watcher(), Stop()
    now = resources.clock.now()
    async with (
        read_archives(request_of(day), now=now, stop=stop, progress=watcher) as read,
        run_aggregator(SETTINGS, resources),
    ):
        await store_archives(read, resources=resources, stop=stop, progress=watcher)
    row = await resources.pool.fetchrow(
        "SELECT count(*) AS candles, bool_and(final) AS final, max(revision) AS revision FROM candle"
    )
    assert row is not None
    assert (row["candles"] > 0, row["final"], row["revision"]) == (True, True, 0)


async def test_an_import_that_is_stopped_says_so_and_can_be_done_again(
    resources: Resources, day: Any
) -> None:
    class Impatient(Watcher):
        def storing(self, stored: int, total: int) -> None:
            stop.request()

    stop = Stop()
    now = resources.clock.now()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with (
            read_archives(request_of(day), now=now, stop=stop, progress=Watcher()) as read,
            run_aggregator(SETTINGS, resources),
        ):
            await store_archives(read, resources=resources, stop=stop, progress=Impatient())
    assert caught.group_contains(StartError, match="import again, nothing counts twice")
    stop = Stop()
    async with (
        read_archives(request_of(day), now=now, stop=stop, progress=Watcher()) as read,
        run_aggregator(SETTINGS, resources),
    ):
        await store_archives(read, resources=resources, stop=stop, progress=Watcher())
    assert await resources.pool.fetchval("SELECT count(*) FROM trade") == len(day.trades)


async def test_an_aggregator_that_fails_ends_the_import(resources: Resources, day: Any) -> None:
    # A log with another number of partitions is none that this database can follow.
    await resources.pool.execute("INSERT INTO log_epoch (epoch, partitions) VALUES (1, 7)")
    stop = Stop()
    now = resources.clock.now()

    async def import_day() -> None:
        async with (
            read_archives(request_of(day), now=now, stop=stop, progress=Watcher()) as read,
            run_aggregator(SETTINGS, resources),
        ):
            await store_archives(read, resources=resources, stop=stop, progress=Watcher())

    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.wait_for(import_day(), 60)
    assert caught.group_contains(StartError, match="7")
