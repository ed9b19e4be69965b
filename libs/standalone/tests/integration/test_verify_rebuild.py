"""`vegamite verify` finds what somebody changed by hand, `vegamite rebuild` mends it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from vegamite_common.runtime.embedded_postgres import EmbeddedPostgres
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess

Vegamite = Callable[..., Any]

pytestmark = pytest.mark.timeout(300)

MEANT = ("1m", "1h", "1d", "1M")
"""The timeframes of which one candle is spoilt."""

_ONE = "(timeframe, open_time) = (SELECT timeframe, min(open_time) FROM candle WHERE timeframe = '{}' GROUP BY 1)"
SPOIL = (
    f"UPDATE candle SET high = high * 2 WHERE {_ONE.format('1m')}",
    f"UPDATE candle SET low = high + 1 WHERE {_ONE.format('1h')}",
    f"UPDATE candle SET volume = volume + 1e-30 WHERE {_ONE.format('1d')}",
    f"UPDATE candle SET complete = true WHERE {_ONE.format('1M')}",
    f"DELETE FROM candle WHERE {_ONE.format('5m')}",
)


async def run_sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            assert await connection.execute(statement) not in {"UPDATE 0", "DELETE 0"}, statement
    finally:
        await connection.close()


async def spoil(data: Path, *statements: str) -> None:
    """Change candles in the database of an instance that isn't running."""
    server = EmbeddedPostgres(data / "postgres")
    await asyncio.to_thread(server.start)
    try:
        await run_sql(server.url, *statements)
    finally:
        await asyncio.to_thread(server.stop)


def assert_told(done: Any, day: Any) -> None:
    """What was spoilt is told line by line, what to do about it at the end."""
    assert done.returncode == 1, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["market", "candle", "opens", "at", "field", "stored", "computed"]
    differences = [line for line in lines if line.startswith(day.market)]
    told = {(line.split()[1], line.split()[3]) for line in differences}
    assert told == {
        ("1m", "high"),
        ("1h", "low"),
        ("1h", "limits"),
        ("1d", "volume"),
        ("1M", "complete"),
        ("5m", "candle"),
    }
    columns = {line.index(line.split()[4]) for line in differences}
    assert columns == {heading.index("stored")}
    assert any("none" in line and "trade" in line for line in differences if " 5m " in line)
    summary, advice, *commands = lines[len(differences) :]
    assert summary.startswith(f"6 differences in 1 of 1 market: {len(day.trades)} trades, ")
    assert advice == "to compute them again:"
    (command,) = commands
    assert command.split()[:4] == ["vegamite", "rebuild", "--market", day.market]


async def test_an_instance_is_verified_and_mended(
    instance: Any,
    day: Any,
    vegamite: Vegamite,
    vegamite_command: list[str],
    open_terminal: Callable[..., Any],
) -> None:
    here = ("--data-dir", instance.data)
    claim = ("--from", day.begin, "--to", day.end)
    imported = vegamite(
        "import", "--market", day.market, *here, "--format", "binance-aggtrades", *claim, day.file
    )
    assert imported.returncode == 0, imported.stderr
    equal = vegamite("verify", *here)
    assert (equal.returncode, equal.stderr) == (0, "")
    assert re.fullmatch(
        rf"equal: 1 market, {len(day.trades)} trades, \d{{4,}} candles\n", equal.stdout
    )
    await spoil(instance.data, *SPOIL)
    found = vegamite("verify", *here)
    assert_told(found, day)
    assert "\x1b" not in found.stdout
    assert found.stderr == ""

    machine = vegamite("verify", *here, "--json", "--market", day.market, "--timeframe", "1m")
    assert machine.returncode == 1
    (one,) = map(json.loads, machine.stdout.splitlines())
    assert (one["market"], one["timeframe"], one["field"]) == (day.market, "1m", "high")
    assert float(one["stored"]) == 2 * float(one["computed"])
    assert machine.stderr.startswith("1 difference in 1 of 1 market: ")
    terminal = open_terminal("verify", *here)
    await eventually(lambda: terminal.process.poll() is not None, timeout_s=60)
    await eventually(lambda: "to compute them again:" in terminal.written)
    assert "\x1b[31m" in terminal.written  # what is wrong is red
    assert "%" in terminal.written  # how far it is

    command = found.stdout.splitlines()[-1].split()
    mended = vegamite(*command[1:])
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "from" in mended.stdout
    assert "4 candles corrected: 1 of 1m, 1 of 1h, 1 of 1d, 1 of 1M" in mended.stdout
    assert "1 candle made final: 1 of 5m" in mended.stdout
    assert vegamite("verify", *here).returncode == 0
    unknown = vegamite("rebuild", *here, "--market", "kraken:NO/THING", *claim)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "there is no market kraken:NO/THING in this database\n"
    await spoil(instance.data, "UPDATE candle SET quote_volume = quote_volume * 2")
    line, code, complaint = await asyncio.to_thread(
        first_line, [*vegamite_command, "verify", *map(str, here)]
    )
    assert (line[:6], code, complaint) == (b"market", 1, b"")

    instance.start("--no-demo")
    refused = vegamite("verify", *here)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"the data directory {instance.data} is in use by process {instance.process.pid}\n"
    )


def first_line(command: list[str]) -> tuple[bytes, int, bytes]:
    """Return what a command prints first, its exit code after nobody reads on, and what it complains of."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    return line, process.wait(60), complaint


def test_where_no_instance_was_nothing_is_made(vegamite: Vegamite, server_directory: Path) -> None:
    nowhere = server_directory / "data"
    for command in (
        ("verify",),
        ("rebuild", "--market", "a:B/C", "--from", "2020-01-01", "--to", "2020-01-02"),
    ):
        done = vegamite(*command, "--data-dir", nowhere)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"no instance has kept data in {nowhere}\n"
    assert list(server_directory.iterdir()) == []


async def test_a_deployed_system_is_verified_and_mended_by_its_aggregator(
    cluster: Path, database: str, day: Any, vegamite: Vegamite, tmp_path: Path
) -> None:
    async def run(*arguments: object) -> Any:
        return await asyncio.to_thread(vegamite, *arguments, "--config", cluster)

    assert (await run("migrate")).returncode == 0
    empty = await run("verify")
    assert (empty.returncode, empty.stdout) == (0, "equal: 0 markets, 0 trades, 0 candles\n")

    command = [sys.executable, "-m", "vegamite_aggregator", "--config", str(cluster)]
    about = ("--market", day.market)
    claim = ("--from", day.begin, "--to", day.end)
    with ServiceProcess(command, log=tmp_path / "aggregator.log"):
        done = await run("import", *about, "--format", "binance-aggtrades", *claim, day.file)
        assert done.returncode == 0, done.stderr
        await run_sql(database, *SPOIL)
        assert_told(await run("verify"), day)
        mended = await run("rebuild", *about, *claim)
        assert mended.returncode == 0, mended.stderr
        assert "4 candles corrected: 1 of 1m, 1 of 1h, 1 of 1d, 1 of 1M" in mended.stdout
        equal = await run("verify")
        assert (equal.returncode, equal.stdout.split(":")[0]) == (0, "equal")
    alone = await run("rebuild", *about, *claim, "--timeout", 1)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "no aggregator has taken the record within 1 s" in alone.stderr
    connection = await asyncpg.connect(database)
    try:
        reasons = await connection.fetch(
            "SELECT timeframe, revision FROM candle WHERE revision > 0 ORDER BY 1"
        )
    finally:
        await connection.close()
    assert sorted(row["timeframe"] for row in reasons) == sorted(MEANT)
