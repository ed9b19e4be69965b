"""Each fault of the fake exchange as a plain WebSocket client sees it, frame by frame."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import (
    RUBBISH,
    ControlServer,
    FakeExchange,
    GeneratedFeed,
)
from vegamite_common.testing.manual_clock import ManualClock

NOW = 1_600_000_000_000_000
NOW_MS = NOW // 1000
STREAM = "btcusdt@aggTrade"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def feed() -> GeneratedFeed:
    return GeneratedFeed("BTC/USDT", seed=3)


@pytest_asyncio.fixture
async def exchange(clock: ManualClock, feed: GeneratedFeed) -> AsyncIterator[FakeExchange]:
    async with FakeExchange([feed], clock=clock) as running:
        yield running


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


class Listener:
    """A socket of the test's own, which answers no ping by itself."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, exchange: FakeExchange, *streams: str
    ) -> "Listener":
        listener = cls(await session.ws_connect(exchange.urls["ws"]["spot"], autoping=False))
        if streams:
            await listener.subscribe(*streams)
        return listener

    async def subscribe(self, *streams: str) -> None:
        await self.socket.send_json({"method": "SUBSCRIBE", "params": streams, "id": 1})

    async def next(self) -> Any:
        """The next text frame, decoded."""
        message = await self.socket.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return msgspec.json.decode(message.data)

    async def ids(self, count: int) -> list[int]:
        """The ids of the next trades; acknowledgements are passed over."""
        found: list[int] = []
        while len(found) < count:
            frame = await self.next()
            if "a" in frame:
                found.append(frame["a"])
        return found


def happened(feed: GeneratedFeed, start_ms: int, end_ms: int) -> list[int]:
    """The ids of what happened in (start, end]."""
    return [t.trade_id for t in feed.from_time(start_ms + 1, until=end_ms, limit=100_000)]


