"""The recorded day through every part: exchange's wire, collector, Kafka, aggregator, PostgreSQL, HTTP and WebSocket."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncpg
import pytest

from vegamite_common.domain.time import parse_time
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.reference_fold import TIMEFRAME_NAMES, differences, fold

DAY_START = "2019-10-11T00:00:00Z"
DAY_END = "2019-10-12T00:00:00Z"
MARKET = "binance:XRP/ETH"

pytestmark = pytest.mark.timeout(420)


async def assert_day_is_exact(client: Any, recorded_day: Any) -> None:
    """Every candle of every timeframe equals the plain fold, those of 1m and 5m the peer's too; none is there besides."""
    for timeframe in TIMEFRAME_NAMES:
        start = "2019-10-01T00:00:00Z" if timeframe in ("3d", "1w", "1M") else DAY_START
        stored = await client.candles(timeframe, start=start, end="2019-11-01T00:00:00Z")
        expected = fold(recorded_day.trades, timeframe)
        assert not differences(expected, stored)[:5], timeframe
        if timeframe in recorded_day.peers:
            assert not differences(recorded_day.peers[timeframe], stored)[:5], timeframe


async def assert_day_is_closed(client: Any) -> None:
    """Every candle that lies inside the day is final and complete."""
    for timeframe in TIMEFRAME_NAMES:
        inside = [
            candle
            for candle in await client.candles(timeframe)
            if candle["open_time"] >= DAY_START and candle["close_time"] <= DAY_END
        ]
        doubtful = [candle for candle in inside if not (candle["final"] and candle["complete"])]
        assert not doubtful[:3], timeframe
        assert inside or timeframe in ("3d", "1w", "1M")


async def assert_trades_are_exact(client: Any, recorded_day: Any) -> None:
    """Every recorded trade is stored once, in order, and nothing else."""
    stored = await client.fetch_all(
        "/v1/trades", market=MARKET, start=DAY_START, end=DAY_END, limit=5000
    )
    assert [int(trade["trade_id"]) for trade in stored] == [
        trade.trade_id
        for trade in sorted(recorded_day.trades, key=lambda t: (t.event_time, t.trade_id))
    ]


class View:
    """What a client holds that connected in the middle: the newest states of candles, and trades by id."""

    def __init__(self) -> None:
        self.candles: dict[tuple[str, str], dict[str, Any]] = {}
        self.trades: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self.revised: list[tuple[str, str, str]] = []

    def take(self, message: dict[str, Any]) -> None:
        """Keep what a message says, a newer state over an older one."""
        kind = f"{message.get('channel')}/{message.get('type')}"
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if message.get("success") is False:
            raise AssertionError(message)
        if message.get("channel") == "candles":
            for candle in message["data"]:
                self.first.setdefault(candle["timeframe"], candle["open_time"])
                self.hold(candle)
        elif kind == "status/revised":
            self.revised.append((message["timeframe"], message["from_time"], message["to_time"]))
        elif message.get("channel") == "trades":
            for trade in message["data"]:
                self.trades[trade["trade_id"]] = trade

    def hold(self, candle: dict[str, Any]) -> None:
        """Keep a candle's state unless the one that is held is newer."""
        key = (candle["timeframe"], candle["open_time"])
        held = self.candles.get(key)
        if held is None or rank(candle) > rank(held):
            self.candles[key] = candle

    async def read_again(self, client: Any) -> None:
        """Do what `revised` messages ask for: their candles come in no message of their own."""
        while self.revised:
            timeframe, start, end = self.revised.pop()
            for candle in await client.candles(timeframe, start=start, end=end):
                self.hold(candle)


def rank(candle: dict[str, Any]) -> tuple[int, int, bool, int]:
    """The order of a candle's states: (epoch, as_of, final, revision)."""
    epoch, offset = candle["as_of"].split("-")
    return (int(epoch), int(offset), candle["final"], candle["revision"])


