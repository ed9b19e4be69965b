"""One socket of the fake exchange: its control messages, its pings, and one ordered queue of all that it is sent."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable

from aiohttp import WSMsgType, web

from vegamite_common.testing.fake_exchange.faults import Faults
from vegamite_common.testing.fake_exchange.feed import AggregateTrade
from vegamite_common.testing.fake_exchange.protocol import Subscriptions, stream_name, trade_frame

MAX_QUEUED = 100_000
"""Frames that a socket may owe its client; a client slower than that is cut off."""


class Session:
    """Serves one accepted WebSocket until either side closes it.

    `subscribed` is told each stream name that a control message added, after its acknowledgement was queued.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        request: web.BaseRequest,
        *,
        faults: Faults,
        counters: Counter[str],
        subscriptions: Subscriptions,
        subscribed: Callable[["Session", str], None],
        message_limit: int | None,
        ping_interval: float,
    ) -> None:
        self._socket = socket
        self._request = request
        self._faults = faults
        self._counters = counters
        self.subscriptions = subscriptions
        self._subscribed = subscribed
        self._message_limit = message_limit
        self._ping_interval = ping_interval
        self._queue: asyncio.Queue[tuple[WSMsgType, str | bytes]] = asyncio.Queue(MAX_QUEUED)
        self._arrivals: deque[float] = deque()

    async def run(self) -> None:
        """Serve the socket; returns when it is closed."""
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._ping())]
        try:
            async for message in self._socket:
                self._counters["frames_received"] += 1
                if self._too_many():
                    self._counters["sockets_over_message_limit"] += 1
                    await self._socket.close(code=1008, message=b"Too many requests")
                    return
                self._handle(message.type, message.data)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def offer_trade(self, market_id: str, trade: AggregateTrade, *, sent_ms: int) -> None:
        """Queue one trade if its stream is subscribed and the faults let it through."""
        if stream_name(market_id) not in self.subscriptions.streams:
            return
        frame = trade_frame(market_id, trade, sent_ms=sent_ms, combined=self.subscriptions.combined)
        for _ in range(1 + self._faults.duplicate):
            self._send(WSMsgType.TEXT, frame)
            self._counters["trades_sent"] += 1

    def send_frame(self, frame: str | bytes) -> None:
        """Queue any frame as it is, text or binary."""
        self._send(WSMsgType.BINARY if isinstance(frame, bytes) else WSMsgType.TEXT, frame)

    async def close(self) -> None:
        """Close the socket with a close frame, as an exchange does that restarts."""
        await self._socket.close(code=1001, message=b"going away")

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def _handle(self, kind: WSMsgType, data: str | bytes | bytearray) -> None:
        if kind is WSMsgType.PING and not isinstance(data, str):
            self._counters["pings_received"] += 1
            self._send(WSMsgType.PONG, bytes(data))
        elif kind is WSMsgType.PONG:
            self._counters["pongs_received"] += 1
        elif isinstance(data, str):
            answer, added = self.subscriptions.handle(data)
            self._counters["control_messages"] += 1
            self._send(WSMsgType.TEXT, answer.decode())
            for stream in added:
                self._subscribed(self, stream)

    def _send(self, kind: WSMsgType, data: str | bytes) -> None:
        if self._faults.silent:
            self._counters["frames_swallowed"] += 1
            return
        try:
            self._queue.put_nowait((kind, data))
        except asyncio.QueueFull:
            self._counters["sockets_too_slow"] += 1
            self.abort()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                kind, data = await self._queue.get()
                while self._faults.stalled:  # noqa: ASYNC110 - the switch is a plain value that anybody sets
                    await asyncio.sleep(0.01)
                if kind is WSMsgType.TEXT and isinstance(data, str):
                    await self._socket.send_str(data)
                elif isinstance(data, bytes):
                    await self._send_bytes(kind, data)
                self._counters["frames_sent"] += 1

    async def _send_bytes(self, kind: WSMsgType, data: bytes) -> None:
        if kind is WSMsgType.PONG:
            await self._socket.pong(data)
        elif kind is WSMsgType.PING:
            await self._socket.ping(data)
        else:
            await self._socket.send_bytes(data)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ping_interval)
            self._counters["pings_sent"] += not self._faults.silent
            self._send(WSMsgType.PING, str(time.time_ns() // 1_000_000).encode())

    def _too_many(self) -> bool:
        """Return whether the message at hand is one too many within a second."""
        if self._message_limit is None:
            return False
        now = time.monotonic()
        self._arrivals.append(now)
        while self._arrivals[0] <= now - 1:
            self._arrivals.popleft()
        return len(self._arrivals) > self._message_limit
