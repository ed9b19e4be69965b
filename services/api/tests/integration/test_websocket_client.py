"""What one client may do to the server, and what the server does to one client that asks wrongly, too much or reads too slowly."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import websockets.asyncio.client as ws_client
from websockets.exceptions import ConnectionClosed

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord

BTC = Market("kraken", "BTC/USD")
ETH = Market("kraken", "ETH/USD")
NOON = 1_760_097_600 * SECOND
Records = Callable[..., TradesRecord]


def _trades(first: int, count: int = 1) -> list[Trade]:
    return [
        Trade(
            trade_id=str(number),
            sequence=number,
            event_time=NOON + number * SECOND // 100,
            price=Decimal(100),
            amount=Decimal(1),
        )
        for number in range(first, first + count)
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "method"),
    ({"method": "dance"}, "method"),
    ({"method": 7}, "method"),
    ({"method": "ping", "req_id": "one"}, "req_id"),
    ({"method": "ping", "req_id": 2**60}, "req_id"),
    ({"method": "ping", "extra": 1}, "extra"),
    ({"method": "ping", "params": []}, "params"),
    ({"method": "ping", "params": {"x": 1}}, "params.x"),
    ({"method": "auth", "params": {}}, "params.key"),
    ({"method": "subscribe"}, "params.channel"),
    ({"method": "subscribe", "params": {"channel": "tape"}}, "params.channel"),
    ({"method": "subscribe", "params": {"channel": "trades"}}, "params.markets"),
    ({"method": "subscribe", "params": {"channel": "trades", "markets": []}}, "params.markets"),
    ({"method": "subscribe", "params": {"channel": "trades", "markets": [1]}}, "params.markets[0]"),
    (
        {"method": "subscribe", "params": {"channel": "trades", "markets": ["BTC"]}},
        "params.markets[0]",
    ),
    (
        {"method": "subscribe", "params": {"channel": "trades", "markets": ["A B:*"]}},
        "params.markets[0]",
    ),
    (
        {"method": "subscribe", "params": {"channel": "trades", "markets": ["kraken:NO/NE"]}},
        "params.markets[0]",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "timeframe": "1m"},
        },
        "params.timeframe",
    ),
    (
        {"method": "subscribe", "params": {"channel": "candles", "markets": [BTC.key]}},
        "params.timeframe",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "candles", "markets": [BTC.key], "timeframe": "2m"},
        },
        "params.timeframe",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "snapshot": 1001},
        },
        "params.snapshot",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "snapshot": True},
        },
        "params.snapshot",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "status", "markets": [BTC.key], "snapshot": 1},
        },
        "params.snapshot",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "resume": []},
        },
        "params.resume",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "resume": {"a": "1-0-0"}},
        },
        "params.resume[a]",
    ),
    (
        {
            "method": "subscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "resume": {BTC.key: 5}},
        },
        f"params.resume[{BTC.key}]",
    ),
    (
        {
            "method": "unsubscribe",
            "params": {"channel": "trades", "markets": [BTC.key], "snapshot": 1},
        },
        "params.snapshot",
    ),
]


async def test_a_wrong_request_is_an_error_that_names_what_was_wrong(world: Any) -> None:
    await world.market()
    async with world.stream() as stream:
        for request, parameter in WRONG:
            await stream.send(**request)
            reply = await stream.until(lambda m: "success" in m)
            assert reply["success"] is False, request
            assert reply["error"]["parameter"] == parameter, (request, reply)
            assert reply["error"]["code"], request
            assert reply["error"]["allowed"], request
        assert (await stream.ask("ping"))["success"]


async def test_rubbish_is_an_error_and_then_the_end(world: Any, caplog: Any) -> None:
    world_random = random.Random(5)
    rubbish: list[tuple[str | bytes, int, str]] = [
        ("{", 1003, "INVALID_MESSAGE"),
        ("[]", 1003, "INVALID_MESSAGE"),
        ("null", 1003, "INVALID_MESSAGE"),
        ("\x00", 1003, "INVALID_MESSAGE"),
        ("[" * 60_000, 1003, "INVALID_MESSAGE"),
        (b"\x00\xff", 1003, "INVALID_MESSAGE"),
        (world_random.randbytes(500), 1003, "INVALID_MESSAGE"),
        ('{"method": "' + "x" * 65_536 + '"}', 1009, "MESSAGE_TOO_LARGE"),
    ]
    for message, code, name in rubbish:
        async with world.stream() as stream:
            await stream.connection.send(message)
            assert await stream.closed() == code, message[:20]
            assert stream.messages[-1]["code"] == name
    async with world.stream() as stream:
        await stream.ask("ping")
        transport = stream.connection.transport
        # A text frame that is no UTF-8, masked with zeros.
        transport.write(struct.pack("!BBI", 0x81, 0x82, 0) + b"\xff\xfe")
        assert await stream.closed() in (1007, 1006)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_does_not_read_is_sent_away_and_another_is_undisturbed(
    make_world: Any, trades_record: Records
) -> None:
    world = await make_world()
    await world.begin_log()
    await world.serve(send_buffer_bytes=200_000)
    await world.market()
    await world.ready()
    slow_socket = socket.socket()
    slow_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow_socket.setblocking(False)
    await asyncio.get_running_loop().sock_connect(slow_socket, ("127.0.0.1", world.service.port))
    slow_client = ws_client.connect(
        f"ws://127.0.0.1:{world.service.port}/v1/ws", sock=slow_socket, max_queue=1, proxy=None
    )
    async with world.stream() as fast, slow_client as slow:
        await fast.ask("subscribe", channel="trades", markets=[BTC.key])
        await slow.send(
            json.dumps(
                {"method": "subscribe", "params": {"channel": "trades", "markets": [BTC.key]}}
            )
        )
        assert json.loads(await slow.recv())["success"]
        count = 200
        for number in range(count):
            await world.publish(trades_record(BTC, _trades(number * 500, 500)))
            await fast.until(lambda m: m.get("channel") == "trades")
        rows = fast.data("trades", "update")
        assert [row["trade_id"] for row in rows] == [str(number) for number in range(count * 500)]
        received: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(30):
                while True:
                    received.append(json.loads(await slow.recv()))
        except ConnectionClosed:
            assert slow.close_code == 1008
        trades = [message for message in received if message.get("channel") == "trades"]
        assert received[-1]["code"] == "SLOW_CONSUMER"
        seqs = received[-1]["seqs"]
        assert seqs == {f"trades:{BTC.key}": trades[-1]["seq"]}
        assert len(trades) < count
        # It resumes there, and nothing is missing.
        again = {row["trade_id"] for message in trades for row in message["data"]}
        resumed = await fast.ask(
            "subscribe", channel="trades", markets=[BTC.key], resume={BTC.key: trades[-1]["seq"]}
        )
        assert resumed["success"]
        before = len(fast.messages)
        while len(again) < count * 500:
            await fast.receive()
            for message in fast.messages[before:]:
                again |= {row["trade_id"] for row in message.get("data", [])}
            before = len(fast.messages)


async def test_drain_tells_the_clients_and_closes_with_1012(world: Any) -> None:
    await world.market()
    async with world.stream() as stream:
        await stream.ask("subscribe", channel="trades", markets=[BTC.key])
        world.stop.request()
        assert await stream.closed() == 1012
        assert {"channel": "status", "type": "draining", "within_ms": 50} in stream.messages
    await world.serving
    assert not world.service.health.ready().ok


async def test_limits_are_told(make_world: Any) -> None:
    world = await make_world()
    await world.begin_log()
    await world.serve(
        max_connections_per_client=2, max_subscriptions=1, max_messages_per_second=0.001
    )
    await world.market(BTC)
    await world.market(ETH)
    async with world.stream() as stream, world.stream():
        async with world.stream() as third:
            assert await third.closed() == 1013
            assert third.messages[-1]["code"] == "CONNECTION_LIMIT"
        reply = await stream.ask("subscribe", channel="trades", markets=[BTC.key, ETH.key])
        assert reply["error"]["code"] == "SUBSCRIPTION_LIMIT"
        replies = [await stream.ask("ping", req_id=number) for number in range(110)]
        assert replies[50]["success"]
        assert replies[-1]["error"]["code"] == "RATE_LIMITED"
