"""Live streams over a real aggregator: snapshot and stream together equal what is stored."""

import asyncio
from collections.abc import Callable
from typing import Any

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord
from vegamite_common.testing.eventually import eventually

BTC = Market("kraken", "BTC/USD")
NOON = 1_760_097_600 * SECOND


async def test_a_client_that_connects_in_the_middle_ends_with_what_is_stored(
    make_world: Any,
    make_trades: Callable[..., list[Trade]],
    trades_record: Callable[..., TradesRecord],
) -> None:
    world = await make_world(partitions=3)
    await world.aggregate()
    await world.serve()
    await world.market()
    trades = make_trades(count=600, begin=NOON - 600 * SECOND)

    async def feed() -> None:
        for at in range(0, len(trades), 5):
            await world.publish(trades_record(BTC, trades[at : at + 5]))
            await asyncio.sleep(0.005)  # the feed's own pace, waited for by nobody

    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(feed())
        await eventually(lambda: world.pool.fetchval("SELECT count(*) > 100 FROM trade"))
        async with world.stream() as stream:
            for timeframe in ("1s", "1m"):
                ack = await stream.ask(
                    "subscribe",
                    channel="candles",
                    markets=[BTC.key],
                    timeframe=timeframe,
                    snapshot=1000,
                )
                assert ack["success"], ack
            ack = await stream.ask("subscribe", channel="trades", markets=[BTC.key], snapshot=1000)
            assert ack["success"], ack
            await feeding
            await world.settled()
            last = trades[-1].trade_id
            await stream.until(
                lambda m: any(row.get("trade_id") == last for row in m.get("data", []))
            )
            stored = (
                await world.http.get("/v1/trades", params={"market": BTC.key, "limit": 1000})
            ).json()
            seen = {row["trade_id"]: row for row in stream.data("trades", "snapshot", "update")}
            assert list(stored["data"]) == sorted(seen.values(), key=lambda row: row["sequence"])
            for timeframe in ("1s", "1m"):
                await _same_candles(world, stream, timeframe)


async def _same_candles(world: Any, stream: Any, timeframe: str) -> None:
    answer = await world.http.get(
        "/v1/candles", params={"market": BTC.key, "timeframe": timeframe, "limit": 5000}
    )
    stored = {row["open_time"]: row for row in answer.json()["data"]}

    def held() -> dict[str, Any]:
        newest: dict[str, Any] = {}
        for row in stream.data("candles", "snapshot", "update", "final", "revision"):
            if row["timeframe"] != timeframe:
                continue
            before = newest.get(row["open_time"])
            if before is None or _order(row) >= _order(before):
                newest[row["open_time"]] = row
        return newest

    while held() != stored:
        await stream.receive()
    assert len(stored) > 5


def _order(row: dict[str, Any]) -> tuple[int, ...]:
    return (*map(int, row["as_of"].split("-")), row["final"], row["revision"])
