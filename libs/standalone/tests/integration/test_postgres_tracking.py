"""What an instance tracks by itself, over a real database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from vegamite_aggregator.migrate import migrate_database
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, from_datetime, parse_time
from vegamite_common.runtime.postgres import open_pool
from vegamite_common.runtime.section import PostgresSection
from vegamite_standalone.adapters.postgres_status import read_status
from vegamite_standalone.adapters.postgres_tracking import NOTE, ensure_market, offer_markets

NOW = parse_time("2026-03-04T05:06:07Z")
FIRST = {"kraken:BTC/USD": NOW, "kraken:ETH/USD": NOW}
DEMO = {"sim:DEMO/USD": parse_time("2026-03-03T05:00:00Z")}


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    section = PostgresSection(url=SecretStr(database))
    await migrate_database(section)
    opened = await open_pool(section)
    try:
        yield opened
    finally:
        await opened.close()


async def tracked(pool: Any) -> dict[str, int]:
    rows = await pool.fetch(
        "SELECT exchange || ':' || symbol AS key, history_from FROM tracked_market JOIN market USING (market_key)"
    )
    return {row["key"]: from_datetime(row["history_from"]) for row in rows}


async def untrack(pool: Any, symbol: str) -> None:
    await pool.execute(
        "DELETE FROM tracked_market USING market "
        "WHERE market.market_key = tracked_market.market_key AND symbol = $1",
        symbol,
    )


async def test_the_first_start_tracks_three_markets_and_a_day_of_the_demo(
    pool: Any, tmp_path: Path
) -> None:
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    assert await tracked(pool) == FIRST | DEMO


async def test_later_starts_keep_what_is_tracked_and_never_want_more_than_a_day_of_the_demo(
    pool: Any, tmp_path: Path
) -> None:
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW - HOUR)
    assert await tracked(pool) == FIRST | DEMO
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW + 9 * DAY)
    assert await tracked(pool) == FIRST | {"sim:DEMO/USD": parse_time("2026-03-12T05:00:00Z")}


async def test_what_somebody_removed_stays_removed(pool: Any, tmp_path: Path) -> None:
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    for symbol in ("BTC/USD", "ETH/USD", "DEMO/USD"):
        await untrack(pool, symbol)
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    assert await tracked(pool) == {}


async def test_a_new_database_is_offered_what_another_one_was(pool: Any, tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text('["kraken:BTC/USD", "kraken:ETH/USD", "sim:DEMO/USD"]')
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    assert await tracked(pool) == FIRST | DEMO


async def test_the_demo_goes_and_comes_back_with_its_switch(pool: Any, tmp_path: Path) -> None:
    await offer_markets(pool, directory=tmp_path, demo=False, now=NOW)
    assert await tracked(pool) == FIRST
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    assert await tracked(pool) == FIRST | DEMO
    await offer_markets(pool, directory=tmp_path, demo=False, now=NOW)
    assert await tracked(pool) == FIRST


async def test_a_database_that_is_in_use_already_is_given_nothing_but_the_demo(
    pool: Any, tmp_path: Path
) -> None:
    await ensure_market(pool, Market("okx", "BTC/USDT:USDT"))
    await pool.execute("INSERT INTO tracked_market (market_key) SELECT market_key FROM market")
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    assert set(await tracked(pool)) == {"okx:BTC/USDT:USDT", "sim:DEMO/USD"}


@pytest.mark.parametrize("content", ["", "{", "7", '["kraken:BTC/USD", 7]'])
async def test_a_damaged_note_is_no_reason_not_to_start(
    content: str, pool: Any, tmp_path: Path
) -> None:
    (tmp_path / NOTE).write_text(content)
    await offer_markets(pool, directory=tmp_path, demo=True, now=NOW)
    assert "sim:DEMO/USD" in await tracked(pool)


async def test_a_market_without_a_source_or_a_trade_is_pending(pool: Any, tmp_path: Path) -> None:
    await offer_markets(pool, directory=tmp_path, demo=False, now=NOW)
    found = await read_status(pool)
    assert [(market.exchange, market.symbol) for market in found] == [
        ("kraken", "BTC/USD"),
        ("kraken", "ETH/USD"),
    ]
    assert {(m.state, m.price, m.last_trade_time, m.open_gaps) for m in found} == {
        ("pending", None, None, 0)
    }
