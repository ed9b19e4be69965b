"""The real ccxt.pro client against the fake exchange, on loopback: what each call asks for and gets."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest
import pytest_asyncio

from vegamite_common.domain.time import DAY, HOUR
from vegamite_common.runtime.clock import SimulatedClock, wall_now
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import (
    FakeExchange,
    GeneratedFeed,
    RecordedFeed,
    RestFailure,
)
from vegamite_common.testing.fake_exchange.__main__ import CCXT_OPTIONS
from vegamite_common.testing.manual_clock import ManualClock

NOW = 1_600_000_000_000_000
NOW_MS = NOW // 1000
SYMBOL = "BTC/USDT"


class Client(ccxt.pro.binance):  # type: ignore[misc] # ccxt's classes have no types
    """ccxt's client; keeps every trade frame that reached its handler, in order."""

    def __init__(self, exchange: FakeExchange, **config: Any) -> None:
        options = {**CCXT_OPTIONS, **config.pop("options", {})}
        super().__init__({"urls": {"api": exchange.urls}, "options": options, **config})
        self.seen: list[tuple[str, int]] = []

    def handle_trade(self, client: Any, message: Any) -> None:
        self.seen.append((message["s"], message["a"]))
        super().handle_trade(client, message)

    def heard(self, market_id: str = "BTCUSDT") -> list[int]:
        return [trade_id for market, trade_id in self.seen if market == market_id]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def feed() -> GeneratedFeed:
    return GeneratedFeed(SYMBOL, seed=3)


@pytest_asyncio.fixture
async def exchange(clock: ManualClock, feed: GeneratedFeed) -> AsyncIterator[FakeExchange]:
    async with FakeExchange([feed, GeneratedFeed("ETH/USDT", seed=3)], clock=clock) as running:
        yield running


@pytest_asyncio.fixture
async def open_client(exchange: FakeExchange) -> AsyncIterator[Callable[..., Client]]:
    clients: list[Client] = []

    def open_one(**config: Any) -> Client:
        clients.append(Client(exchange, **config))
        return clients[-1]

    yield open_one
    for client in clients:
        await client.close()


@contextlib.asynccontextmanager
async def watching(client: Client, exchange: FakeExchange, *symbols: str) -> AsyncIterator[None]:
    """Keep each symbol watched through closed sockets, from its acknowledged subscription on."""

    async def watch(symbol: str) -> None:
        while True:
            with contextlib.suppress(ccxt.NetworkError):
                await client.watch_trades(symbol)

    before = exchange.counters["control_messages"]
    tasks = [asyncio.create_task(watch(symbol)) for symbol in symbols]
    await eventually(lambda: exchange.counters["control_messages"] >= before + len(symbols))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def heard_all(client: Client, expected: list[int]) -> None:
    await eventually(lambda: client.heard() == expected)


def happened(feed: GeneratedFeed, start_ms: int, end_ms: int) -> list[int]:
    """The ids of what happened in (start, end]."""
    return [t.trade_id for t in feed.from_time(start_ms + 1, until=end_ms, limit=100_000)]


async def test_markets_load_from_exchange_info_alone(
    exchange: FakeExchange, open_client: Callable[..., Client]
) -> None:
    markets = await open_client().load_markets()
    assert set(markets) == {"BTC/USDT", "ETH/USDT"}
    assert markets[SYMBOL]["type"] == "spot"
    assert markets[SYMBOL]["active"] is True
    assert markets[SYMBOL]["precision"] == {
        "amount": 1e-05,
        "price": 0.01,
        "base": 1e-08,
        "quote": 1e-08,
    }
    assert [request.endpoint for request in exchange.requests] == ["exchangeInfo"]


async def test_the_exchange_tells_the_shared_clock(
    open_client: Callable[..., Client], clock: ManualClock
) -> None:
    client = open_client()
    assert await client.fetch_time() == NOW_MS
    clock.advance(90)
    assert await client.fetch_time() == NOW_MS + 90_000


