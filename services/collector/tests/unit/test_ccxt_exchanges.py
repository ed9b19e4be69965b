"""Frames as each exchange sends them, through its real ccxt class: exact, whole, and with answers that prove.

No connection is made: frames are handed to the connection object as its reader would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import WSMessage, WSMsgType

from vegamite_collector.adapters.ccxt_client import collecting_class
from vegamite_collector.adapters.ccxt_connection import Wiring
from vegamite_collector.adapters.ccxt_feed import Feed, Feeds, Gate
from vegamite_collector.core.profile import profile_for
from vegamite_collector.ports import Lost, Proved, SourceError, Subscribed, TradesArrived
from vegamite_common.runtime.clock import SystemClock

CLOCK = SystemClock()
PRICE, AMOUNT = "12345678.0123456789", "0.123456789012345678"


@dataclass
class Case:
    exchange: str
    url: str
    market_id: str
    symbol: str
    frame: str
    event_time: int
    side: str
    trade_id: str

    def __post_init__(self) -> None:
        self.frame = self.frame.replace("PRICE", PRICE).replace("AMOUNT", AMOUNT)


CASES = [
    Case(
        "kraken",
        "wss://ws.kraken.com/v2",
        "XXBTZUSD",
        "BTC/USD",
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":PRICE,"qty":AMOUNT,'
        '"ord_type":"market","trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"}]}',
        1_695_628_177_708_000,
        "sell",
        "4665906",
    ),
    Case(
        "bitstamp",
        "wss://ws.bitstamp.net",
        "btcusd",
        "BTC/USD",
        '{"data":{"id":216000506,"timestamp":"1641343721","amount":AMOUNT,"amount_str":"AMOUNT","price":PRICE,"price_str":"PRICE",'
        '"type":1,"microtimestamp":"1641343721269000","buy_order_id":1,"sell_order_id":2},'
        '"channel":"live_trades_btcusd","event":"trade"}',
        1_641_343_721_000_000,
        "sell",
        "216000506",
    ),
    Case(
        "okx",
        "wss://ws.okx.com:8443/ws/v5/public",
        "BTC-USD",
        "BTC/USD",
        '{"arg":{"channel":"trades","instId":"BTC-USD"},"data":[{"instId":"BTC-USD","tradeId":"338476375",'
        '"px":"PRICE","sz":"AMOUNT","side":"buy","ts":"1652459235576"}]}',
        1_652_459_235_576_000,
        "buy",
        "338476375",
    ),
    Case(
        "bybit",
        "wss://stream.bybit.com/v5/public/spot",
        "BTCUSD",
        "BTC/USD",
        '{"topic":"publicTrade.BTCUSD","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,"s":"BTCUSD",'
        '"S":"Buy","v":"AMOUNT","p":"PRICE","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false}]}',
        1_672_304_486_865_000,
        "buy",
        "20f43950-d8dd-5b31-9112-a178eb6023af",
    ),
    Case(
        # Coinbase says the maker's side; the taker did the opposite.
        "coinbaseexchange",
        "wss://ws-feed.exchange.coinbase.com",
        "BTC-USD",
        "BTC/USD",
        '{"type":"match","trade_id":10,"sequence":50,"maker_order_id":"m","taker_order_id":"t",'
        '"time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD","size":"AMOUNT","price":"PRICE","side":"sell"}',
        1_415_348_367_028_000,
        "buy",
        "10",
    ),
    Case(
        "binance",
        "wss://stream.binance.com:9443/stream/ws/0",
        "BTCUSD",
        "BTC/USD",
        '{"e":"aggTrade","E":1672515782136,"s":"BTCUSD","a":12345,"p":"PRICE","q":"AMOUNT","f":100,"l":105,'
        '"T":1672515782136,"m":true,"M":true}',
        1_672_515_782_136_000,
        "sell",
        "12345",
    ),
]


@dataclass
class Bench:
    client: Any
    connection: Any
    feed: Feed
    bad: list[tuple[str, str]] = field(default_factory=list)

    async def events(self) -> list[Any]:
        found = []
        self.feed.fail(SourceError("end"))
        while True:
            try:
                found.append(await self.feed.next())
            except SourceError:
                return found


@asynccontextmanager
async def bench(case: Case) -> AsyncIterator[Bench]:
    bad: list[tuple[str, str]] = []
    gate = Gate(10_000)
    profile = profile_for(case.exchange)
    feeds = Feeds(lambda symbol: Feed(symbol, profile=profile, clock=CLOCK, gate=gate))
    wiring = Wiring(
        clock=CLOCK,
        feeds=feeds,
        gate=gate,
        on_bad_frame=lambda kind, text: bad.append((kind, text)),
    )
    client = collecting_class(case.exchange)({"options": dict(profile.options)}, wiring)
    base, _, quote = case.symbol.partition("/")
    market = {
        "id": case.market_id,
        "lowercaseId": case.market_id.lower(),
        "symbol": case.symbol,
        "base": base,
        "quote": quote,
        "baseId": base,
        "quoteId": quote,
        "type": "spot",
        "spot": True,
        "active": True,
        "info": {},
    }
    client.set_markets([client.safe_market_structure(market)])
    feed = feeds.open(case.symbol)
    feed.url = case.url
    connection = client.client(case.url)
    try:
        yield Bench(client, connection, feed, bad)
    finally:
        await client.close()


def by_exchange(exchange: str) -> Case:
    return next(case for case in CASES if case.exchange == exchange)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.exchange)
async def test_every_digit_arrives_with_the_takers_side_and_the_floored_time(case: Case) -> None:
    async with bench(case) as on:
        on.connection.handle_text_or_binary_message(case.frame)
        assert on.bad == []
        [subscribed, arrived] = await on.events()
        assert isinstance(subscribed, Subscribed)
        assert isinstance(arrived, TradesArrived)
        assert arrived.quarantined == ()
        [trade] = arrived.trades
        assert (str(trade.price), str(trade.amount)) == (PRICE, AMOUNT)
        assert trade.event_time == case.event_time
        assert (trade.taker_side, trade.trade_id) == (case.side, case.trade_id)


async def test_a_frame_of_many_trades_keeps_them_all_in_their_order() -> None:
    case = by_exchange("kraken")
    trade = {
        "symbol": "BTC/USD",
        "side": "sell",
        "price": 1.5,
        "qty": 2.5,
        "ord_type": "market",
        "timestamp": "2023-09-25T07:49:37.708706Z",
    }
    data = [{**trade, "trade_id": number} for number in range(8, 2_508)]
    frame = msgspec.json.encode({"channel": "trade", "type": "snapshot", "data": data}).decode()
    async with bench(case) as on:
        on.connection.handle_text_or_binary_message(frame)
        [_, arrived] = await on.events()
        assert [trade.sequence for trade in arrived.trades] == list(range(8, 2_508))


async def test_krakens_answers_to_ping_messages_prove_in_order() -> None:
    async with bench(by_exchange("kraken")) as on:
        on.feed.acknowledge(1)
        on.connection.handle_text_or_binary_message(
            '{"method":"pong","time_in":"x","time_out":"y"}'
        )
        payload = on.connection._pings.next_payload(17)
        on.connection.handle_text_or_binary_message(by_exchange("kraken").frame)
        on.connection.handle_text_or_binary_message(
            '{"method":"pong","time_in":"x","time_out":"y"}'
        )
        events = await on.events()
        assert payload
        assert [type(event) for event in events] == [Subscribed, TradesArrived, Proved]
        assert events[-1] == Proved(17)


async def test_answers_to_ping_frames_prove_their_own_ping() -> None:
    async with bench(by_exchange("binance")) as on:
        on.feed.acknowledge(1)
        first, second = (on.connection._pings.next_payload(at) for at in (10, 20))
        for payload in (b"unasked", second, first):
            on.connection._take(WSMessage(WSMsgType.PONG, payload, None))
        assert await on.events() == [Subscribed(1), Proved(20)]


async def test_krakens_own_word_opens_the_subscription() -> None:
    async with bench(by_exchange("kraken")) as on:
        on.connection.handle_text_or_binary_message(
            '{"method":"subscribe","result":{"channel":"trade","snapshot":true,"symbol":"BTC/USD"},"success":true,'
            '"time_in":"2023-09-25T09:04:31.742599Z","time_out":"2023-09-25T09:04:31.742648Z"}'
        )
        [event] = await on.events()
        assert isinstance(event, Subscribed)


RUBBISH = [
    "not json",
    '{"channel":"trade","data":[{"symbol":null}]}',
    '{"channel":"trade","type":"update","data":[{}]}',
    '{"e":"aggTrade"}',
    "[[[]]]",
    "{}",
    "[]",
    "",
    "\x00",
    '{"channel":7}',
    '{"event":{"a":1},"data":3}',
    '{"topic":"publicTrade.","data":{}}',
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.exchange)
@pytest.mark.parametrize("frame", RUBBISH)
async def test_after_rubbish_the_next_trade_still_arrives(case: Case, frame: str) -> None:
    async with bench(case) as on:
        on.feed.acknowledge(1)
        for kind, data in (
            (WSMsgType.TEXT, frame),
            (WSMsgType.BINARY, frame.encode()),
            (WSMsgType.BINARY, b"\xff"),
        ):
            on.connection._take(WSMessage(kind, data, None))
        on.connection._take(WSMessage(WSMsgType.TEXT, case.frame, None))
        events = await on.events()
        arrived = [event for event in events if isinstance(event, TradesArrived)]
        assert [trade.trade_id for trade in arrived[-1].trades][-1] == case.trade_id
        lost = [event for event in events if isinstance(event, Lost)]
        assert len(lost) == len(on.bad)
        assert len(lost) >= 1, "bytes that are no text"
