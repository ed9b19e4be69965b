"""`vegamite migrate` and `vegamite import` over a deployed system: real Kafka, an aggregator of its own."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from vegamite_common.testing.reference_fold import fold
from vegamite_common.testing.service_process import ServiceProcess

Vegamite = Callable[..., Any]

EXPIRING = ("candles_1s", "candles_1m", "candles_3m", "candles_5m")
HOURS = "SELECT trade_count, final, complete, revision FROM candle WHERE timeframe = '1h' ORDER BY open_time"
TRADES = """
    SELECT event_time, trade_id, sequence, price::text, amount::text, taker_side FROM trade ORDER BY event_time, trade_id
"""
CANDLES = """
    SELECT 'candles_' || timeframe, open_time, open::text, high::text, low::text, close::text, volume::text,
        quote_volume::text, buy_volume::text, buy_quote_volume::text, trade_count, first_trade_id, last_trade_id,
        final, complete FROM candle ORDER BY timeframe, open_time
"""

pytestmark = pytest.mark.timeout(300)


async def rows(database: str, question: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(database)
    try:
        return [tuple(row) for row in await connection.fetch(question)]
    finally:
        await connection.close()


def with_retention(config: Path, archive: Path) -> Path:
    """The configuration, and a day's retention for trades and short candles."""
    own = config.with_name("maintain.toml")
    days = "".join(f"{name}_days = 1\n" for name in ("trades", *EXPIRING))
    keeps = f"[aggregator.retention]\n{days}[aggregator.archive]\ndirectory = {json.dumps(str(archive))}\n"
    own.write_text(config.read_text() + keeps)
    return own


async def maintain(config: Path) -> str:
    """Expire all that can, and return what was said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vegamite_aggregator", "maintain", "--config", str(config),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode().splitlines()[-1]


async def test_archives_reach_a_deployed_system_through_its_log_and_come_back_after_they_expired(
    cluster: Path, database: str, day: Any, vegamite: Vegamite, tmp_path: Path
) -> None:
    migrated = await asyncio.to_thread(vegamite, "migrate", "--config", cluster)
    assert (migrated.returncode, migrated.stdout) == (0, "the schema is up to date\n"), (
        migrated.stderr
    )
    command = [sys.executable, "-m", "vegamite_aggregator", "--config", str(cluster)]
    aggregator = ServiceProcess(command, log=tmp_path / "aggregator.log")
    aggregator.start()
    try:
        arguments = ("--market", day.market, "--format", "binance-aggtrades", "--config", cluster)
        claim = ("--from", day.begin, "--to", day.end)
        done = await asyncio.to_thread(vegamite, "import", *arguments, *claim, day.file)
        count = len(day.trades)
        assert done.returncode == 0, done.stderr
        assert f"{count} trades read, {count} new, 0 already stored" in done.stdout
        again = await asyncio.to_thread(vegamite, "import", *arguments, *claim, day.file)
        assert f"{count} trades read, 0 new, {count} already stored" in again.stdout, again.stderr
        hours = await rows(database, HOURS)
        expected = [int(candle["trade_count"]) for candle in fold(day.trades, "1h").values()]
        assert hours == [(trades, True, True, 0) for trades in expected]

        trades, candles = await rows(database, TRADES), await rows(database, CANDLES)
        said = await maintain(with_retention(cluster, tmp_path / "archive"))
        assert f" {count} trades archived in " in said
        assert await rows(database, TRADES) == []
        left = await rows(database, CANDLES)
        assert left == [row for row in candles if row[0] not in EXPIRING]
        assert len(left) < len(candles)
        files = sorted((tmp_path / "archive").rglob("*.parquet"))
        source = ("--format", "vegamite-parquet", "--config", cluster)
        back = await asyncio.to_thread(vegamite, "import", *source, *files)
        assert back.returncode == 0, back.stderr
        assert f"{count} trades read, {count} new, 0 already stored" in back.stdout
        assert await rows(database, TRADES) == trades
        assert await rows(database, CANDLES) == candles
    finally:
        await asyncio.to_thread(aggregator.kill)


async def test_a_database_without_a_schema_is_refused(
    cluster: Path, day: Any, vegamite: Vegamite
) -> None:
    arguments = ("--market", day.market, "--format", "binance-aggtrades", "--config", cluster)
    done = await asyncio.to_thread(vegamite, "import", *arguments, day.file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "schema" in done.stderr
    assert "Traceback" not in done.stderr
