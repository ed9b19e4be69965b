"""Who asks: keys from headers, the names this server answers to, and headers that browsers heed."""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from vegamite_api.core.access import Identity, Scope, host_allowed
from vegamite_api.core.refusal import RefusedError, shown
from vegamite_api.http.context import context_of
from vegamite_api.http.problem import problem_response

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    ),
}


def presented_key(connection: HTTPConnection) -> str | None:
    """Return the key in Authorization or X-API-Key; raise `RefusedError` for another scheme, or two different keys."""
    headers = connection.headers
    keys = set(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, key = value.strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise RefusedError(
                "unauthorized",
                "the Authorization header has another scheme, or no key",
                parameter="Authorization",
                allowed="Authorization: Bearer KEY, or X-API-Key: KEY",
            )
        keys.add(key.strip())
    if len(keys) > 1:
        raise RefusedError(
            "unauthorized",
            "two different keys are presented",
            parameter="X-API-Key",
            allowed="one key",
        )
    return keys.pop() if keys else None


async def identify(connection: HTTPConnection) -> Identity | None:
    """Return who asks: a key's owner, the anonymous reader where that is allowed, else None.

    Raises `RefusedError` for a key that is not valid, and `StoreError`.
    """
    context = context_of(connection)
    key = presented_key(connection)
    if key is None:
        return context.anonymous
    identity = await context.keys.identify(key)
    if identity is None:
        raise RefusedError("unauthorized", "unknown or expired API key", parameter="Authorization")
    return identity


async def _require(request: Request, scope: Scope) -> Identity:
    identity = await identify(request)
    if identity is None or (scope is Scope.ADMIN and identity.name == "anonymous"):
        raise RefusedError(
            "unauthorized",
            "an API key is needed",
            parameter="Authorization",
            allowed="Authorization: Bearer KEY, or X-API-Key: KEY",
        )
    if not identity.may(scope):
        raise RefusedError(
            "forbidden",
            "the key's scope is too narrow",
            parameter="Authorization",
            allowed=scope.value,
        )
    return identity


async def reader(request: Request) -> Identity:
    """A dependency: the request may read."""
    return await _require(request, Scope.READ)


async def admin(request: Request) -> Identity:
    """A dependency: the request may change what is tracked."""
    return await _require(request, Scope.ADMIN)


class HostMiddleware:
    """Refuses requests and connections whose `Host` is none of this server's names (DNS rebinding)."""

    def __init__(self, app: ASGIApp, *, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = tuple(allowed)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass on what names this server."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) == 1 and host_allowed(hosts[0], self._allowed):
            await self._app(scope, receive, send)
            return
        error = RefusedError(
            "host_not_allowed",
            f"this server does not answer to {shown(', '.join(hosts)) or 'no name'}",
            parameter="Host",
            allowed="the names in the setting api.allowed_hosts",
        )
        await _refuse(error, scope, receive, send)


async def _refuse(error: RefusedError, scope: AsgiScope, receive: Receive, send: Send) -> None:
    response = problem_response(error)
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})


class HeadMiddleware:
    """Answers HEAD with what GET would say, without its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let the application see a GET, and send the head of its answer alone."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class HeaderMiddleware:
    """Adds the headers that tell browsers what this server's pages may do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Add them to every response that has none of its own."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
