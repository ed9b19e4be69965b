"""The fake exchange itself: a server on loopback that an exchange client can't tell from Binance's spot market."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from vegamite_common.runtime.clock import Clock, SystemClock
from vegamite_common.testing.fake_exchange.faults import RUBBISH, Faults
from vegamite_common.testing.fake_exchange.feed import AggregateTrade, Feed
from vegamite_common.testing.fake_exchange.playback import Playback
from vegamite_common.testing.fake_exchange.protocol import STREAM_SUFFIX, Subscriptions, stream_name
from vegamite_common.testing.fake_exchange.rest import RestApi, RestError
from vegamite_common.testing.fake_exchange.session import Session

_REST_PREFIX = "api/v3/"


class RestRequest(msgspec.Struct, frozen=True):
    """One REST request that was answered: its endpoint, its parameters as sent, and the status of the answer."""

    endpoint: str
    query: dict[str, str]
    status: int


class FakeExchange:
    """Serves the feeds' markets by Binance's spot protocol on a port of loopback, from `async with` to its end.

    REST tells trades up to the clock's now, sockets each trade when the clock passes it. Paths may have any prefix, so
    that clients whose addresses were rewritten in any way arrive: `…/api/v3/<endpoint>`; `…/ws…` for raw frames, else
    `…/stream…` for combined ones. `faults` are its switches, `counters` and `requests` tell what clients did.
    `message_limit` is how many frames a second a socket may send before it is cut off (Binance: 5; None: any number).
    """

    def __init__(
        self,
        feeds: Iterable[Feed],
        *,
        clock: Clock | None = None,
        port: int = 0,
        ping_interval: float = 20.0,
        message_limit: int | None = 5,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.faults = Faults()
        self.counters: Counter[str] = Counter()
        self.requests: deque[RestRequest] = deque(maxlen=10_000)
        self._feeds = {feed.listing.market_id: feed for feed in feeds}
        self._streams = {stream_name(market_id): feed for market_id, feed in self._feeds.items()}
        self._rest = RestApi(self._feeds, now=self._now_ms, visible=self._visible_ms)
        self._port = port
        self._ping_interval = ping_interval
        self._message_limit = message_limit
        self._sessions: set[Session] = set()
        self._playbacks: dict[str, Playback] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await self.accept_connections()
        for market_id, feed in self._feeds.items():
            playback = Playback(
                feed,
                clock=self.clock,
                faults=self.faults,
                counters=self.counters,
                publish=self._publish,
            )
            self._playbacks[market_id] = playback
            self._tasks.append(asyncio.create_task(playback.run(), name=f"play {market_id}"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.refuse_connections()
        await self.drop_sockets()
        await self._runner.cleanup()
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome  # a bug of the playback must not look like a quiet market

    @property
    def url(self) -> str:
        """The server's address, `http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def urls(self) -> dict[str, Any]:
        """What belongs into `urls['api']` of ccxt's `binance` to reach this server."""
        sockets = self.url.replace("http:", "ws:")
        return {"public": f"{self.url}/api/v3", "ws": {"spot": f"{sockets}/stream/ws"}}

    @property
    def symbols(self) -> list[str]:
        """The unified symbols of the listed markets."""
        return [feed.listing.symbol for feed in self._feeds.values()]

    @property
    def open_sockets(self) -> int:
        """How many sockets are open."""
        return len(self._sessions)

    async def refuse_connections(self) -> None:
        """Close the listening port: new connections are refused, sockets that are open stay.

        Kept-alive connections are cut at their next request.
        """
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept_connections(self) -> None:
        """Listen on the same port again."""
        if self._listener is None and self._runner.server is not None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._runner.server, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def drop_sockets(self, *, politely: bool = False) -> int:
        """End every socket, with a close frame or without a word; return how many there were."""
        sessions = list(self._sessions)
        if politely:
            await asyncio.gather(*(session.close() for session in sessions))
        else:
            for session in sessions:
                session.abort()
        return len(sessions)

    def send_frames(self, frames: Sequence[str | bytes] = RUBBISH) -> None:
        """Send these frames as they are to every socket."""
        for session in self._sessions:
            for frame in frames:
                session.send_frame(frame)

    def status(self) -> dict[str, Any]:
        """Return switches, counters and clock as JSON-ready values."""
        return {
            "now": self.clock.now(),
            "speed": self.clock.speed,
            "symbols": self.symbols,
            "open_sockets": self.open_sockets,
            "accepting": self._listener is not None,
            "faults": msgspec.to_builtins(self.faults),
            "counters": dict(self.counters),
        }

    def _now_ms(self) -> int:
        return self.clock.now() // 1000

    def _visible_ms(self) -> int:
        return (self.clock.now() - self.clock.span(self.faults.rest_lag)) // 1000

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if self._listener is None and request.transport is not None:
            request.transport.abort()
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if "/ws" in path or "/stream" in path:
                return await self._serve_socket(request)
        elif request.method == "GET" and _REST_PREFIX in path:
            return await self._serve_rest(request, path.rpartition(_REST_PREFIX)[2])
        self.counters["requests_elsewhere"] += 1
        return web.Response(
            status=404, text="<html><body>404 Not found</body></html>", content_type="text/html"
        )

    async def _serve_rest(self, request: web.BaseRequest, endpoint: str) -> web.Response:
        if self.faults.rest_delay:
            await self.clock.sleep(self.faults.rest_delay)
        response = self._answer(request, endpoint)
        query = dict(request.query)
        self.requests.append(RestRequest(endpoint=endpoint, query=query, status=response.status))
        self.counters[
            f"rest_{endpoint if self._rest.knows(endpoint) else 'unknown'}_{response.status}"
        ] += 1
        return response

    def _answer(self, request: web.BaseRequest, endpoint: str) -> web.Response:
        failure = self.faults.take_rest_failure()
        if failure is not None:
            headers = (
                {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
            )
            if failure.status in (418, 429):
                body = {
                    "code": -1003,
                    "msg": "Too many requests; current limit is 6000 request weight per 1 MINUTE.",
                }
                return web.json_response(body, status=failure.status, headers=headers)
            return web.Response(
                status=failure.status,
                text="<html>error</html>",
                content_type="text/html",
                headers=headers,
            )
        if not self._rest.knows(endpoint):
            return web.Response(status=404, text="<html>404</html>", content_type="text/html")
        try:
            return web.Response(
                body=self._rest.answer(endpoint, request.query), content_type="application/json"
            )
        except RestError as error:
            return web.json_response(error.body, status=error.status)

    async def _serve_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False, timeout=0.5)
        await socket.prepare(request)
        subscriptions = Subscriptions(combined="/ws" not in request.path)
        session = Session(
            socket,
            request,
            faults=self.faults,
            counters=self.counters,
            subscriptions=subscriptions,
            subscribed=self._repeat_last,
            message_limit=self._message_limit,
            ping_interval=self._ping_interval,
        )
        for stream in [
            *request.query.get("streams", "").split("/"),
            request.path.rpartition("/")[2],
        ]:
            if stream.endswith(STREAM_SUFFIX):
                subscriptions.streams[stream] = None
        self.counters["sockets_opened"] += 1
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            self.counters["sockets_closed"] += 1
        return socket

    def _publish(self, feed: Feed, trade: AggregateTrade) -> None:
        sent_ms = self._now_ms()
        self.counters["trades_published"] += 1
        for session in self._sessions:
            session.offer_trade(feed.listing.market_id, trade, sent_ms=sent_ms)

    def _repeat_last(self, session: Session, stream: str) -> None:
        feed = self._streams.get(stream)
        if feed is None or not self.faults.repeat_last:
            return
        played_ms = self._playbacks[feed.listing.market_id].played_ms()
        for trade in feed.latest(until=played_ms, limit=self.faults.repeat_last):
            session.offer_trade(feed.listing.market_id, trade, sent_ms=self._now_ms())
