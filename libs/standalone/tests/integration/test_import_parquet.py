"""`vegamite import --format vegamite-parquet`: what maintenance archived comes back to the last digit, or not at all."""

import gzip
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vegamite_aggregator.adapters.parquet_archive import ParquetArchive
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal, parse_decimal
from vegamite_common.domain.time import DAY, parse_time
from vegamite_common.testing.reference_fold import TIMEFRAME_NAMES, differences, fold

Vegamite = Callable[..., Any]
OTHER = Market("kraken", "BTC/USD")

pytestmark = pytest.mark.timeout(300)


async def pages(trades: Sequence[ArchivedTrade]) -> AsyncIterator[Sequence[ArchivedTrade]]:
    for start in range(0, len(trades), 1000):
        yield trades[start : start + 1000]


def kept(day: Any) -> list[ArchivedTrade]:
    """The recorded day's trades as the store has them."""
    with gzip.open(day.file, "rt") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    trades = [
        ArchivedTrade(
            event_time=row["T"] * 1000,
            trade_id=str(row["a"]),
            sequence=row["a"],
            price=format_decimal(parse_decimal(row["p"])),
            amount=format_decimal(parse_decimal(row["q"])),
            taker_side="sell" if row["m"] else "buy",
            received_time=row["T"] * 1000 + 5000,
            origin="live",
            job=None,
        )
        for row in rows
    ]
    return sorted(trades, key=lambda one: (one.event_time, one.trade_id.encode()))


async def archive(directory: Path, day: Any, market: Market) -> list[Path]:
    """Archive the recorded trades as maintenance does, a file a day; return the files."""
    begin, end = parse_time(day.begin), parse_time(day.end)
    trades = kept(day)
    for midnight in sorted({one.event_time // DAY * DAY for one in trades}):
        mine = [one for one in trades if midnight <= one.event_time < midnight + DAY]
        covered = (max(begin, midnight), min(end, midnight + DAY))
        await ParquetArchive(directory).store(
            market,
            midnight,
            trades=pages(mine),
            covered=[covered] if covered[0] < covered[1] else [],
        )
    return found(directory)


def found(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.parquet"))


async def test_an_archive_comes_back_as_the_same_candles_and_as_complete(
    vegamite: Vegamite, instance: Any, day: Any, server_directory: Path
) -> None:
    market = Market.parse(day.market)
    files = await archive(server_directory / "archive", day, market)
    files = sorted({*files, *(await archive(server_directory / "archive", day, OTHER))})
    command = ("import", "--format", "vegamite-parquet", "--data-dir", instance.data)
    done = vegamite(*command, *files)
    assert done.returncode == 0, done.stderr
    count = len(day.trades)
    told = f"{count} trades read, {count} new, 0 already stored, 0 quarantined"
    assert done.stdout.splitlines() == [f"{day.market}: {told}", f"{OTHER.key}: {told}"]
    again = vegamite(
        *command, "--market", day.market, *(file for file in files if "binance" in str(file))
    )
    assert f"{count} trades read, 0 new, {count} already stored" in again.stdout, again.stderr
    instance.start("--no-demo")
    for name in (day.market, OTHER.key):
        for timeframe in TIMEFRAME_NAMES:
            first = min(trade.event_time for trade in day.trades)
            year = 365 * 86_400_000
            candles: list[dict[str, str]] = []
            start = str(first - year)
            while (
                len(page := instance.candles(name, timeframe, start, str(first + year))) == 10_000
            ):
                candles += page
                start = page[-1]["close_time"]
            candles += page
            assert differences(fold(day.trades, timeframe), candles)[:5] == [], timeframe
            inside = timeframe not in ("3d", "1w", "1M")
            assert {candle["complete"] for candle in candles} == {str(inside).lower()}, timeframe
            assert {candle["revision"] for candle in candles} == {"0"}, timeframe
    assert instance.stop() == 0


async def test_a_file_that_is_not_what_its_manifest_says_is_refused_alone(
    vegamite: Vegamite, instance: Any, day: Any, server_directory: Path
) -> None:
    (good,) = await archive(server_directory / "good", day, Market.parse(day.market))
    (bad,) = await archive(server_directory / "bad", day, OTHER)
    bad.write_bytes(bad.read_bytes() + b"x")
    command = ("import", "--format", "vegamite-parquet", "--data-dir", instance.data)
    done = vegamite(*command, bad, good)
    assert done.returncode == 1
    assert done.stderr == f"{bad}: not the file that its manifest was written for\n"
    assert done.stdout.startswith(f"{day.market}: {len(day.trades)} trades read")
    bare = vegamite(*command, "--market", OTHER.key, good)
    assert bare.returncode == 2
    assert "holds trades of" in bare.stderr
    good.with_suffix(".json").unlink()
    alone = vegamite(*command, good)
    assert alone.returncode == 1
    assert alone.stderr == f"{good}: its manifest {good.stem}.json isn't beside it\n"
