"""The real ccxt client against a fake exchange that speaks Binance's protocol, through a whole collector."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    SpanClosed,
    SpanOpened,
    TradesRecord,
)
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import (
    AggregateTrade,
    FakeExchange,
    GeneratedFeed,
    Listing,
    RecordedFeed,
)
from vegamite_common.testing.fake_exchange.feed import Feed

BTC = Market("binance", "BTC/USDT")
ETH = Market("binance", "ETH/USDT")


def settings(exchange: FakeExchange, **collector: Any) -> dict[str, Any]:
    return {
        "collector": {
            "repair_scan_seconds": 0.2,
            "gap_age_ms": 0,
            "heartbeat_ms": 200,
            **collector,
        },
        "exchanges": {"binance": {"urls": exchange.url}},
    }


def truth(feed: Feed, from_time: int, to_time: int) -> dict[str, tuple[Decimal, Decimal, int, str]]:
    """What the exchange did in a span, by id: price, amount, event time and taker's side."""
    found: dict[str, tuple[Decimal, Decimal, int, str]] = {}
    at = -(-from_time // 1000)
    page = feed.from_time(at, until=(to_time - 1) // 1000, limit=100_000)
    for trade in page:
        side = "sell" if trade.buyer_is_maker else "buy"
        found[str(trade.trade_id)] = (
            Decimal(trade.price),
            Decimal(trade.amount),
            trade.time_ms * 1000,
            side,
        )
    return found


def assert_complete(ledger: Any, market: Market, feed: Feed) -> None:
    """Every covered instant's trades are there, exactly, and nothing that the exchange never told."""
    for span in ledger.coverage(market):
        for trade_id, expected in truth(feed, span.from_time, span.to_time).items():
            trade = ledger.of(market).get(trade_id)
            assert trade is not None, f"trade {trade_id} lies in a covered span and is missing"
            assert (trade.price, trade.amount, trade.event_time, trade.taker_side) == expected
            assert trade.sequence == int(trade_id)
    assert ledger.conflicts == []
    assert ledger.late == []


async def wait_for_coverage(
    running: Any, market: Market, *, after: int, seconds: float = 3
) -> None:
    """Wait until one unbroken span reaches from before `after` to some seconds behind it."""

    def reached() -> None:
        assert running.ledger.coverage(market).covers(after, after + round(seconds * SECOND))

    await eventually(reached, timeout_s=40)


async def test_streams_two_markets_and_claims_only_what_is_there(rig: Callable[..., Any]) -> None:
    feeds = {
        BTC: GeneratedFeed("BTC/USDT", seed=1, rate=20),
        ETH: GeneratedFeed("ETH/USDT", seed=2, rate=5),
    }
    async with FakeExchange(feeds.values()) as exchange, rig(settings(exchange)) as running:
        for market in feeds:
            await running.track(market)
        began = SystemClock().now() + 3 * SECOND
        for market, feed in feeds.items():
            await wait_for_coverage(running, market, after=began)
            assert_complete(running.ledger, market, feed)
            assert await running.state(market) == "live"
        row = await running.pool.fetchrow("SELECT * FROM market WHERE symbol = 'BTC/USDT'")
        assert (row["state"], row["price_increment"]) == ("active", Decimal("0.01"))
        assert await running.pool.fetchval("SELECT count(*) FROM exchange") > 100
        beaten = {type(record) for record in running.ledger.records}
        assert {Heartbeat, SpanOpened, TradesRecord} <= beaten


async def test_a_burst_larger_than_the_clients_own_cache_loses_nothing(
    rig: Callable[..., Any],
) -> None:
    now_ms = SystemClock().now() // 1000
    # 4,000 trades of a few milliseconds, eight seconds from now, between two quiet times.
    burst = [
        AggregateTrade(n, "100.5", "0.25", n, n, now_ms + 8_000 + n // 800, n % 2 == 0)
        for n in range(1, 4_001)
    ]
    tail = [
        AggregateTrade(4_000 + n, "101", "1", n, n, now_ms + 8_100 + n * 500, False)
        for n in range(1, 60)
    ]
    feed = RecordedFeed(Listing("BTC", "USDT"), burst + tail)
    async with (
        FakeExchange([feed]) as exchange,
        rig(settings(exchange, queue_trades=1_000, queue_records=20)) as running,
    ):
        await running.track(BTC)
        await wait_for_coverage(running, BTC, after=(now_ms + 7_000) * 1000, seconds=5)
        assert_complete(running.ledger, BTC, feed)
        assert len(running.ledger.of(BTC)) >= 4_000
        assert exchange.counters["rest_aggTrades_200"] <= 2, (
            "the burst came by the stream, not by repair"
        )
        assert max(len(r.trades) for r in running.ledger.kinds(TradesRecord)) <= 1_000


async def test_a_dropped_socket_closes_the_span_and_the_gap_is_repaired(
    rig: Callable[..., Any],
) -> None:
    feed = GeneratedFeed("BTC/USDT", seed=3, rate=50)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await running.track(BTC)
        began = SystemClock().now() + 3 * SECOND
        await wait_for_coverage(running, BTC, after=began, seconds=1)
        await exchange.drop_sockets()
        await eventually(lambda: exchange.counters["sockets_opened"] >= 2)
        await wait_for_coverage(running, BTC, after=began, seconds=8)
        assert [record.cause for record in running.ledger.kinds(SpanClosed)] == ["socket_closed"]
        assert any(record.job for record in running.ledger.kinds(TradesRecord))
        assert running.ledger.kinds(JobEnded)
        assert_complete(running.ledger, BTC, feed)


async def test_a_silent_socket_is_noticed_and_what_it_kept_back_is_fetched(
    rig: Callable[..., Any],
) -> None:
    feed = GeneratedFeed("BTC/USDT", seed=4, rate=20)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await running.track(BTC)
        began = SystemClock().now() + 3 * SECOND
        await wait_for_coverage(running, BTC, after=began, seconds=1)
        exchange.faults.silent = True
        await eventually(lambda: bool(running.ledger.kinds(SpanClosed)), timeout_s=20)
        exchange.faults.silent = False
        await wait_for_coverage(running, BTC, after=began, seconds=12)
        assert running.ledger.kinds(SpanClosed)[0].cause == "timeout"
        assert_complete(running.ledger, BTC, feed)


async def test_rubbish_frames_end_no_connection_and_withhold_what_they_may_have_hidden(
    rig: Callable[..., Any],
) -> None:
    feed = GeneratedFeed("BTC/USDT", seed=5, rate=20)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await running.track(BTC)
        began = SystemClock().now() + 3 * SECOND
        await wait_for_coverage(running, BTC, after=began, seconds=1)
        exchange.send_frames()
        await wait_for_coverage(running, BTC, after=began, seconds=8)
        causes = {record.cause for record in running.ledger.kinds(SpanClosed)}
        assert causes == {"undecodable_frame", "unhandled_frame"}
        assert exchange.counters["sockets_opened"] == 1
        assert_complete(running.ledger, BTC, feed)


async def test_ids_that_the_stream_skips_are_fetched_even_where_time_was_claimed(
    rig: Callable[..., Any],
) -> None:
    feed = GeneratedFeed("BTC/USDT", seed=6, rate=30)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await running.track(BTC)
        began = SystemClock().now() + 3 * SECOND
        await wait_for_coverage(running, BTC, after=began, seconds=1)
        exchange.faults.lose = 5
        await eventually(lambda: exchange.counters["trades_lost"] == 5)
        await wait_for_coverage(running, BTC, after=began, seconds=9)
        assert "missing_trades" in {record.cause for record in running.ledger.kinds(SpanClosed)}
        ledger = running.ledger
        for trade_id in truth(feed, began, began + 6 * SECOND):
            assert trade_id in ledger.of(BTC)


async def test_numbers_of_18_digits_arrive_as_the_exchange_wrote_them(
    rig: Callable[..., Any],
) -> None:
    now_ms = SystemClock().now() // 1000
    price, amount = "123456789.123456789", "1234567890.12345678"
    trades = [
        AggregateTrade(n, price, amount, n, n, now_ms + n * 250, False) for n in range(1, 120)
    ]
    feed = RecordedFeed(Listing("BTC", "USDT"), trades)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await running.track(BTC)
        await eventually(lambda: len(running.ledger.of(BTC)) > 10, timeout_s=30)
        for trade in running.ledger.of(BTC).values():
            assert (str(trade.price), str(trade.amount)) == (price, amount)


async def test_an_unreachable_exchange_says_reconnecting_and_comes_back_by_itself(
    rig: Callable[..., Any],
) -> None:
    feed = GeneratedFeed("BTC/USDT", seed=7, rate=5)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await exchange.refuse_connections()
        await running.track(BTC)

        async def state_is(expected: str) -> None:
            assert await running.state(BTC) == expected

        await eventually(lambda: state_is("reconnecting"))
        reason = await running.pool.fetchval("SELECT reason FROM market_state")
        assert reason.startswith("ExchangeNotAvailable")
        await exchange.accept_connections()
        await eventually(lambda: state_is("live"), timeout_s=60)
        await eventually(lambda: running.ledger.statuses[-1].state == "live")
        assert "reconnecting" in [record.state for record in running.ledger.statuses]


async def test_an_unknown_symbol_is_said_to_be_one_with_what_may_have_been_meant(
    rig: Callable[..., Any],
) -> None:
    feeds = [GeneratedFeed("BTC/USDT", seed=1), GeneratedFeed("BTC/USDC", seed=1)]
    async with FakeExchange(feeds) as exchange, rig(settings(exchange)) as running:
        await running.track(Market("binance", "BTC/USD"))

        async def unknown() -> None:
            row = await running.pool.fetchrow("SELECT state, suggestions FROM market_state")
            assert row is not None
            assert row["state"] == "unknown_symbol"
            assert set(row["suggestions"]) == {"BTC/USDT", "BTC/USDC"}

        await eventually(unknown)


async def test_tracking_changes_take_effect_by_notification(rig: Callable[..., Any]) -> None:
    feeds = [GeneratedFeed("BTC/USDT", seed=1, rate=5)]
    async with (
        FakeExchange(feeds) as exchange,
        rig(settings(exchange, refresh_seconds=3600)) as running,
    ):
        await eventually(lambda: bool(running.ledger.kinds(Heartbeat)))
        key = await running.track(BTC)
        await eventually(lambda: exchange.open_sockets == 1)
        await running.pool.execute("DELETE FROM tracked_market WHERE market_key = $1", key)
        await eventually(lambda: exchange.open_sockets == 0)
        await eventually(
            lambda: [r.cause for r in running.ledger.kinds(SpanClosed)] in (["untracked"], [])
        )


async def test_stopping_closes_spans_and_writes_everything_that_was_taken(
    rig: Callable[..., Any],
) -> None:
    feed = GeneratedFeed("BTC/USDT", seed=8, rate=50)
    async with FakeExchange([feed]) as exchange, rig(settings(exchange)) as running:
        await running.track(BTC)
        began = SystemClock().now() + 3 * SECOND
        await wait_for_coverage(running, BTC, after=began, seconds=1)
        await running.finish()
        await eventually(lambda: bool(running.ledger.kinds(SpanClosed)))
        assert [record.cause for record in running.ledger.kinds(SpanClosed)] == ["stopped"]
        assert isinstance(running.ledger.records[-1], Heartbeat | SpanClosed)
        assert running.ledger.open_spans == {}
        assert_complete(running.ledger, BTC, feed)
        assert exchange.open_sockets == 0