async def test_the_recorded_day_reaches_the_client_exactly_and_a_live_view_equals_the_store(
    system: Any, client: Any, recorded_day: Any, watch: Callable[..., Any]
) -> None:
    await asyncio.to_thread(system.start, file=recorded_day.file, origin="2019-10-11T22:55:00Z")
    await client.track(MARKET, DAY_START)
    await eventually(lambda: system.now() > parse_time("2019-10-11T23:20:00Z"), timeout_s=120)
    view = View()
    subscriptions = [
        {"channel": "candles", "markets": [MARKET], "timeframe": "1m", "snapshot": 50},
        {"channel": "candles", "markets": [MARKET], "timeframe": "5m", "snapshot": 50},
        {"channel": "trades", "markets": [MARKET], "snapshot": 100},
    ]
    async with watch(client, subscriptions, view.take):
        await client.wait_until_covered(DAY_START, DAY_END, timeout_s=180)
        await eventually(lambda: assert_day_is_closed(client), timeout_s=60)
        await assert_day_is_exact(client, recorded_day)
        await assert_trades_are_exact(client, recorded_day)
        for timeframe in ("1m", "5m"):
            await eventually(
                partial(assert_view_equals_store, client, view, timeframe), timeout_s=30
            )
        await assert_trades_seen(client, view)
    assert view.seen.get("candles/final", 0) > 5, view.seen
    assert view.seen.get("candles/update", 0) > 5, view.seen


async def assert_view_equals_store(client: Any, view: View, timeframe: str) -> None:
    """From the snapshot's first candle on, the client holds exactly what is stored."""
    await view.read_again(client)
    stored = await client.candles(timeframe, start=view.first[timeframe])
    held = [candle for (name, _), candle in sorted(view.candles.items()) if name == timeframe]
    held = [candle for candle in held if candle["open_time"] >= view.first[timeframe]]
    assert held == stored


def place(trade: dict[str, Any]) -> tuple[int, int]:
    """A trade's place in the market's order."""
    return (parse_time(trade["event_time"]), trade["sequence"])


async def assert_trades_seen(client: Any, view: View) -> None:
    """From the first live trade on, the client has seen exactly the stored ones."""
    first = min(view.trades.values(), key=place)
    stored = await client.fetch_all(
        "/v1/trades", market=MARKET, start=first["event_time"], end=DAY_END, limit=5000
    )
    after = [trade for trade in stored if place(trade) >= place(first)]
    missing = [trade["trade_id"] for trade in after if trade["trade_id"] not in view.trades]
    assert not missing, f"{len(missing)} of {len(after)} trades not seen, first {missing[:3]}"
    assert len(after) > 20


async def test_killing_aggregator_and_collector_in_the_middle_leaves_the_same_candles(
    system: Any, client: Any, recorded_day: Any
) -> None:
    await asyncio.to_thread(system.start, file=recorded_day.file, origin="2019-10-11T22:55:00Z")
    await client.track(MARKET, DAY_START)

    async def trades_stored() -> int:
        connection = await asyncpg.connect(system.database)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM trade"))
        finally:
            await connection.close()

    async def some_history() -> None:
        assert await trades_stored() > 500

    await eventually(some_history, timeout_s=60)
    await asyncio.to_thread(restart, system.aggregator)
    await eventually(lambda: system.now() > parse_time("2019-10-11T23:15:00Z"), timeout_s=60)
    await asyncio.to_thread(restart, system.collector)
    await eventually(lambda: system.now() > parse_time("2019-10-11T23:35:00Z"), timeout_s=60)
    await asyncio.to_thread(restart, system.aggregator)
    await assert_no_complete_candle_lacks_a_trade(client, recorded_day)
    await client.wait_until_covered(DAY_START, DAY_END, timeout_s=240)
    await eventually(lambda: assert_day_is_closed(client), timeout_s=60)
    await assert_day_is_exact(client, recorded_day)
    await assert_trades_are_exact(client, recorded_day)


def restart(service: Any) -> None:
    """Kill a service between any two of its instructions, and start it anew."""
    service.kill()
    service.start()


async def assert_no_complete_candle_lacks_a_trade(client: Any, recorded_day: Any) -> None:
    """Whatever is called complete, at any moment, has every trade."""
    for timeframe in ("1s", "1m", "15m", "1h"):
        expected = fold(recorded_day.trades, timeframe)
        complete = [candle for candle in await client.candles(timeframe) if candle["complete"]]
        wanted = {candle["open_time"]: expected[candle["open_time"]] for candle in complete}
        assert not differences(wanted, complete)[:3], timeframe
