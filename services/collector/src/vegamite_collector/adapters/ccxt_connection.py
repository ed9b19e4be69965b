"""One WebSocket connection of ccxt, with the parts replaced that lose trades or can't tell a dead connection from a quiet one.

- one rubbish frame is counted and reported, and the connection goes on;
- a ping goes out every second, and its answer is passed on in order with the trades, with the time the ping was sent;
- a connection that doesn't answer for 8 s is closed;
- a connection is read only while there is room for what it brings;
- number literals stay text.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import WSMsgType

from vegamite_collector.adapters.ccxt_feed import Feed, Feeds, Gate
from vegamite_common.runtime.clock import Clock

if TYPE_CHECKING:
    Foreign = Any
else:
    # Mixed in before ccxt's own class, which is loaded only when an exchange is used.
    Foreign = object

PING_SECONDS = 1.0
SILENCE_SECONDS = 8.0

_DECODER = msgspec.json.Decoder(float_hook=str)

current_feed: contextvars.ContextVar[Feed | None] = contextvars.ContextVar(
    "current_feed", default=None
)
"""The feed whose watch call is running: how a connection learns which symbols it carries."""


@dataclass
class Wiring:
    """What a collecting client reports to; the last two in real seconds."""

    clock: Clock
    feeds: Feeds
    gate: Gate
    on_bad_frame: Callable[[str, str], None]
    ping_seconds: float = PING_SECONDS
    silence_seconds: float = SILENCE_SECONDS


def decode_frame(text: str | bytes) -> Any:
    """Return a JSON document with its non-integer number literals as text; raise `ValueError` for anything else."""
    return _DECODER.decode(text)


class TradeHook(Foreign):  # type: ignore[misc]
    """ccxt's cache of one symbol's trades, which passes them on instead of keeping them; mixed into `ArrayCache`."""

    def __init__(self, symbol: str, feeds: Feeds) -> None:
        super().__init__(1)
        self._symbol = symbol
        self._feeds = feeds

    def append(self, item: Any) -> None:
        """Take one trade as ccxt parsed it."""
        self._feeds.note(self._symbol, item)


@dataclass
class Pings:
    """Pings that wait for their answers, oldest first: (payload, clock µs when sent)."""

    waiting: deque[tuple[bytes, int]] = field(default_factory=deque)
    number: int = 0
    answered: float = field(default_factory=time.monotonic)

    def next_payload(self, now: int) -> bytes:
        """Note a ping that is sent at `now`, and return what it carries."""
        self.number += 1
        payload = str(self.number).encode()
        self.waiting.append((payload, now))
        return payload

    def answer(self, payload: bytes | None) -> int | None:
        """Return when the answered ping was sent, None for an answer to nothing; a payload of None answers the oldest."""
        if payload is not None and all(payload != own for own, _ in self.waiting):
            return None
        while self.waiting:
            own, sent_time = self.waiting.popleft()
            if payload is None or own == payload:
                self.answered = time.monotonic()
                return sent_time
        return None


class CollectingConnection(Foreign):  # type: ignore[misc]
    """Mixed into ccxt's `Client`; built from the client that ccxt configured, so that each exchange's own settings hold."""

    def __init__(self, plain: Any, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pings = Pings()
        self._reader: asyncio.Task[None] | None = None
        self._last_pong: int | None = None
        self.__dict__.update(plain.__dict__)

    @property
    def lastPong(self) -> int | None:  # noqa: N802 -- ccxt's name
        """When ccxt last saw an answer, in its milliseconds."""
        return self._last_pong

    @lastPong.setter
    def lastPong(self, value: int | None) -> None:  # noqa: N802
        # The exchange's handler sets it when it has read the answer to a ping message.
        self._last_pong = value
        if value is not None and self.ping:
            self._prove(None)

    def resolve(self, result: Any, message_hash: str | None) -> Any:
        """Leave the watch call waiting: it holds the subscription and ends only with the connection."""
        if isinstance(result, TradeHook):
            return result
        return super().resolve(result, message_hash)

    def _carried(self) -> list[Feed]:
        return self._wiring.feeds.of_connection(self.url)

    def _prove(self, payload: bytes | None) -> None:
        sent_time = self._pings.answer(payload)
        if sent_time is not None:
            for feed in self._carried():
                feed.prove(sent_time)

    async def send(self, message: Any) -> Any:
        """Send a request; those whose subscription it may be are asked for from now on."""
        result = await super().send(message)
        now = self._wiring.clock.now()
        for feed in self._carried():
            if feed.sent_time is None:
                feed.sent_time = now
        return result

    def receive_loop(self) -> None:
        """Begin to read; called by ccxt once the connection is open."""
        self._reader = self.asyncio_loop.create_task(self._read())

    async def _read(self) -> None:
        count = 0
        while not self.closed():
            await self._wiring.gate.wait()
            try:
                message = await self.connection.receive()
            except (OSError, RuntimeError) as error:
                self.on_error(network_error(error))
                return
            if message.type in (WSMsgType.CLOSED, WSMsgType.CLOSING):
                break
            self._take(message)
            if message.type in (WSMsgType.CLOSE, WSMsgType.ERROR):
                return
            count += 1
            if count % 64 == 0:
                # What is buffered comes without a pause: others have to get their turn.
                await asyncio.sleep(0)
        self.on_close(1006)

    def _take(self, message: Any) -> None:
        try:
            self.handle_message(message)
        except Exception as error:  # noqa: BLE001 -- compressed rubbish ends in whatever a decompressor raises
            self._report("undecodable", f"{type(error).__name__}: {error}")

    def _report(self, kind: str, text: str) -> None:
        """Count a frame that couldn't be used; what it may have held is missing."""
        self._wiring.on_bad_frame(kind, text[:200])
        for feed in self._carried():
            feed.lose(f"{kind}_frame", text[:200])

    def handle_message(self, message: Any) -> None:
        """Take one frame; an answer to a ping is a proof."""
        if message.type != WSMsgType.PONG:
            super().handle_message(message)
            return
        self._last_pong = int(time.time() * 1000)
        if not self.ping:
            self._prove(bytes(message.data or b""))

    def handle_text_or_binary_message(self, data: str | bytes) -> None:
        """Decode one frame and hand it to the exchange; one that is no JSON is reported."""
        try:
            text = data.decode() if self.decompressBinary and isinstance(data, bytes) else data
            document = decode_frame(text) if text[:1] in ("{", "[", b"{", b"[") else text
        except ValueError as error:
            self._report("undecodable", str(error))
            return
        self.on_message_callback(self, document)

    async def ping_loop(self) -> None:
        """Ping, and close a connection that doesn't answer; started by ccxt once the connection is open."""
        wiring = self._wiring
        self._pings.answered = time.monotonic()
        while not self.closed():
            # The subscription goes out first: some servers refuse a ping before it.
            await asyncio.sleep(wiring.ping_seconds)
            silent = time.monotonic() - self._pings.answered
            if silent > wiring.silence_seconds:
                self.on_error(timeout_error(f"no answer for {silent:.0f} s"))
                return
            try:
                await self._send_ping()
            except (OSError, RuntimeError) as error:
                if not self.closed():
                    self.on_error(network_error(error))
                return

    async def _send_ping(self) -> None:
        now = self._wiring.clock.now()
        if not self.ping:
            await self.connection.ping(self._pings.next_payload(now))
        elif not self._pings.waiting:
            # Answers to messages name no ping: one is under way at a time, so that none is taken for another's.
            self._pings.next_payload(now)
            await super().send(self.ping(self))

    async def aiohttp_close(self) -> None:
        """Close the connection and stop reading it."""
        await super().aiohttp_close()
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()


def network_error(error: BaseException) -> Exception:
    """Return ccxt's error for a connection that broke."""
    from ccxt.base.errors import NetworkError

    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    made: Exception = NetworkError(text)
    return made


def timeout_error(text: str) -> Exception:
    """Return ccxt's error for a connection that doesn't answer."""
    from ccxt.base.errors import RequestTimeout

    made: Exception = RequestTimeout(text)
    return made
