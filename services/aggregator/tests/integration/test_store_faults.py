"""A database that is there and refuses: read-only, full, without a right or a table. Said once, not ready, nothing lost."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from vegamite_aggregator.migrate import migrate_database
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.postgres import PostgresServer

DEMO = Market("sim", "DEMO/USD")
UNREADY_SECONDS = 0.5
LIMIT_BYTES = 20_000_000


def record(trades: list[Trade]) -> TradesRecord:
    return TradesRecord(
        exchange=DEMO.exchange,
        symbol=DEMO.symbol,
        received_time=trades[-1].event_time + SECOND,
        origin=Origin.LIVE,
        trades=tuple(trades),
    )


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Processes started inside can't make a file larger: the nearest to a full disk that needs no disk of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    postgres = PostgresServer()
    with small_files():
        postgres.start()
    asyncio.run(migrate_database(postgres.url))
    yield postgres
    postgres.close()


@asynccontextmanager
async def fresh_rig(server: PostgresServer, open_rig: Callable[..., Any]) -> AsyncIterator[Any]:
    """A log and the server's database, emptied, with an aggregator's login that may do no more than it has to."""
    async with open_rig(server.url) as rig:
        await rig.pool.execute(
            """
            DO $$ BEGIN
                CREATE ROLE aggregator LOGIN PASSWORD 'aggregator' IN ROLE vegamite_aggregator;
            EXCEPTION WHEN duplicate_object THEN NULL;
            END $$
            """
        )
        await rig.pool.execute(
            "TRUNCATE trade, candle, coverage_span, open_span, gap, job, partition_fence, log_epoch, outbox CASCADE"
        )
        parts = urlsplit(server.url)
        address = parts.netloc.rpartition("@")[2]
        rig.service_url = urlunsplit(parts._replace(netloc=f"aggregator:aggregator@{address}"))
        yield rig


async def says(running: Any, reason: str) -> None:
    """Wait until it isn't ready for this reason ("" : until it is ready)."""

    def told() -> None:
        running.raise_if_crashed()
        state = running.service.health.ready()
        assert state.ok == (not reason), state
        assert reason in state.reason, state

    await eventually(told)


async def set_read_only(rig: Any, value: str) -> None:
    await rig.pool.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await rig.pool.execute("SELECT pg_reload_conf()")


async def fill(rig: Any) -> None:
    """Let the file of the trades of these days grow until it can't, by rows of which four fill a page to the last bytes."""
    table = await rig.pool.fetchval("SELECT max(tableoid::regclass::text) FROM trade")
    await rig.pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    number = 0
    for size in (400, 20, 1):  # what doesn't fit leaves room for less
        with contextlib.suppress(asyncpg.InternalServerError):  # at a full disk: DiskFullError
            while True:
                assert number < 20_000, "the file grew as if there were no limit"
                await rig.pool.execute(
                    f"INSERT INTO {table} SELECT 0, event_time, rpad(n::text, 1940, 'x'), 0, 1, 1, NULL, event_time, 'live'"
                    f" FROM generate_series($1::int, $2) AS n, (SELECT event_time FROM {table} LIMIT 1) AS one",
                    number,
                    number + size - 1,
                )
                number += size


async def make_room(rig: Any) -> None:
    table = await rig.pool.fetchval("SELECT max(tableoid::regclass::text) FROM trade")
    await rig.pool.execute("DELETE FROM trade WHERE market_key = 0")
    await rig.pool.execute(f"VACUUM {table}")


FAULTS: dict[str, tuple[Any, Any, str]] = {
    "read-only": (
        lambda rig: set_read_only(rig, "on"),
        lambda rig: set_read_only(rig, "off"),
        "read-only transaction",
    ),
    "full": (fill, make_room, "could not extend file"),
    "a right revoked": (
        lambda rig: rig.pool.execute("REVOKE INSERT ON trade FROM vegamite_aggregator"),
        lambda rig: rig.pool.execute("GRANT INSERT ON trade TO vegamite_aggregator"),
        "permission denied for table trade",
    ),
    "a table gone": (
        lambda rig: rig.pool.execute("ALTER TABLE outbox RENAME TO elsewhere"),
        lambda rig: rig.pool.execute("ALTER TABLE elsewhere RENAME TO outbox"),
        'relation "outbox" does not exist',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_database_that_refuses_is_a_reason_not_to_be_ready_and_costs_nothing(
    server: PostgresServer,
    open_rig: Callable[..., Any],
    trades: Callable[..., list[Trade]],
    assert_equal_fold: Callable[..., None],
    fault: str,
) -> None:
    begin, end, reason = FAULTS[fault]
    made = trades(count=300)
    async with fresh_rig(server, open_rig) as rig:
        running = await rig.start(unready_seconds=UNREADY_SECONDS)
        await rig.publish(record(made[:100]))
        await rig.settled()
        await says(running, "")
        # Minutes later all that came is final, so that each further step has something for the outbox.
        rig.clock.advance(600)
        await rig.becomes("SELECT bool_and(final) FROM candle WHERE timeframe = '1m'")
        await begin(rig)
        with capture_logs() as lines:
            for trade in made[100:]:
                await rig.publish(record([trade]))
            await says(running, reason)
            await end(rig)
            await rig.settled()
            await says(running, "")
        told = [line["event"] for line in lines if line["event"].startswith("partition")]
        assert told.count("partition waits") == 1, lines
        assert told.count("partition goes on") == 1, lines
        assert_equal_fold(await rig.rows("candle"), made)
        assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)


async def test_a_schema_that_is_not_there_yet_is_waited_for(
    database: str, open_rig: Callable[..., Any], trades: Callable[..., list[Trade]]
) -> None:
    async with open_rig(database) as rig:
        with capture_logs() as lines:
            running = await rig.start()
            await rig.publish(record(trades(count=50)))
            await says(running, "the database schema is version 0, version 2 or later is needed")
            await migrate_database(database)
            await says(running, "")
        assert [line["event"] for line in lines if "database" in line["event"]] == [
            "waiting for log and database",
            "log and database are there",
        ]
        await rig.settled()
        assert await rig.pool.fetchval("SELECT count(*) FROM trade") == 50


async def test_a_schema_that_is_too_old_is_waited_for(rig: Any) -> None:
    await rig.pool.execute("UPDATE schema_version SET version = 1")
    running = await rig.start()
    await says(running, "the database schema is version 1, version 2 or later is needed")
    await rig.pool.execute("UPDATE schema_version SET version = 2")
    await says(running, "")