async def test_the_acknowledgement_comes_before_the_first_trade(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    assert await listener.next() == {"result": None, "id": 1}
    clock.advance(60)
    frame = await listener.next()
    assert (frame["e"], frame["s"]) == ("aggTrade", "BTCUSDT")
    assert frame["E"] == NOW_MS + 60_000


async def test_a_stream_can_be_named_in_the_address(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    base = exchange.url.replace("http", "ws")
    raw = Listener(await session.ws_connect(f"{base}/ws/{STREAM}"))
    combined = Listener(await session.ws_connect(f"{base}/stream?streams={STREAM}/x@depth"))
    await eventually(lambda: exchange.open_sockets == 2)
    clock.advance(60)
    event = await raw.next()
    assert event["a"] == happened(feed, NOW_MS, NOW_MS + 60_000)[0]
    assert await combined.next() == {"stream": STREAM, "data": event}


async def test_lost_trades_are_missing_on_the_stream_alone(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    exchange.faults.lose = 3
    clock.advance(60)
    expected = happened(feed, NOW_MS, NOW_MS + 60_000)
    assert await listener.ids(len(expected) - 3) == expected[3:]
    assert exchange.counters["trades_lost"] == 3
    query = {"symbol": "BTCUSDT", "fromId": str(expected[0]), "limit": "3"}
    async with session.get(f"{exchange.url}/api/v3/aggTrades", params=query) as response:
        assert [row["a"] for row in await response.json()] == expected[:3]


async def test_duplicates_come_one_after_the_other(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    exchange.faults.duplicate = True
    await listener.next()
    clock.advance(20)
    expected = happened(feed, NOW_MS, NOW_MS + 20_000)
    assert await listener.ids(2 * len(expected)) == [i for i in expected for _ in range(2)]


async def test_the_last_trades_are_repeated_after_each_subscribe(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    exchange.faults.repeat_last = 4
    earlier = [t.trade_id for t in feed.latest(until=NOW_MS, limit=4)]
    listener = await Listener.open(session, exchange, STREAM)
    assert await listener.ids(4) == earlier
    clock.advance(60)
    expected = happened(feed, NOW_MS, NOW_MS + 60_000)
    assert await listener.ids(len(expected)) == expected


async def test_reordered_trades_are_all_there_in_another_order(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    exchange.faults.reorder = 10
    expected: list[int] = []
    for second in range(60):
        clock.advance(1)
        expected = happened(feed, NOW_MS, NOW_MS + (second + 1) * 1000)
    found = await listener.ids(len(expected))
    assert found != expected
    assert sorted(found) == expected


async def test_a_lagging_stream_tells_a_trade_later_but_answers_pings(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    exchange.faults.stream_lag = 30.0
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    clock.advance(60)
    expected = happened(feed, NOW_MS, NOW_MS + 30_000)
    assert await listener.ids(len(expected)) == expected
    await listener.socket.ping(b"now")
    assert (await listener.socket.receive(timeout=20)).type is aiohttp.WSMsgType.PONG
    assert exchange.counters["trades_published"] == len(expected)


async def test_lagging_rest_does_not_know_the_newest(
    exchange: FakeExchange, session: aiohttp.ClientSession, feed: GeneratedFeed
) -> None:
    exchange.faults.rest_lag = 60.0
    query = {"symbol": "BTCUSDT", "limit": "1"}
    async with session.get(f"{exchange.url}/api/v3/aggTrades", params=query) as response:
        rows = await response.json()
    assert [row["a"] for row in rows] == [
        t.trade_id for t in feed.latest(until=NOW_MS - 60_000, limit=1)
    ]


async def test_delayed_rest_lets_an_impatient_client_wait_in_vain(
    exchange: FakeExchange, session: aiohttp.ClientSession
) -> None:
    exchange.faults.rest_delay = 30.0
    impatient = aiohttp.ClientTimeout(total=0.2)
    with pytest.raises(TimeoutError):
        await session.get(f"{exchange.url}/api/v3/ping", timeout=impatient)
    exchange.faults.rest_delay = 0.0
    async with session.get(f"{exchange.url}/api/v3/ping") as response:
        assert response.status == 200


async def test_what_a_stalled_socket_owes_comes_later_whole_and_in_order(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    sent = exchange.counters["frames_sent"]
    exchange.faults.stalled = True
    clock.advance(60)
    expected = happened(feed, NOW_MS, NOW_MS + 60_000)
    await eventually(lambda: exchange.counters["trades_published"] == len(expected))
    await listener.socket.ping(b"7")
    await eventually(lambda: exchange.counters["pings_received"] == 1)
    assert exchange.counters["frames_sent"] == sent
    exchange.faults.stalled = False
    assert await listener.ids(len(expected)) == expected
    pong = await listener.socket.receive(timeout=20)
    assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, b"7")


async def test_what_a_silent_socket_did_not_say_is_lost_to_it(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock, feed: GeneratedFeed
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    exchange.faults.silent = True
    clock.advance(60)
    await eventually(
        lambda: (
            exchange.counters["trades_published"] == len(happened(feed, NOW_MS, NOW_MS + 60_000))
        )
    )
    await listener.socket.ping()
    await eventually(lambda: exchange.counters["pings_received"] == 1)
    exchange.faults.silent = False
    clock.advance(60)
    expected = happened(feed, NOW_MS + 60_000, NOW_MS + 120_000)
    assert await listener.ids(len(expected)) == expected


async def test_rubbish_comes_as_it_is_and_trades_go_on(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    exchange.send_frames()
    frames = [(await listener.socket.receive(timeout=20)).data for _ in RUBBISH]
    assert tuple(frames) == RUBBISH
    clock.advance(60)
    assert await listener.ids(1)


async def test_more_than_five_frames_a_second_end_the_socket(
    exchange: FakeExchange, session: aiohttp.ClientSession
) -> None:
    listener = await Listener.open(session, exchange)
    for _ in range(6):
        await listener.socket.ping()
    message = await listener.socket.receive(timeout=20)
    while message.type is aiohttp.WSMsgType.PONG:
        message = await listener.socket.receive(timeout=20)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    assert exchange.counters["sockets_over_message_limit"] == 1


async def test_refusing_keeps_open_sockets(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    await exchange.refuse_connections()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as other:
            await other.get(f"{exchange.url}/api/v3/ping")
    clock.advance(60)
    assert await listener.ids(1)
    await exchange.accept_connections()
    await Listener.open(session, exchange)


@pytest.mark.parametrize(
    "path",
    ["/", "/api/v3", "/api/v3/depth", "/fapi/v1/aggTrades", "/sapi/v1/capital/config/getall"],
)
async def test_what_is_not_spoken_is_not_found(
    exchange: FakeExchange, session: aiohttp.ClientSession, path: str
) -> None:
    async with session.get(exchange.url + path) as response:
        assert response.status == 404


async def test_the_control_turns_switches_from_outside(
    exchange: FakeExchange, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    listener = await Listener.open(session, exchange, STREAM)
    await listener.next()
    async with ControlServer(exchange) as control:

        async def post(body: Any) -> tuple[int, Any]:
            async with session.post(control.url, json=body) as response:
                return response.status, await response.json()

        status, state = await post(
            {"faults": {"lose": 2, "rest_failure": {"status": 500, "count": 1}}}
        )
        assert (status, state["faults"]["lose"], state["open_sockets"]) == (200, 2, 1)
        async with session.get(f"{exchange.url}/api/v3/ping") as response:
            assert response.status == 500

        await post({"rubbish": ["once"]})
        assert (await listener.socket.receive(timeout=20)).data == "once"

        await post({"accept": False, "drop": "abort"})
        assert (await listener.socket.receive(timeout=20)).type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.ERROR,
        )
        with pytest.raises(aiohttp.ClientConnectionError):
            await Listener.open(session, exchange)
        assert (await post({"accept": True}))[1]["accepting"] is True
        await Listener.open(session, exchange)

        refused: list[Any] = [{"fault": {}}, {"faults": {"lose": "x"}}, {"drop": "now"}, []]
        for wrong in refused:
            status, state = await post(wrong)
            assert status == 400, wrong
            assert state["error"]
        async with session.get(control.url) as response:
            state = await response.json()
        assert state["now"] == clock.now()
        assert state["counters"]["sockets_opened"] == 2
        assert state["symbols"] == ["BTC/USDT"]
