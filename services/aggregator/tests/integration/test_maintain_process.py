"""`vegamite-aggregator maintain`: what it prints and how it ends, as a scheduler sees it."""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from vegamite_aggregator.adapters.parquet_archive import check_archive, read_trades
from vegamite_common.domain.time import DAY, parse_time, to_datetime
from vegamite_common.testing.eventually import eventually

FIRST = parse_time("2025-11-01T00:00:00Z")
MANY = 150_000

pytestmark = pytest.mark.timeout(120)


async def started(config: Path, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vegamite_aggregator",
        "maintain",
        "--config",
        str(config),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "VEGAMITE_LOG__LEVEL": "error"},
    )


async def maintain(config: Path, *options: str) -> tuple[int, str, str]:
    process = await started(config, *options)
    said, errors = await process.communicate()
    return process.returncode or 0, said.decode(), errors.decode()


async def kill(process: asyncio.subprocess.Process) -> None:
    assert process.returncode is None, "it ended before it was killed"
    process.kill()
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


def archived(directory: Path) -> Counter[tuple[str, str]]:
    """Exchange and id of each trade in files that are what their manifests say: all files of the archive have to be."""
    found: Counter[tuple[str, str]] = Counter()
    for file in directory.rglob("*.parquet"):
        manifest = check_archive(file)
        ids = [trade.trade_id for trade in read_trades(file)]
        assert manifest.rows == len(ids), file
        found.update((manifest.exchange, trade_id) for trade_id in ids)
    return found


async def test_it_does_what_is_due_says_so_and_ends(migrated: str, tmp_path: Path) -> None:
    config = tmp_path / "vegamite.toml"
    config.write_text(
        f'[postgres]\nurl = "{migrated}"\n'
        "[aggregator.retention]\ntrades_days = 7\n"
        f'[aggregator.archive]\ndirectory = "{tmp_path / "archive"}"\n'
        "[aggregator.maintenance]\ndays_ahead = 3\n"
    )
    code, said, errors = await maintain(config, "--dry-run")
    assert (code, errors) == (0, "")
    told, names = said.rstrip("\n").split(": ")
    connection = await asyncpg.connect(migrated)
    count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'trade'::regclass"
    assert await connection.fetchval(count) == 0
    code, said, errors = await maintain(config)
    assert (code, errors) == (0, "")
    assert told == f"would make {len(names.split(', '))} tables ahead"
    assert said.startswith(f"{len(names.split(', '))} tables made ahead")
    made = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r'"
    assert {row["relname"] for row in await connection.fetch(made)} == set(names.split(", "))
    assert await maintain(config, "--dry-run") == (0, "nothing is to be done\n", "")
    assert said.endswith(
        " tables made ahead, 0 horizons moved, 0 trades archived in 0 files, 0 tables dropped, 0 candles deleted\n"
    )
    assert await connection.fetchval(count) == 4
    assert await connection.fetchval("SELECT completed_time IS NOT NULL FROM maintenance")
    again = await maintain(config)
    assert again[1].startswith("0 tables made ahead")
    # Somebody else is at it.
    await connection.execute("SELECT pg_advisory_lock(x'7665676D6E74'::bigint)")
    assert await maintain(config) == (
        0,
        "another maintenance is running: nothing was done\n",
        "",
    )
    await connection.close()


async def test_nonsense_and_a_database_that_is_not_there_are_one_line_and_exit_2(
    migrated: str, tmp_path: Path
) -> None:
    config = tmp_path / "vegamite.toml"
    config.write_text(
        f'[postgres]\nurl = "{migrated}"\n'
        "[aggregator.retention]\ntrades_days = 7\ncandles_1s_days = 3\n"
    )
    code, said, errors = await maintain(config)
    assert (code, said) == (2, "")
    assert "candles_1s_days is 3, but trades_days is 7" in errors
    config.write_text(
        '[postgres]\nurl = "postgresql://nobody@127.0.0.1:1/none"\nstart_timeout_ms = 200\n'
    )
    code, said, errors = await maintain(config)
    assert (code, said) == (2, "")
    assert errors.startswith("PostgreSQL can't be reached")


async def test_killed_while_it_archives_and_while_it_drops_the_next_run_finishes_the_work(
    keep: Any, rig: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    config = tmp_path / "vegamite.toml"
    config.write_text(
        f'[postgres]\nurl = "{rig.url}"\n'
        "[aggregator.retention]\ntrades_days = 3\ncandles_1s_days = 5\n"
        f'[aggregator.archive]\ndirectory = "{archive}"\n'
    )
    kept = keep(rig, archive)
    running = await rig.start()
    await kept.live(first=FIRST, days=6)
    await running.stop()
    rig.forget(running)
    # A day of so many trades that its file takes a while.
    await rig.pool.execute(
        "INSERT INTO trade SELECT market_key, event_time + make_interval(secs => n * 1e-3), 'more-' || n, n, price, amount,"
        " taker_side, received_time, origin FROM generate_series(1, $2::int) AS n,"
        " (SELECT t.* FROM trade t JOIN market USING (market_key) WHERE exchange = 'sim' AND event_time >= $1"
        "  ORDER BY event_time LIMIT 1) AS one",
        to_datetime(FIRST),
        MANY,
    )

    async def held() -> Counter[tuple[str, str]]:
        rows = await rig.pool.fetch(
            "SELECT exchange, trade_id FROM trade JOIN market USING (market_key)"
        )
        return Counter((row["exchange"], row["trade_id"]) for row in rows)

    made = await held()
    candles = await rig.rows("candle")

    process = await started(config)
    place = archive / "sim" / "DEMO%2FUSD"

    def written_in_part() -> bool:
        assert process.returncode is None, "it ended before any of the day was seen on the disk"
        return any(file.stat().st_size for file in place.glob(".2025-11-01.*.tmp"))

    await eventually(written_in_part, timeout_s=60, interval_s=0.002)
    await kill(process)
    assert not (place / "2025-11-01.json").exists(), "killed too late"
    assert list(place.glob(".2025-11-01.*.tmp"))
    assert {exchange for exchange, _ in archived(archive)} <= {"kraken"}
    assert await held() == made

    async with rig.pool.acquire() as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT FROM trade_20251101 LIMIT 1")
        process = await started(config)
        await rig.becomes(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'vegamite-maintain' AND wait_event_type = 'Lock')"
        )
        await kill(process)
        assert archived(archive).total() == MANY + 2 * 60, "the first day is archived, and whole"
        assert await held() == made
        await reading.rollback()

    code, said, errors = await maintain(config)
    assert (code, errors) == (0, ""), said
    left = await held()
    assert left + archived(archive) == made, "each trade is in one place"
    days = [name for name in await kept.tables("trade") if name < "trade_202512"]
    assert days[0] == "trade_20251104"
    assert len(left) == 2 * 3 * 60
    rows = await rig.pool.fetch("SELECT horizon_time FROM horizon WHERE series = 'trade'")
    assert [row["horizon_time"] for row in rows] == [to_datetime(FIRST + 3 * DAY)] * 2
    # The month isn't over: no candle has expired.
    assert await rig.rows("candle") == candles
    assert not list(archive.rglob(".*")), "nothing unfinished is left"
    assert await rig.pool.fetchval("SELECT completed_time IS NOT NULL FROM maintenance")