async def test_paging_by_id_gives_every_trade_once(
    exchange: FakeExchange, open_client: Callable[..., Client], feed: GeneratedFeed
) -> None:
    client = open_client()
    expected = [t.trade_id for t in feed.from_time(NOW_MS - 3_600_000, until=NOW_MS, limit=100_000)]
    found: list[int] = []
    while not found or found[-1] < expected[-1]:
        page = await client.fetch_trades(
            SYMBOL, None, 1000, {"fromId": (found or [expected[0] - 1])[-1] + 1}
        )
        found += sorted(int(trade["id"]) for trade in page)
    assert found == expected
    assert exchange.counters["rest_aggTrades_200"] == -(-len(expected) // 1000)


async def test_paging_by_time_and_asking_the_edge_millisecond_again_gives_every_trade(
    open_client: Callable[..., Client], feed: GeneratedFeed
) -> None:
    client = open_client()
    expected = {t.trade_id for t in feed.from_time(NOW_MS - 600_000, until=NOW_MS, limit=100_000)}
    found: set[int] = set()
    since, edges = NOW_MS - 600_000, 0
    while True:
        page = await client.fetch_trades(SYMBOL, since, 20)
        new = {int(trade["id"]) for trade in page} - found
        if not new:
            break
        found |= new
        last = max(page, key=lambda trade: int(trade["id"]))["timestamp"]
        behind = feed.from_id(max(found) + 1, until=NOW_MS, limit=1)
        edges += bool(behind) and behind[0].time_ms == last
        since = last
    assert found == expected
    assert edges > 0, "some page ended inside a millisecond, else this proves nothing"


async def test_paging_by_last_time_plus_one_loses_trades_of_the_edge_millisecond(
    open_client: Callable[..., Client], feed: GeneratedFeed
) -> None:
    client = open_client()
    expected = {t.trade_id for t in feed.from_time(NOW_MS - 600_000, until=NOW_MS, limit=100_000)}
    found: set[int] = set()
    since = NOW_MS - 600_000
    while page := await client.fetch_trades(SYMBOL, since, 20):
        found |= {int(trade["id"]) for trade in page}
        since = max(trade["timestamp"] for trade in page) + 1
    assert found < expected


async def test_rest_tells_nothing_from_the_future_and_then_tells_it(
    open_client: Callable[..., Client], clock: ManualClock, feed: GeneratedFeed
) -> None:
    client = open_client()
    newest = (await client.fetch_trades(SYMBOL, None, 1))[0]
    assert newest["timestamp"] <= NOW_MS
    assert await client.fetch_trades(SYMBOL, None, 10, {"fromId": int(newest["id"]) + 1}) == []
    clock.advance(60)
    later = await client.fetch_trades(SYMBOL, None, 1000, {"fromId": int(newest["id"]) + 1})
    assert sorted(int(t["id"]) for t in later) == happened(feed, NOW_MS, NOW_MS + 60_000)


async def test_a_trade_keeps_its_digits_time_and_taker_side(
    open_client: Callable[..., Client], feed: GeneratedFeed
) -> None:
    trade = (await open_client().fetch_trades(SYMBOL, None, 1))[0]
    ours = feed.latest(until=NOW_MS, limit=1)[0]
    assert trade["id"] == str(ours.trade_id)
    assert trade["timestamp"] == ours.time_ms
    assert (trade["info"]["p"], trade["info"]["q"]) == (ours.price, ours.amount)
    assert trade["side"] == ("sell" if ours.buyer_is_maker else "buy")


async def test_binances_refusals_reach_the_caller(open_client: Callable[..., Client]) -> None:
    client = open_client()
    await client.load_markets()
    with pytest.raises(ccxt.BadSymbol, match="-1121"):
        await client.publicGetAggTrades({"symbol": "NOSUCH"})
    with pytest.raises(ccxt.BadRequest, match="-1128"):
        await client.fetch_trades(SYMBOL, NOW_MS - 1000, 10, {"fromId": 5})
    with pytest.raises(ccxt.BadSymbol):
        await client.fetch_trades("NO/SUCH")


async def test_watching_hears_each_trade_once_in_order_as_the_clock_passes_it(
    exchange: FakeExchange,
    open_client: Callable[..., Client],
    clock: ManualClock,
    feed: GeneratedFeed,
) -> None:
    client = open_client()
    async with watching(client, exchange, SYMBOL):
        for minute in range(1, 4):
            clock.advance(60)
            await heard_all(client, happened(feed, NOW_MS, NOW_MS + minute * 60_000))
    assert [t["id"] for t in client.trades[SYMBOL]] == [str(i) for i in client.heard()]


async def test_watched_and_fetched_trades_are_of_one_id_space(
    exchange: FakeExchange,
    open_client: Callable[..., Client],
    clock: ManualClock,
    feed: GeneratedFeed,
) -> None:
    client = open_client()
    async with watching(client, exchange, SYMBOL):
        clock.advance(60)
        await eventually(
            lambda: len(client.heard()) == len(happened(feed, NOW_MS, NOW_MS + 60_000))
        )
        fetched = await client.fetch_trades(SYMBOL, NOW_MS + 1, 1000)
    wanted = ("id", "timestamp", "price", "amount", "side", "symbol")
    assert [[t[k] for k in wanted] for t in client.trades[SYMBOL]] == [
        [t[k] for k in wanted] for t in sorted(fetched, key=lambda t: int(t["id"]))
    ]


async def test_two_symbols_are_heard_apart(
    exchange: FakeExchange, open_client: Callable[..., Client], clock: ManualClock
) -> None:
    client = open_client()
    async with watching(client, exchange, SYMBOL, "ETH/USDT"):
        assert exchange.open_sockets == 2
        clock.advance(60)
        await eventually(lambda: client.heard("BTCUSDT") and client.heard("ETHUSDT"))


async def test_one_socket_can_carry_many_symbols(
    exchange: FakeExchange, open_client: Callable[..., Client], clock: ManualClock
) -> None:
    client = open_client(options={"streamLimits": {"spot": 1}})
    async with watching(client, exchange, SYMBOL, "ETH/USDT"):
        assert exchange.open_sockets == 1
        clock.advance(60)
        await eventually(lambda: client.heard("BTCUSDT") and client.heard("ETHUSDT"))


async def test_unwatch_ends_the_stream_and_a_new_watch_starts_it_again(
    exchange: FakeExchange,
    open_client: Callable[..., Client],
    clock: ManualClock,
    feed: GeneratedFeed,
) -> None:
    client = open_client()
    async with watching(client, exchange, SYMBOL):
        clock.advance(30)
        await heard_all(client, happened(feed, NOW_MS, NOW_MS + 30_000))
    heard = client.heard()
    assert await client.un_watch_trades(SYMBOL)
    published = exchange.counters["trades_published"]
    clock.advance(30)
    await eventually(lambda: exchange.counters["trades_published"] > published + 5)
    async with watching(client, exchange, SYMBOL):
        clock.advance(30)
        await eventually(lambda: len(client.heard()) > len(heard))
    assert (
        client.heard()[len(heard) :]
        == happened(feed, NOW_MS + 60_000, NOW_MS + 90_000)[: len(client.heard()) - len(heard)]
    )


async def test_the_default_options_of_ccxt_hear_no_aggregate_trades(
    exchange: FakeExchange, open_client: Callable[..., Client], clock: ManualClock
) -> None:
    client = open_client(
        options={"watchTrades": {"name": "trade"}, "watchTradesForSymbols": {"name": "trade"}}
    )
    async with watching(client, exchange, SYMBOL):
        published = exchange.counters["trades_published"]
        clock.advance(60)
        await eventually(lambda: exchange.counters["trades_published"] > published + 10)
    assert client.heard() == []


async def test_the_clients_pings_are_answered(
    exchange: FakeExchange, open_client: Callable[..., Client]
) -> None:
    client = open_client(options={"ws": {"keepAlive": 300, "cost": 5}})
    async with watching(client, exchange, SYMBOL):
        socket = next(iter(client.clients.values()))
        await eventually(lambda: exchange.counters["pings_received"] >= 3 and socket.lastPong)
    assert exchange.counters["sockets_opened"] == 1


async def test_the_exchanges_pings_are_answered(feed: GeneratedFeed, clock: ManualClock) -> None:
    async with FakeExchange([feed], clock=clock, ping_interval=0.05) as exchange:
        client = Client(exchange)
        try:
            async with watching(client, exchange, SYMBOL):
                await eventually(lambda: exchange.counters["pongs_received"] >= 2)
        finally:
            await client.close()


@pytest.mark.parametrize("path", ["/stream/ws", "/stream", "/some/prefix/ws-stream/stream"])
async def test_raw_and_combined_frames_both_reach_the_client(
    exchange: FakeExchange, open_client: Callable[..., Client], clock: ManualClock, path: str
) -> None:
    client = open_client()
    client.urls["api"]["ws"]["spot"] = exchange.url.replace("http", "ws") + path
    async with watching(client, exchange, SYMBOL):
        clock.advance(60)
        await eventually(client.heard)


async def test_a_simulated_clock_plays_an_hour_in_a_moment(feed: GeneratedFeed) -> None:
    clock = SimulatedClock(origin=NOW, wall_origin=wall_now(), speed=1800)
    async with FakeExchange([feed], clock=clock) as exchange:
        client = Client(exchange)
        try:
            async with watching(client, exchange, SYMBOL):
                await eventually(lambda: len(client.heard()) > 1000)
        finally:
            await client.close()
    ids = client.heard()
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_the_recorded_day_comes_whole_by_rest_and_stream() -> None:
    folder = os.environ.get("VEGAMITE_TEST_DATA")
    if folder is None:
        # Elsewhere than where the recording is, the generated feed is tested above in the same ways.
        feed = RecordedFeed(GeneratedFeed(SYMBOL, seed=1, rate=0.1).listing, generated_day())
    else:
        path = Path(folder) / "binance-xrpeth-20191011" / "aggtrades.ndjson.gz"
        feed = RecordedFeed.read(path, "XRP/ETH")
    symbol, market_id = feed.listing.symbol, feed.listing.market_id
    day_end = (feed.trades[-1].time_ms * 1000 // DAY + 1) * DAY
    clock = ManualClock(day_end - HOUR)
    async with FakeExchange([feed], clock=clock) as exchange:
        client = Client(exchange)
        try:
            async with watching(client, exchange, symbol):
                clock.set(day_end)
                page = await client.fetch_trades(
                    symbol, None, 1000, {"fromId": feed.trades[0].trade_id}
                )
                fetched = sorted(int(t["id"]) for t in page)
                while page:
                    page = await client.fetch_trades(
                        symbol, None, 1000, {"fromId": fetched[-1] + 1}
                    )
                    fetched += sorted(int(t["id"]) for t in page)
                last_hour = [t.trade_id for t in feed.trades if t.time_ms * 1000 > day_end - HOUR]
                await eventually(lambda: client.heard(market_id) == last_hour)
        finally:
            await client.close()
    assert fetched == [t.trade_id for t in feed.trades]


def generated_day() -> list[Any]:
    start = NOW // DAY * DAY // 1000
    feed = GeneratedFeed(SYMBOL, seed=1, rate=0.1)
    return feed.from_time(start, until=start + DAY // 1000 - 1, limit=100_000)


async def test_429_with_retry_after_and_500_are_answered_as_often_as_told(
    exchange: FakeExchange, open_client: Callable[..., Client]
) -> None:
    client = open_client()
    await client.load_markets()
    exchange.faults.rest_failure = RestFailure(429, 2, retry_after=7)
    for _ in range(2):
        with pytest.raises(ccxt.DDoSProtection, match="-1003"):
            await client.fetch_trades(SYMBOL)
        assert client.last_response_headers["Retry-After"] == "7"
    exchange.faults.rest_failure = RestFailure(500, 1)
    with pytest.raises(ccxt.ExchangeNotAvailable):
        await client.fetch_trades(SYMBOL)
    assert len(await client.fetch_trades(SYMBOL)) == 500
    assert exchange.counters["rest_aggTrades_429"] == 2
    assert exchange.counters["rest_aggTrades_500"] == 1


async def test_refused_connections_are_network_errors_and_the_port_comes_back(
    exchange: FakeExchange, open_client: Callable[..., Client]
) -> None:
    client = open_client()
    assert await client.fetch_time() == NOW_MS
    await exchange.refuse_connections()
    for _ in range(2):  # on the connection kept alive, then on a new one
        with pytest.raises(ccxt.NetworkError):
            await client.fetch_time()
    await exchange.accept_connections()
    assert await client.fetch_time() == NOW_MS


@pytest.mark.parametrize("politely", [False, True])
async def test_a_dropped_socket_is_a_network_error_and_watching_again_opens_another(
    exchange: FakeExchange, open_client: Callable[..., Client], clock: ManualClock, politely: bool
) -> None:
    client = open_client()
    watch = asyncio.create_task(client.watch_trades(SYMBOL))
    await eventually(lambda: exchange.counters["control_messages"])
    assert await exchange.drop_sockets(politely=politely) == 1
    with pytest.raises(ccxt.NetworkError):
        await watch
    async with watching(client, exchange, SYMBOL):
        clock.advance(60)
        await eventually(client.heard)
    assert exchange.counters["sockets_opened"] == 2


async def test_a_silent_exchange_is_noticed_by_its_missing_pongs(
    exchange: FakeExchange, open_client: Callable[..., Client], clock: ManualClock
) -> None:
    client = open_client(options={"ws": {"keepAlive": 300, "cost": 5}})
    watch = asyncio.create_task(client.watch_trades(SYMBOL))
    await eventually(lambda: exchange.counters["pings_received"] >= 3)
    assert not watch.done(), "pings that are answered keep the socket"
    exchange.faults.silent = True
    clock.advance(60)
    with pytest.raises(ccxt.RequestTimeout):
        await watch
    assert client.heard() == []
    assert exchange.counters["frames_swallowed"] > 0
    exchange.faults.silent = False
    async with watching(client, exchange, SYMBOL):
        clock.advance(60)
        await eventually(client.heard)
