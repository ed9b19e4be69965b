"""`vegamite-aggregator maintain`: what it prints and how it ends, as a scheduler sees it."""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import pytest

pytestmark = pytest.mark.timeout(120)


async def maintain(config: Path, *options: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
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
    said, errors = await process.communicate()
    return process.returncode or 0, said.decode(), errors.decode()


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
