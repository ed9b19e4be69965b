"""Several collectors share the markets as the group says, and take over from one another without a hole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from vegamite_collector.bootstrap import open_service
from vegamite_collector.config import CollectorSettings
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.messages.trades import Heartbeat, SpanClosed
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.lifecycle import Resources, Stop
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import FakeExchange, GeneratedFeed

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "LTC/USDT")
MARKETS = [Market("binance", symbol) for symbol in SYMBOLS]


def settings(exchange: FakeExchange) -> dict[str, Any]:
    return {
        "collector": {
            "repair_scan_seconds": 0.2,
            "gap_age_ms": 0,
            "heartbeat_ms": 200,
            "release_seconds": 1.0,
        },
        "exchanges": {"binance": {"urls": exchange.url, "options": {"streamLimits": {"spot": 1}}}},
    }


@asynccontextmanager
async def another(
    running: Any, database: str, config: dict[str, Any]
) -> AsyncIterator[Callable[[], Any]]:
    """A second collector in the same group; gives a function that stops it."""
    resources = Resources(clock=running.clock, bus=running.bus, pool=running.pool)
    merged = CollectorSettings(postgres={"url": SecretStr(database)}, **config)
    stop = Stop()
    async with open_service(merged, resources=resources) as service:
        task = asyncio.create_task(service.run(stop))

        async def finish() -> None:
            stop.request()
            await asyncio.wait_for(asyncio.shield(task), 20)

        try:
            yield finish
        finally:
            await finish()


def feeds() -> list[GeneratedFeed]:
    return [GeneratedFeed(symbol, seed=n, rate=5) for n, symbol in enumerate(SYMBOLS)]


def writers_of(ledger: Any) -> dict[Market, set[str]]:
    """Who has each market's span open now."""
    found: dict[Market, set[str]] = {market: set() for market in MARKETS}
    for writer, market in ledger.open_spans:
        found[market].add(writer)
    return found


async def test_a_second_member_takes_its_share_and_gives_it_back(
    schema: str, rig: Callable[..., Any]
) -> None:
    playing = feeds()
    async with (
        FakeExchange(playing, message_limit=None) as exchange,
        rig(settings(exchange), partitions=4) as running,
    ):
        for market in MARKETS:
            await running.track(market)
        ledger = running.ledger
        began = SystemClock().now() + 4 * SECOND
        await eventually(
            lambda: all(ledger.coverage(m).covers(began, began + SECOND) for m in MARKETS),
            timeout_s=40,
        )
        assert exchange.open_sockets == 1, "one socket carries all of them"
        async with another(running, schema, settings(exchange)) as finish:
            await eventually(lambda: exchange.open_sockets == 2)
            await eventually(
                lambda: "moved" in {record.cause for record in ledger.kinds(SpanClosed)},
                timeout_s=30,
            )
            await eventually(
                lambda: all(len(w) == 1 for w in writers_of(ledger).values()), timeout_s=30
            )
            await finish()
        await eventually(
            lambda: "stopped" in {record.cause for record in ledger.kinds(SpanClosed)}, timeout_s=30
        )
        end = SystemClock().now()
        await eventually(
            lambda: all(ledger.coverage(m).covers(began, end + 4 * SECOND) for m in MARKETS),
            timeout_s=60,
        )
        assert ledger.late == []
        assert ledger.conflicts == []
        for market, feed in zip(MARKETS, playing, strict=True):
            told = feed.from_time(began // 1000 + 1, until=end // 1000, limit=100_000)
            assert {str(trade.trade_id) for trade in told} <= set(ledger.of(market))


async def test_a_market_that_leaves_a_shared_socket_takes_only_its_own_subscription_with_it(
    rig: Callable[..., Any],
) -> None:
    async with (
        FakeExchange(feeds()[:2], message_limit=None) as exchange,
        rig(settings(exchange), partitions=1) as running,
    ):
        keys = [await running.track(market) for market in MARKETS[:2]]
        await eventually(lambda: len(running.ledger.open_spans) == 2, timeout_s=30)
        await running.pool.execute("DELETE FROM tracked_market WHERE market_key = $1", keys[0])
        await eventually(
            lambda: [r.cause for r in running.ledger.kinds(SpanClosed)] == ["untracked"],
            timeout_s=20,
        )
        sent = len(running.ledger.of(MARKETS[0]))
        have = len(running.ledger.of(MARKETS[1]))
        await eventually(lambda: len(running.ledger.of(MARKETS[1])) > have + 10, timeout_s=20)
        assert len(running.ledger.of(MARKETS[0])) <= sent + 1
        assert exchange.counters["sockets_opened"] == 1
        [open_span] = running.ledger.open_spans
        assert open_span[1] == MARKETS[1]


async def test_heartbeats_go_to_every_partition_held_with_or_without_markets(
    rig: Callable[..., Any],
) -> None:
    async with (
        FakeExchange(feeds()[:1]) as exchange,
        rig(settings(exchange), partitions=5) as running,
    ):
        await eventually(lambda: len({r.writer for r in running.ledger.kinds(Heartbeat)}) == 5)
