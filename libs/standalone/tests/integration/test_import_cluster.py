"""`vegamite migrate` and `vegamite import` over a deployed system: real Kafka, an aggregator of its own."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from vegamite_common.testing.reference_fold import fold
from vegamite_common.testing.service_process import ServiceProcess

Vegamite = Callable[..., Any]

pytestmark = pytest.mark.timeout(300)


async def test_archives_reach_a_deployed_system_through_its_log(
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
    finally:
        await asyncio.to_thread(aggregator.kill)
    connection = await asyncpg.connect(database)
    try:
        hours = await connection.fetch(
            "SELECT trade_count, final, complete, revision FROM candle WHERE timeframe = '1h' ORDER BY open_time"
        )
    finally:
        await connection.close()
    expected = [int(candle["trade_count"]) for candle in fold(day.trades, "1h").values()]
    assert [tuple(row) for row in hours] == [(trades, True, True, 0) for trades in expected]


async def test_a_database_without_a_schema_is_refused(
    cluster: Path, day: Any, vegamite: Vegamite
) -> None:
    arguments = ("--market", day.market, "--format", "binance-aggtrades", "--config", cluster)
    done = await asyncio.to_thread(vegamite, "import", *arguments, day.file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "schema" in done.stderr
    assert "Traceback" not in done.stderr
