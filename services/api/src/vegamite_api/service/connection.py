"""One WebSocket connection: requests in, replies and streams out; ends by itself where the client can't keep up."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from vegamite_api import metrics
from vegamite_api.core.access import Identity
from vegamite_api.core.buffer import SendBuffer
from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.request import (
    MalformedError,
    Request,
    decode_message,
    parse_auth,
    parse_nothing,
    parse_request,
    parse_subscribe,
    parse_unsubscribe,
    request_id,
)
from vegamite_api.core.seq import Seq
from vegamite_api.core.session import Limits, Session, Subscription
from vegamite_api.core.stream import Event, Stream, encode
from vegamite_api.ports import StoreError
from vegamite_api.service.ending import (
    POLICY,
    RESTART,
    TOO_BIG,
    TRY_LATER,
    UNSUPPORTED,
    EndedError,
    error_body,
    only_ending,
)
from vegamite_api.service.hub import Hub
from vegamite_api.service.key_ring import KeyRing
from vegamite_api.service.subscriber import Plan, Planned, Subscriber
from vegamite_api.service.tail import NotReadyError
from vegamite_common.bus.port import BusError
from vegamite_common.domain.time import format_time
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)

AUTH_SECONDS = 5.0
END_SECONDS = 5.0
RECHECK_SECONDS = 30.0
_BACKLOG_BYTES = 262_144
_HEARTBEAT_BACKLOG = 65_536
_INBOX = 8


class Socket(Protocol):
    """The client's end of the connection."""

    async def receive(self) -> str | bytes | None:
        """Return the next message; None once the client is gone."""
        ...

    async def send(self, text: str) -> None:
        """Send a message, waiting until the transport takes it; raises `ConnectionError` once the client is gone."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close with a code."""
        ...


@dataclass(frozen=True, kw_only=True)
class Services:
    """What all connections share."""

    hub: Hub
    subscriber: Subscriber
    keys: KeyRing
    clock: Clock
    limits: Limits
    anonymous: Identity | None
    send_buffer_bytes: int
    heartbeat_seconds: float


