"""`vegamite import`: a day of trades is stored whole, once, and served to the last digit."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.reference_fold import TIMEFRAME_NAMES, differences, fold

WITHIN_A_DAY = tuple(name for name in TIMEFRAME_NAMES if name not in ("3d", "1w", "1M"))
YEAR_MS = 365 * 86_400_000

Vegamite = Callable[..., Any]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def import_files(vegamite: Vegamite, instance: Any, day: Any) -> Vegamite:
    def run(*arguments: object) -> Any:
        where = ["--market", day.market, "--data-dir", instance.data]
        return vegamite("import", *where, "--format", "binance-aggtrades", *arguments)

    return run


def served(instance: Any, day: Any, timeframe: str) -> list[dict[str, str]]:
    """All stored candles of a timeframe, and whatever should not be there a year around."""
    first = min(trade.event_time for trade in day.trades)
    start, end = str(first - YEAR_MS), str(first + YEAR_MS)
    rows: list[dict[str, str]] = []
    while True:
        page = instance.candles(day.market, timeframe, start, end)
        rows += page
        if len(page) < 10_000:
            return rows
        start = page[-1]["close_time"]


async def test_an_imported_day_is_served_exact_final_and_complete(
    import_files: Vegamite, instance: Any, day: Any
) -> None:
    done = import_files("--from", day.begin, "--to", day.end, day.file)
    assert done.returncode == 0, done.stderr
    count = len(day.trades)
    assert done.stdout.splitlines()[0] == (
        f"{day.market}: {count} trades read, {count} new, 0 already stored, 0 quarantined"
    )
    instance.start("--no-demo")
    for timeframe in TIMEFRAME_NAMES:
        candles = served(instance, day, timeframe)
        assert differences(fold(day.trades, timeframe), candles)[:5] == [], timeframe
        if timeframe in day.peers:
            assert differences(day.peers[timeframe], candles)[:5] == [], timeframe
        assert {candle["final"] for candle in candles} == {"true"}, timeframe
        inside = timeframe in WITHIN_A_DAY
        assert {candle["complete"] for candle in candles} == {str(inside).lower()}, timeframe
        assert {candle["revision"] for candle in candles} == {"0"}, timeframe
    stored = instance.json("/v1/trades", market=day.market, limit=10_000)["data"]
    assert len(stored) == min(count, 10_000)
    assert len({trade["trade_id"] for trade in stored}) == len(stored)
    assert instance.stop() == 0


def rows_of(day: Any) -> list[dict[str, Any]]:
    with gzip.open(day.file, "rt") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def as_csv(row: dict[str, Any], *, micros: bool = False) -> str:
    time = row["T"] * 1000 + 123 if micros else row["T"]
    return f"{row['a']},{row['p']},{row['q']},{row['f']},{row['l']},{time},{row['m']},True\n"


async def test_files_that_overlap_count_once_in_whatever_form(
    import_files: Vegamite, instance: Any, day: Any, server_directory: Path
) -> None:
    rows = rows_of(day)[:3000]
    early, late = server_directory / "early.csv", server_directory / "late.csv.gz"
    early.write_text("".join(as_csv(row, micros=True) for row in rows[:2000]))
    late.write_bytes(gzip.compress("".join(map(as_csv, reversed(rows[1000:]))).encode()))
    first = import_files(late, early)
    assert first.stdout.splitlines() == [
        f"{day.market}: 4000 trades read, 3000 new, 1000 already stored, 0 quarantined"
    ], first.stderr
    again = import_files(early)
    assert "2000 trades read, 0 new, 2000 already stored" in again.stdout
    instance.start("--no-demo")
    trades = day.trades[:3000]
    for timeframe in ("1s", "5m", "1d", "1M"):
        candles = served(instance, day, timeframe)
        assert differences(fold(trades, timeframe), candles)[:5] == [], timeframe
        # Nothing was claimed, so nothing is known to be complete.
        assert {(candle["final"], candle["complete"]) for candle in candles} == {("true", "false")}


async def test_a_broken_file_is_named_and_only_it_is_left_out(
    import_files: Vegamite, instance: Any, day: Any, server_directory: Path
) -> None:
    lines = [as_csv(row) for row in rows_of(day)[:20]]
    good, broken = server_directory / "good.csv", server_directory / "broken.csv"
    good.write_text("".join(lines[:5]))
    broken.write_text("".join([*lines[5:], "12,what\n"]))
    claim = ("--from", day.begin, "--to", day.end)
    done = import_files(*claim, broken, good)
    assert done.returncode == 1
    assert done.stderr == f"{broken}:16: 2 fields; 7 or 8 are expected\n"
    assert done.stdout.splitlines() == [
        f"{day.market}: 5 trades read, 5 new, 0 already stored, 0 quarantined",
        "not taken as complete: not every line of every file is a stored trade",
    ]
    lenient = import_files(*claim, "--skip-bad", broken)
    assert lenient.returncode == 0, lenient.stderr
    assert lenient.stdout.splitlines() == [
        f"{day.market}: 15 trades read, 15 new, 0 already stored, 0 quarantined",
        "1 broken lines left out, the first of them:",
        f"  {broken}:16: 2 fields; 7 or 8 are expected",
        "not taken as complete: not every line of every file is a stored trade",
    ]
    instance.start("--no-demo")
    assert instance.json("/v1/coverage", market=day.market)["data"] == []
    (candle,) = served(instance, day, "1M")
    assert candle["trade_count"] == "20"


def test_nothing_is_made_for_a_broken_file_alone(
    import_files: Vegamite, server_directory: Path
) -> None:
    broken = server_directory / "broken.csv"
    broken.write_text("nonsense\n")
    done = import_files(broken)
    assert done.returncode == 1
    assert done.stderr == f"{broken}:1: 1 fields; 7 or 8 are expected\n"
    assert "0 trades read, 0 new" in done.stdout
    assert list(server_directory.iterdir()) == [broken]


async def test_an_instance_that_runs_is_not_imported_into(
    import_files: Vegamite, instance: Any, day: Any
) -> None:
    instance.start("--no-demo")
    done = import_files(day.file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"the data directory {instance.data} is in use by process {instance.process.pid}\n"
    )
