import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from vegamite_aggregator.adapters.schema import SCHEMA_VERSION, MigrationError
from vegamite_aggregator.migrate import migrate_database
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord

Pool = asyncpg.Pool  # only for annotations in this module


async def test_migrating_twice_does_nothing_the_second_time(database: str) -> None:
    assert await migrate_database(database) is True
    assert await migrate_database(database) is False
    connection = await asyncpg.connect(database)
    row = await connection.fetchrow("SELECT * FROM schema_version")
    await connection.close()
    assert row is not None
    assert (row["version"], row["compatible_from"]) == (SCHEMA_VERSION, 1)


async def test_two_migrations_at_once_take_turns(database: str) -> None:
    await asyncio.gather(migrate_database(database), migrate_database(database))
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT count(*) FROM schema_version") == 1
    await connection.close()


async def test_a_database_that_is_not_there_is_one_line(postgres_url: str) -> None:
    with pytest.raises(MigrationError, match=r'^PostgreSQL can\'t be reached: .*"nowhere"'):
        await migrate_database(urlunsplit(urlsplit(postgres_url)._replace(path="/nowhere")))


async def test_a_user_without_rights_is_told_so_and_nothing_is_left(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE ROLE powerless LOGIN PASSWORD 'none'")
    try:
        await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        parts = urlsplit(database)
        address = parts.netloc.rpartition("@")[2]
        powerless = urlunsplit(parts._replace(netloc=f"powerless:none@{address}"))
        with pytest.raises(MigrationError, match="permission denied"):
            await migrate_database(powerless)
        tables = await connection.fetchval(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        )
        assert tables == 0
    finally:
        await connection.execute("DROP ROLE powerless")
        await connection.close()


async def test_a_tracked_market_is_announced_with_its_number(pool: Pool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with pool.acquire() as listener:

        def hear(*said: object) -> None:
            heard.put_nowait(str(said[-1]))

        await listener.add_listener("tracked_market", hear)
        key = await pool.fetchval("SELECT ensure_market('sim', 'A/B', 'spot', 'A', 'B', NULL)")
        await pool.execute("INSERT INTO tracked_market (market_key) VALUES ($1)", key)
        assert await asyncio.wait_for(heard.get(), 10) == str(key)
        await pool.execute("DELETE FROM tracked_market")
        assert await asyncio.wait_for(heard.get(), 10) == str(key)
        await listener.remove_listener("tracked_market", hear)


async def test_ensuring_a_market_gives_one_number_however_often_and_whoever_asks(
    pool: Pool,
) -> None:
    ask = "SELECT ensure_market('kraken', 'BTC/USD', 'spot', 'BTC', 'USD', NULL)"
    numbers = await asyncio.gather(*(pool.fetchval(ask) for _ in range(8)))
    assert len(set(numbers)) == 1
    row = await pool.fetchrow("SELECT * FROM market")
    assert row is not None
    assert (row["state"], row["base"], row["quote"]) == ("unverified", "BTC", "USD")
    other = await pool.fetchval(ask.replace("BTC", "ETH"))
    assert other == numbers[0] + 1, "asking again burns no numbers"


@pytest.mark.parametrize(
    ("role", "statement", "allowed"),
    [
        ("vegamite_collector", "INSERT INTO exchange (exchange, name, trades) VALUES ('x', 'X', 'poll')", True),
        ("vegamite_collector", "UPDATE market_state SET state = 'live'", True),
        ("vegamite_collector", "SELECT ensure_market('x', 'A/B', 'spot', 'A', 'B', NULL)", True),
        ("vegamite_collector", "DELETE FROM trade", False),
        ("vegamite_collector", "SELECT * FROM api_key", False),
        ("vegamite_aggregator", "UPDATE partition_fence SET version = version + 1", True),
        ("vegamite_aggregator", "DELETE FROM outbox", True),
        ("vegamite_aggregator", "SELECT ensure_time_partition('trade', 'trade_20190101', '2019-01-01Z', '2019-01-02Z')", True),
        ("vegamite_aggregator", "SELECT drop_time_partition('trade', 'trade_20190101')", True),
        ("vegamite_aggregator", "UPDATE horizon SET horizon_time = now()", True),
        ("vegamite_aggregator", "UPDATE maintenance SET completed_time = now()", True),
        ("vegamite_aggregator", "DELETE FROM horizon", False),
        ("vegamite_aggregator", "DROP TABLE candle_1s", False),
        ("vegamite_aggregator", "UPDATE market SET state = 'active'", False),
        ("vegamite_aggregator", "SELECT * FROM api_key", False),
        ("vegamite_api", "SELECT * FROM candle", True),
        ("vegamite_api", "DELETE FROM tracked_market", True),
        ("vegamite_api", "DELETE FROM api_key", True),
        ("vegamite_api", "UPDATE candle SET final = true", False),
        ("vegamite_api", "SELECT * FROM horizon", True),
        ("vegamite_api", "SELECT drop_time_partition('trade', 'trade_20190101')", False),
        ("vegamite_api", "SELECT ensure_time_partition('trade', 'trade_20190101', '2019-01-01Z', '2019-01-02Z')", False),
    ],
)  # fmt: skip
async def test_each_service_may_do_its_own_work_and_no_other(
    pool: Pool, role: str, statement: str, allowed: bool
) -> None:
    async with pool.acquire() as connection:
        await connection.execute(f"SET ROLE {role}")
        try:
            if allowed:
                await connection.execute(statement)
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.execute("RESET ROLE")


@pytest.mark.parametrize(
    ("parent", "name"),
    [("market", "market_2019"), ("trade", "trade_20190101; DROP TABLE trade"), ("trade", "candle")],
)
async def test_only_time_partitioned_tables_get_partitions(
    pool: Pool, parent: str, name: str
) -> None:
    with pytest.raises(asyncpg.RaiseError, match="not a time-partitioned table"):
        await pool.execute(
            "SELECT ensure_time_partition($1, $2, '2019-01-01Z', '2019-01-02Z')", parent, name
        )


TRADE = """
    INSERT INTO trade (market_key, event_time, trade_id, sequence, price, amount, received_time, origin)
    VALUES ($1, $2::text::timestamptz, 'a', 1, 1, 1, now(), 'live')
"""
CANDLE_OF_MARKET = """
    INSERT INTO candle SELECT $1, $2, $3::text::timestamptz, 1, 1, 1, 1, 1, 1, 0, 0, 1, now(), 1, 'a', now(), 1, 'a',
        true, false, 0, 1, 1, now()
"""
MOVE = """
    INSERT INTO horizon (market_key, series, horizon_time) VALUES ($1, $2, $3::text::timestamptz)
    ON CONFLICT (market_key, series) DO UPDATE SET horizon_time = excluded.horizon_time
"""


async def test_a_partition_is_dropped_once_all_that_it_holds_has_expired(pool: Pool) -> None:
    await pool.execute(
        "SELECT ensure_time_partition('trade', 'trade_20190101', '2019-01-01Z', '2019-01-02Z')"
    )
    for market_key in (3, 5, 8):
        await pool.execute(TRADE, market_key, "2019-01-01 23:59:59Z")
    drop = "SELECT drop_time_partition('trade', 'trade_20190101')"
    assert await pool.fetchval(drop) == "needed", "nobody has a horizon"
    for market_key, until in ((3, "2019-01-02Z"), (5, "2019-01-02Z"), (8, "2019-01-01Z")):
        await pool.execute(MOVE, market_key, "trade", until)
    assert await pool.fetchval(drop) == "needed", "market 8 still has its trade"
    assert await pool.fetchval("SELECT count(*) FROM trade") == 3
    await pool.execute(MOVE, 8, "trade", "2019-01-02Z")
    assert await pool.fetchval(drop) == "dropped"
    assert await pool.fetchval("SELECT count(*) FROM trade") == 0
    assert await pool.fetchval(drop) == "absent"


async def test_an_empty_partition_is_dropped_only_when_somebody_is_past_it(pool: Pool) -> None:
    await pool.execute(
        "SELECT ensure_time_partition('candle_1mo', 'candle_1mo_2010', '2010-01-01Z', '2020-01-01Z')"
    )
    drop = "SELECT drop_time_partition('candle_1mo', 'candle_1mo_2010')"
    await pool.execute(MOVE, 1, "1m", "2029-01-01Z")
    assert await pool.fetchval(drop) == "needed", "a minute's horizon says nothing of months"
    await pool.execute(MOVE, 1, "1M", "2019-12-01Z")
    assert await pool.fetchval(drop) == "needed"
    await pool.execute(CANDLE_OF_MARKET, 2, "1M", "2019-12-01Z")
    await pool.execute(MOVE, 1, "1M", "2020-01-01Z")
    assert await pool.fetchval(drop) == "needed", "market 2 has a candle"
    await pool.execute(MOVE, 2, "1M", "2020-01-01Z")
    assert await pool.fetchval(drop) == "dropped"


async def test_dropping_waits_shortly_for_readers_and_holds_nobody_up(pool: Pool) -> None:
    await pool.execute(
        "SELECT ensure_time_partition('trade', 'trade_20190101', '2019-01-01Z', '2019-01-02Z')"
    )
    await pool.execute(MOVE, 1, "trade", "2019-01-02Z")
    drop = "SELECT drop_time_partition('trade', 'trade_20190101')"
    async with pool.acquire() as reader:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM trade")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await pool.fetchval(drop)
        assert await pool.fetchval(drop) == "dropped"


@pytest.mark.parametrize(
    ("parent", "name"),
    [
        ("market", "market_2019"),
        ("trade", "trade"),
        ("candle", "candle_1m"),
        ("trade", "trade_1;x"),
    ],
)
async def test_nothing_but_time_partitions_can_be_dropped(
    pool: Pool, parent: str, name: str
) -> None:
    with pytest.raises(asyncpg.RaiseError, match="not a time-partitioned table"):
        await pool.execute("SELECT drop_time_partition($1, $2)", parent, name)


async def test_a_partition_of_another_table_is_not_dropped(pool: Pool) -> None:
    await pool.execute(
        "SELECT ensure_time_partition('candle_1m', 'candle_1m_201901', '2019-01-01Z', '2019-02-01Z')"
    )
    await pool.execute(MOVE, 1, "trade", "2029-01-01Z")
    assert (
        await pool.fetchval("SELECT drop_time_partition('trade', 'candle_1m_201901')") == "absent"
    )


async def test_the_service_runs_with_no_more_rights_than_its_role_has(
    make_rig: Callable[..., Awaitable[Any]], trades: Callable[..., list[Trade]]
) -> None:
    rig = await make_rig()
    name = f"login_{uuid.uuid4().hex}"
    await rig.pool.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'known' IN ROLE vegamite_aggregator")
    try:
        parts = urlsplit(rig.url)
        address = parts.netloc.rpartition("@")[2]
        rig.url = urlunsplit(parts._replace(netloc=f"{name}:known@{address}"))
        made = trades(count=300)
        running = await rig.start()
        await rig.publish(
            TradesRecord(
                exchange="sim",
                symbol="DEMO/USD",
                received_time=made[-1].event_time,
                origin=Origin.LIVE,
                trades=tuple(made),
            )
        )
        await rig.settled()
        assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)
        assert running.service.health.ready().ok
        await running.stop()
        assert not running.service.health.ready().ok
        rig.forget(running)
    finally:
        await rig.pool.execute(f"DROP ROLE {name}")