class Connection:
    """A client's session, from the accepted socket to its end; `run` returns when it is over and never raises."""

    def __init__(
        self,
        socket: Socket,
        services: Services,
        *,
        identity: Identity | None,
        key_digest: bytes | None = None,
        address: str,
    ) -> None:
        self._socket = socket
        self._services = services
        self._address = address
        self._digest = key_digest
        self._session = Session(limits=services.limits, identity=identity or services.anonymous)
        self._buffer = SendBuffer(services.send_buffer_bytes)
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._ending: asyncio.Future[EndedError] = asyncio.get_running_loop().create_future()
        self._inbox: asyncio.Queue[str | bytes] = asyncio.Queue(_INBOX)
        self._authenticated = asyncio.Event()
        self._unsent: str | None = None
        if self._session.identity is not None:
            self._authenticated.set()

    async def run(self) -> None:
        """Serve the client until it leaves, breaks the rules, can't keep up, or the server stops."""
        ended: EndedError | None = None
        try:
            client = self._services.hub.client_name(self._session.identity, self._address)
            self._services.hub.join(self, client)
        except RefusedError as error:
            code = RESTART if error.code == "draining" else TRY_LATER
            await self._close(EndedError(code, error.code, (self._error(error),)))
            return
        try:
            async with asyncio.TaskGroup() as group:
                for task in (
                    self._watch_end(),
                    self._receive(),
                    self._work(),
                    self._write(),
                    self._beat(),
                    self._demand_auth(),
                    self._recheck(),
                ):
                    group.create_task(task)
        except* EndedError as endings:
            ended = only_ending(endings)
        except* ConnectionError:
            ended = None
        finally:
            session = self._session
            self._services.hub.leave(self, session.streams, session.wildcards)
        if ended is not None:
            await self._close(ended)

    # What the hub calls; nothing here waits.

    def offer(self, event: Event) -> None:
        """Take a live message of a subscribed stream."""
        subscription = self._session.get(event.stream)
        admitted = event if subscription is None else subscription.admit(event)
        if admitted is None or self._ending.done():
            return
        conflated = self._buffer.conflated
        taken = self._buffer.put_live(admitted)
        metrics.CONFLATED.inc(self._buffer.conflated - conflated)
        if taken:
            self._wake.set()
            return
        metrics.SLOW_CONSUMERS.inc()
        seqs = self._buffer.sent_seqs()
        self._buffer.drop()
        self._unsent = None
        error = RefusedError(
            "slow_consumer",
            "the client reads more slowly than its streams come",
            allowed="resume from seqs, with fewer streams or a faster reader",
            extra={"seqs": seqs},
        )
        self.finish(POLICY, "slow consumer", self._error(error))

    def adopt(self, stream: Stream) -> bool:
        """Take a stream that a whole-exchange subscription holds; False where it is not wanted."""
        if not self._session.adopts(stream):
            return False
        try:
            position = self._services.subscriber.position(stream)
        except NotReadyError:
            return False
        self._session.add(Subscription(stream, from_offset=0))
        self._buffer.begin(stream, position._replace(offset=position.offset - 1))
        return True

    def finish(self, code: int, reason: str, message: dict[str, object] | None = None) -> None:
        """End the connection with a close code, after what is queued and a last message, as far as the client still reads."""
        if not self._ending.done():
            self._ending.set_result(EndedError(code, reason, () if message is None else (message,)))

    def announce(self, message: dict[str, object]) -> None:
        """Send a message that belongs to no stream."""
        self._reply(message)

    # The tasks.

    async def _watch_end(self) -> None:
        raise await asyncio.shield(self._ending)

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message is None:
                raise ConnectionResetError
            await self._inbox.put(message)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (item := self._buffer.pop()) is not None:
                text, waiting = item
                self._unsent = text
                await self._socket.send(text)
                self._unsent = None
                metrics.MESSAGES_SENT.inc()
                self._buffer.sent(waiting)
                if self._buffer.reply_bytes < _BACKLOG_BYTES:
                    self._drained.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._services.heartbeat_seconds)
            if self._buffer.reply_bytes < _HEARTBEAT_BACKLOG and self._session.identity is not None:
                now = format_time(self._services.clock.now())
                self._reply(
                    {"channel": "heartbeat", "time": now, "seqs": self._buffer.queued_seqs()}
                )

    async def _demand_auth(self) -> None:
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                await self._authenticated.wait()
        except TimeoutError:
            error = RefusedError("auth_required", "no API key came within 5 s", parameter="method")
            self.finish(POLICY, "auth required", self._error(error))

    async def _recheck(self) -> None:
        """A key that is revoked or expires ends its connections, too."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            if self._digest is None:
                continue
            try:
                identity = await self._services.keys.identify_hash(self._digest)
            except StoreError:
                continue
            if identity is None:
                error = RefusedError("unauthorized", "the API key is not valid any more")
                self.finish(POLICY, "unauthorized", self._error(error))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._let_drain()
            message = await self._inbox.get()
            body: dict[str, object] = {}
            try:
                self._check_size(message)
                body = decode_message(message)
                self._check_rate(loop.time())
                await self._handle(parse_request(body))
            except MalformedError as error:
                self._count(error)
                raise EndedError(UNSUPPORTED, error.code, (self._error(error),)) from None
            except RefusedError as error:
                self._count(error)
                self._reply(self._failure(error, body))
            except (StoreError, BusError, NotReadyError):
                unavailable = RefusedError("unavailable", "can't be answered now; try again")
                self._count(unavailable)
                self._reply(self._failure(unavailable, body))

    # Requests.

    def _check_size(self, message: str | bytes) -> None:
        limits = self._services.limits
        size = len(message if isinstance(message, bytes) else message.encode())
        if size > limits.message_bytes:
            error = RefusedError(
                "message_too_large",
                f"a message of {size} bytes",
                allowed=f"at most {limits.message_bytes} bytes",
            )
            self._count(error)
            raise EndedError(TOO_BIG, error.code, (self._error(error),))

    def _check_rate(self, now: float) -> None:
        limits = self._services.limits
        if not self._session.allow_message(now):
            raise RefusedError(
                "rate_limited",
                "too many messages; this one was passed by",
                allowed=f"{limits.messages_per_second:g} messages a second",
            )

    async def _handle(self, request: Request) -> None:
        if request.method == "auth":
            await self._auth(request)
            return
        self._session.require_identity()
        if request.method == "subscribe":
            await self._subscribe(request)
        elif request.method == "unsubscribe":
            self._unsubscribe(request)
        elif request.method == "list":
            parse_nothing(request.params)
            self._succeed(request, results=self._listing())
        else:
            parse_nothing(request.params)
            self._succeed(request, time=format_time(self._services.clock.now()))

    async def _auth(self, request: Request) -> None:
        identity = await self._services.keys.identify(key := parse_auth(request.params))
        if identity is None:
            error = RefusedError(
                "unauthorized", "unknown or expired API key", parameter="params.key"
            )
            self._count(error)
            body = self._failure(error, {"method": request.method, "req_id": request.req_id})
            raise EndedError(POLICY, "unauthorized", (body,))
        self._session.identity = identity
        self._digest = self._services.keys.digest(key)
        self._authenticated.set()
        self._succeed(request, results=[{"key_id": identity.name, "scope": identity.scope.value}])

    async def _subscribe(self, request: Request) -> None:
        asked = parse_subscribe(request.params)
        subscriber = self._services.subscriber
        plan = await subscriber.prepare(asked, self._session)
        self._begin(plan)
        try:
            await subscriber.read_snapshots(plan)
        except BaseException:
            self._withdraw(plan)
            raise
        begins = {
            planned.stream: planned.after
            for planned in plan.streams
            if not planned.joined and not planned.snapshot
        }
        self._succeed(request, begins, results=plan.results())
        for planned in plan.streams:
            for text in plan.take_snapshot(planned.stream):
                self._reply_text(text, {planned.stream: planned.after})
                await self._let_drain()
            if self._session.get(planned.stream) is not planned.subscription:
                continue
            if not planned.joined:
                await self._catch_up(planned)

    async def _catch_up(self, planned: Planned) -> None:
        try:
            await self._services.subscriber.catch_up(
                planned, emit=self._emit_past, register=self._registrar(planned.stream)
            )
        except (RefusedError, StoreError, BusError, NotReadyError) as error:
            # It was acknowledged; now the log can't give what was promised.
            refusal = RefusedError(
                "stream_interrupted",
                f"{planned.stream.name} can't be brought up to now: {error}",
                allowed="connect and subscribe again",
            )
            raise EndedError(RESTART, "stream interrupted", (self._error(refusal),)) from None

    def _begin(self, plan: Plan) -> None:
        """Take the plan's streams into the session; those that go on as they are stay registered."""
        for wildcard in plan.wildcards:
            self._session.add_wildcard(wildcard)
            self._services.hub.register_wildcard(wildcard, self)
        for planned in plan.streams:
            if planned.joined:
                continue
            self._services.hub.unregister(planned.stream, self)
            self._session.add(planned.subscription)

    def _withdraw(self, plan: Plan) -> None:
        for planned in plan.streams:
            if not planned.joined:
                self._drop(planned.stream)
        for wildcard in plan.wildcards:
            self._services.hub.unregister_wildcard(wildcard, self)
            for stream in self._session.remove_wildcard(wildcard):
                self._forget(stream)

    def _registrar(self, stream: Stream) -> Callable[[], None]:
        return lambda: self._services.hub.register(stream, self)

    async def _emit_past(self, event: Event) -> None:
        subscription = self._session.get(event.stream)
        admitted = None if subscription is None else subscription.admit(event)
        if admitted is None:
            return
        self._buffer.put_past(admitted)
        self._wake.set()
        await self._let_drain()

    async def _let_drain(self) -> None:
        """Make no more of the past than the socket takes."""
        while self._buffer.reply_bytes >= _BACKLOG_BYTES:
            self._drained.clear()
            await self._drained.wait()

    def _unsubscribe(self, request: Request) -> None:
        selection = parse_unsubscribe(request.params)
        timeframe = None if selection.timeframe is None else selection.timeframe.value
        results: list[dict[str, object]] = []
        for wildcard in Subscriber.wildcards(selection):
            for stream in self._session.remove_wildcard(wildcard):
                self._forget(stream)
            self._services.hub.unregister_wildcard(wildcard, self)
            results.append({"channel": wildcard.channel, "market": f"{wildcard.exchange}:*"})
        for market in selection.markets:
            stream = Stream(selection.channel, market.key, timeframe)
            results.append({**stream.described, "subscribed": self._drop(stream)})
        self._succeed(request, results=results)

    def _drop(self, stream: Stream) -> bool:
        removed = self._session.remove(stream)
        self._forget(stream)
        return removed

    def _forget(self, stream: Stream) -> None:
        self._services.hub.unregister(stream, self)
        self._buffer.end(stream)

    def _listing(self) -> list[dict[str, object]]:
        seqs = self._buffer.queued_seqs()
        streams = [
            {**stream.described, "seq": seqs.get(stream.name)} for stream in self._session.streams
        ]
        wildcards: list[dict[str, object]] = [
            {"channel": w.channel, "market": f"{w.exchange}:*", "timeframe": w.timeframe}
            for w in self._session.wildcards
        ]
        return streams + wildcards

    # Replies.

    def _succeed(
        self, request: Request, begins: Mapping[Stream, Seq] | None = None, **fields: object
    ) -> None:
        head = {"method": request.method, "req_id": request.req_id, "success": True}
        self._reply_text(encode({**head, **fields}), begins)

    def _failure(self, error: RefusedError, body: dict[str, object]) -> dict[str, object]:
        method = body.get("method")
        return {
            "method": method[:40] if isinstance(method, str) else None,
            "req_id": request_id(body),
            "success": False,
            "error": error_body(error),
        }

    def _error(self, error: RefusedError) -> dict[str, object]:
        return {"channel": "error", **error_body(error)}

    def _count(self, error: RefusedError) -> None:
        metrics.MESSAGES_REFUSED.labels(error.code).inc()

    def _reply(self, body: dict[str, object]) -> None:
        self._reply_text(encode(body))

    def _reply_text(self, text: str, begins: Mapping[Stream, Seq] | None = None) -> None:
        self._buffer.put_reply(text, begins)
        self._wake.set()

    async def _close(self, ended: EndedError) -> None:
        """Try to send the last words and the close code, but not for long: the client may not be reading."""
        try:
            async with asyncio.timeout(END_SECONDS):
                # A send that was cut short sent nothing: without it what follows would have a hole before it.
                if self._unsent is not None:
                    await self._socket.send(self._unsent)
                while (item := self._buffer.pop()) is not None:
                    await self._socket.send(item[0])
                for message in ended.messages:
                    await self._socket.send(encode(message))
                await self._socket.close(ended.code, ended.reason)
        except (ConnectionError, TimeoutError):
            return
