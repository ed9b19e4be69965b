"""Retention over a real PostgreSQL: what expires goes, what is kept stays, and nothing is lost whatever ends a run."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from vegamite_aggregator.adapters.parquet_archive import check_archive, read_trades
from vegamite_aggregator.adapters.time_partition import candle_table
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_aggregator.ports import StoreError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, Micros, from_datetime, parse_time, to_datetime
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.status import GapUnfillable
from vegamite_common.messages.trades import (
    Heartbeat,
    SpanClosed,
    SpanOpened,
    TradesRecord,
)
from vegamite_common.runtime.lifecycle import Stop

pytestmark = pytest.mark.timeout(300)

DEMO = Market("sim", "DEMO/USD")
OTHER = Market("kraken", "BTC/USD")
PARENTS = ("trade", *(candle_table(timeframe) for timeframe in Timeframe))
NOVEMBER = parse_time("2025-11-01T00:00:00Z")


def trades_of(market: Market, trade: Trade, at: Micros) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=at,
        origin=Origin.LIVE,
        trades=(trade,),
    )


def archived(directory: Path, market: Market) -> list[ArchivedTrade]:
    files = sorted((directory / market.exchange).rglob("*.parquet"))
    found: list[ArchivedTrade] = []
    for file in files:
        manifest = check_archive(file)
        trades = list(read_trades(file))
        assert manifest.market == market
        assert (manifest.rows, manifest.first_trade_id, manifest.last_trade_id) == (
            len(trades),
            trades[0].trade_id,
            trades[-1].trade_id,
        )
        found += trades
    return found


def same(trade: Trade, kept: ArchivedTrade) -> bool:
    return (
        trade.event_time,
        trade.trade_id,
        trade.sequence,
        format(trade.price, "f"),
        format(trade.amount, "f"),
        trade.taker_side,
    ) == kept[:6]


async def test_a_month_with_retention_keeps_what_the_policy_says_and_archives_the_rest(
    keep: Any,
    make_rig: Callable[..., Awaitable[Any]],
    assert_equal_fold: Callable[..., None],
    tmp_path: Path,
) -> None:
    rig = await make_rig(partitions=2)
    kept = keep(rig, tmp_path)
    await rig.start()
    await kept.live(first=NOVEMBER, days=30, each=kept.maintain)
    # The month is over, and its last week: now nothing holds the short candles back any more.
    await kept.live(first=NOVEMBER + 30 * DAY, days=8, each=kept.maintain)
    now = rig.clock.now()
    midnight = now - now % DAY
    for number, market in enumerate(kept.made):
        made = kept.made[market]
        rows = await rig.pool.fetch(
            "SELECT event_time FROM trade JOIN market USING (market_key) WHERE exchange = $1 ORDER BY 1",
            market.exchange,
        )
        since = midnight - kept.retention.trades * DAY
        assert [from_datetime(row["event_time"]) for row in rows] == [
            trade.event_time for trade in made if trade.event_time >= since
        ], number
        gone = [trade for trade in made if trade.event_time < since]
        found = archived(tmp_path, market)
        assert len(found) == len(gone)
        assert all(same(trade, one) for trade, one in zip(gone, found, strict=True))
        for timeframe in Timeframe:
            rows = await rig.pool.fetch(
                "SELECT open_time FROM candle JOIN market USING (market_key)"
                " WHERE exchange = $1 AND timeframe = $2 ORDER BY 1",
                market.exchange,
                timeframe.value,
            )
            days = kept.retention.candles.get(timeframe, 1000)
            # December's month isn't final, so none of its days expires; neither do those of a week that isn't.
            first = min(midnight - days * DAY, parse_time("2025-12-01T00:00:00Z"))
            wanted = {timeframe.open_time(trade.event_time) for trade in made}
            assert [from_datetime(row["open_time"]) for row in rows] == sorted(
                at for at in wanted if at >= first or days == 1000
            ), timeframe
    assert await kept.tables("trade") == [
        f"trade_{to_datetime(midnight + day * DAY):%Y%m%d}" for day in range(-3, 3)
    ]
    assert "candle_1s_202511" not in await kept.tables("candle_1s")
    totals = await rig.pool.fetchrow("SELECT * FROM maintenance")
    assert totals["archived_trades"] == 2 * 60 * 35
    assert totals["archived_files"] == 2 * 35
    assert from_datetime(totals["completed_time"]) == now

    # The archive alone, in another place, gives the same candles.
    fresh = await make_rig()
    fresh.clock.set(now)
    await fresh.start()
    for market in kept.made:
        await keep(fresh, None).restore(
            market, archived(tmp_path, market), job=f"a-{market.exchange}"
        )
        gone = [trade for trade in kept.made[market] if trade.event_time < since]
        assert_equal_fold(await keep(fresh, None).candles_of(market), gone)


async def test_what_expired_is_brought_back_by_an_import_and_goes_again(
    keep: Any,
    make_rig: Callable[..., Awaitable[Any]],
    assert_equal_fold: Callable[..., None],
    tmp_path: Path,
) -> None:
    rig = await make_rig()
    kept = keep(rig, tmp_path)
    await rig.start()
    await kept.live(first=NOVEMBER, days=9)
    await kept.maintain()
    await kept.maintain()
    (oldest, *_) = await kept.tables("trade")
    assert oldest > "trade_20251101"
    before = await kept.state()
    await kept.restore(DEMO, archived(tmp_path, DEMO), job="again")
    assert_equal_fold(await kept.candles_of(DEMO), kept.made[DEMO])
    assert (await kept.tables("trade"))[0] == "trade_20251101"
    job = await rig.pool.fetchrow("SELECT * FROM job WHERE job = 'again'")
    assert (job["trades"], job["expired"]) == (len(archived(tmp_path, DEMO)), 0)
    await kept.maintain()
    after = await kept.state()
    assert after["tables"] == before["tables"]
    assert after["archive"] == before["archive"], "what the archive has is not written again"
    assert len(after["candle"]) == len(before["candle"])


async def test_a_late_trade_of_a_dropped_day_makes_no_table_and_changes_nothing(
    keep: Any, rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    kept = keep(rig, None)
    await rig.start()
    await kept.live(first=NOVEMBER, days=10)
    await kept.maintain()
    before = await kept.state()
    late = Trade("late", 1, NOVEMBER + HOUR, Decimal(1), Decimal(1), "buy")
    await rig.publish(trades_of(DEMO, late, rig.clock.now()))
    await rig.settled()
    after = await kept.state()
    assert after["tables"] == before["tables"]
    assert after["trade"] == before["trade"]
    assert after["candle"] == before["candle"]


async def test_a_market_that_never_expired_gets_its_table_back(keep: Any, rig: Any) -> None:
    kept = keep(rig, None)
    await rig.start()
    await kept.live(first=NOVEMBER, days=10)
    await kept.maintain()
    new = Market("sim", "NEW/USD")
    old = Trade("old", 1, NOVEMBER + HOUR, Decimal(1), Decimal(1), "buy")
    # The aggregator believes that it made this day's tables, and it did.
    await rig.publish(trades_of(new, old, rig.clock.now()))
    await rig.settled()
    assert await rig.pool.fetchval("SELECT count(*) FROM trade WHERE trade_id = 'old'") == 1
    assert "trade_20251101" in await kept.tables("trade")
    await rig.becomes("SELECT NOT EXISTS (SELECT FROM candle WHERE NOT final AND timeframe = '1d')")
    await kept.maintain()
    assert "trade_20251101" not in await kept.tables("trade")


async def test_an_open_gap_expires_with_its_trades_and_is_told(keep: Any, rig: Any) -> None:
    kept = keep(rig, None)
    await rig.start()
    key = await rig.pool.fetchval(
        "SELECT ensure_market('sim', 'DEMO/USD', 'spot', 'DEMO', 'USD', NULL)"
    )
    await rig.pool.execute(
        "INSERT INTO tracked_market (market_key, history_from) VALUES ($1, $2)",
        key,
        to_datetime(NOVEMBER - 10 * DAY),
    )
    about: dict[str, Any] = {"exchange": DEMO.exchange, "symbol": DEMO.symbol}
    rig.clock.set(NOVEMBER + 2 * HOUR)
    await rig.publish(
        SpanOpened(**about, writer="w", from_time=NOVEMBER + HOUR),
        SpanClosed(**about, writer="w", to_time=NOVEMBER + 2 * HOUR, cause="socket_closed"),
    )
    await rig.becomes("SELECT EXISTS (SELECT FROM gap WHERE state = 'open')")
    await kept.live(first=NOVEMBER + DAY, days=2)
    await kept.maintain()
    gap = await rig.pool.fetchrow("SELECT * FROM gap")
    assert gap["state"] == "open", "it is old, but was found lately: it may still be filled"
    await kept.live(first=NOVEMBER + 3 * DAY, days=3)
    await kept.maintain()
    gap = await rig.pool.fetchrow("SELECT * FROM gap")
    assert (gap["state"], gap["reason"]) == ("unfillable", "expired")
    # The owner's next step finds another version, loads anew, and publishes what it finds.
    await rig.publish(Heartbeat(writer="w", to_time=rig.clock.now()))
    await rig.settled()
    told = [status for status in await rig.statuses() if isinstance(status, GapUnfillable)]
    assert [(status.from_time, status.reason) for status in told] == [
        (NOVEMBER - 10 * DAY, "expired")
    ]


class KilledError(Exception):
    """The maintenance ended here."""


class Mortal:
    """A port whose user is ended where no earlier one was: before a call begins, after it was done, between two pages.

    A place is a method, before or after, and the how manieth call of this run it is.
    """

    def __init__(self, port: Any, crossed: Counter[str], deaths: set[tuple[str, int]]) -> None:
        self._port = port
        self._crossed = crossed
        self._deaths = deaths

    def _cross(self, place: str) -> None:
        self._crossed[place] += 1
        here = (place, self._crossed[place])
        if here not in self._deaths:
            self._deaths.add(here)
            raise KilledError

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._port, name)
        if name == "alone":
            return made
        if name in ("trades", "delete_candles"):

            async def pages(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                async for page in made(*args, **kwargs):
                    self._cross(name)
                    yield page

            return pages

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._cross(f"before {name}")
            answer = await made(*args, **kwargs)
            self._cross(f"after {name}")
            return answer

        return call


async def test_killed_between_any_two_steps_the_next_run_finishes_the_work(
    keep: Any, make_rig: Callable[..., Awaitable[Any]], tmp_path: Path
) -> None:
    rig = await make_rig()
    archive = tmp_path / "often"
    kept = keep(rig, archive)
    # So few that a run has some dozens of steps; all months over, so that candles expire too.
    running = await rig.start()
    await kept.live(first=NOVEMBER + 26 * DAY, days=3)
    await kept.live(first=NOVEMBER + 75 * DAY, days=3)
    await running.stop()
    rig.forget(running)
    made = await kept.state()
    deaths: set[tuple[str, int]] = set()
    while True:
        crossed: Counter[str] = Counter()
        try:
            around = partial(Mortal, crossed=crossed, deaths=deaths)
            report = await kept.maintenance(around).run(Stop())
        except KilledError:
            held = {str(row["trade_id"]) for row in await rig.rows("trade")}
            saved = {one.trade_id for market in kept.made for one in archived(archive, market)}
            missing = {row["trade_id"] for row in made["trade"]} - held - saved
            assert not missing, f"lost trades by a death at one of {deaths}"
            continue
        assert not report.problems
        break
    assert len(deaths) > 30
    assert {"move", "drop_day", "store", "drop_candles"} <= {
        place.split()[-1] for place, _ in deaths
    }
    finally_ = await kept.state()
    assert finally_["tables"][0] >= "trade_202601"
    assert [
        row for row in finally_["trade"] if row["event_time"] < to_datetime(NOVEMBER + 70 * DAY)
    ] == []
    assert {row["open_time"] for row in finally_["candle"] if row["timeframe"] == "1s"} == {
        row["open_time"]
        for row in made["candle"]
        if row["timeframe"] == "1s" and row["open_time"] >= to_datetime(NOVEMBER + 70 * DAY)
    }
    assert [row for row in finally_["candle"] if row["timeframe"] == "1h"] == [
        row for row in made["candle"] if row["timeframe"] == "1h"
    ]
    assert not list(archive.rglob(".*")), "nothing unfinished is left"


async def test_two_at_once_do_the_work_once(keep: Any, rig: Any, tmp_path: Path) -> None:
    kept = keep(rig, tmp_path)
    await rig.start()
    await kept.live(first=NOVEMBER, days=8)
    reports = await asyncio.gather(*(kept.maintenance().run(Stop()) for _ in range(3)))
    assert sorted(report.busy for report in reports) in (
        [False, True, True],
        [False, False, True],
        [False] * 3,
    )
    assert sum(report.done.archived_trades for report in reports) == 2 * 60 * 5
    assert (await kept.tables("trade"))[0] == "trade_20251106"


async def test_beside_aggregators_at_work_nothing_of_what_is_kept_is_missed(
    keep: Any,
    make_rig: Callable[..., Awaitable[Any]],
    assert_equal_fold: Callable[..., None],
    tmp_path: Path,
) -> None:
    rig = await make_rig(partitions=2)
    kept = keep(rig, tmp_path)
    await rig.start()
    over = asyncio.Event()

    async def maintain_always() -> int:
        runs = 0
        while not over.is_set():
            try:
                await kept.maintenance().run(Stop())
            except StoreError:
                continue  # the owner ended us, since we had its fence for too long
            runs += 1
        return runs

    always = asyncio.create_task(maintain_always())
    await kept.live(first=NOVEMBER, days=12)
    over.set()
    assert await always > 0
    await kept.maintain()
    assert (await kept.tables("trade"))[0] == "trade_20251110"
    for market, made in kept.made.items():
        # November isn't over, so every candle is still there; the trades of nine days are in the archive.
        assert_equal_fold(await kept.candles_of(market), made)
        assert len(archived(tmp_path, market)) == 9 * 60


async def test_a_day_that_cannot_be_archived_stays(keep: Any, rig: Any, tmp_path: Path) -> None:
    kept = keep(rig, tmp_path)
    await rig.start()
    await kept.live(first=NOVEMBER, days=6)
    (tmp_path / "sim").write_text("a file where a directory should be")
    report = await kept.maintenance().run(Stop())
    assert len(report.problems) == 3
    assert all("trade_202511" in problem for problem in report.problems)
    assert (await kept.tables("trade"))[0] == "trade_20251101"
    assert await rig.pool.fetchval("SELECT completed_time FROM maintenance") is None
    assert await rig.pool.fetchval("SELECT count(*) FROM trade") == 2 * 6 * 60
    (tmp_path / "sim").unlink()
    await kept.maintain()
    assert (await kept.tables("trade"))[0] == "trade_20251104"


async def test_a_rehearsal_tells_what_would_be_done_and_does_nothing(
    keep: Any, rig: Any, tmp_path: Path
) -> None:
    kept = keep(rig, tmp_path)
    await rig.start()
    await kept.live(first=NOVEMBER, days=5)
    before = await kept.state()
    lines = await kept.maintenance().rehearse()
    assert f"{DEMO.key}: trades before 2025-11-03T00:00:00Z expire" in lines
    assert "would drop trade_20251101 (2 markets) after archiving" in lines
    assert await kept.state() == before
    await kept.maintain()
    assert await kept.maintenance().rehearse() == ["nothing is to be done"]


async def test_a_rehearsal_tells_the_tables_and_the_candles_that_a_run_then_takes_and_makes(
    keep: Any, rig: Any, tmp_path: Path
) -> None:
    kept = keep(rig, tmp_path)
    running = await rig.start()
    # November goes as a whole; of January the first candles do, and the last ones stay.
    for day, days in ((26, 2), (80, 2), (90, 5)):
        await kept.live(first=NOVEMBER + day * DAY, days=days)
    await running.stop()
    rig.forget(running)
    before = await kept.state()
    tables = {name for parent in PARENTS for name in await kept.tables(parent)}
    async with asyncpg.create_pool(
        rig.url, min_size=1, max_size=2, server_settings={"role": "vegamite_aggregator"}
    ) as pool:
        told = await kept.maintenance(pool=pool).rehearse()
    assert await kept.state() == before
    report = await kept.maintain()
    now = {name for parent in PARENTS for name in await kept.tables(parent)}
    ahead = next(line for line in told if line.startswith("would make"))
    assert set(ahead.split(": ")[1].split(", ")) == now - tables
    dropped = {line.split()[2] for line in told if line.startswith("would drop")}
    assert dropped == tables - now
    assert "candle_1s_202511" in dropped
    deleted = [line.split() for line in told if line.startswith("would delete")]
    assert sum(int(words[2]) for words in deleted) == report.done.deleted_candles > 0
    assert "1s" in {words[3] for words in deleted}
    assert await kept.maintenance().rehearse() == ["nothing is to be done"]


async def test_what_is_still_unread_in_the_log_does_not_expire(keep: Any, rig: Any) -> None:
    kept = keep(rig, None)
    running = await rig.start()
    await kept.live(first=NOVEMBER, days=1)
    await running.stop()
    rig.forget(running)
    # Ten days without an aggregator: by the clock all has expired, by the log nothing has.
    rig.clock.set(NOVEMBER + 11 * DAY)
    await kept.maintain()
    assert await rig.pool.fetchval("SELECT count(*) FROM trade") == 2 * 60
    latest = await rig.pool.fetchval("SELECT max(horizon_time) FROM horizon")
    assert latest < to_datetime(NOVEMBER)


@asynccontextmanager
async def reading(rig: Any) -> AsyncIterator[None]:
    async with rig.pool.acquire() as connection, connection.transaction():
        await connection.fetch("SELECT * FROM trade")
        yield


async def test_a_long_reader_delays_the_drop_and_nobody_waits_for_it(keep: Any, rig: Any) -> None:
    kept = keep(rig, None)
    await rig.start()
    await kept.live(first=NOVEMBER, days=5)
    async with reading(rig):
        running = asyncio.create_task(kept.maintain())
        await rig.becomes("SELECT EXISTS (SELECT FROM horizon)")
        # Others go on reading and writing meanwhile.
        await kept.live(first=NOVEMBER + 5 * DAY, days=1)
        assert "trade_20251101" in await kept.tables("trade")
    await running
    assert "trade_20251101" not in await kept.tables("trade")
