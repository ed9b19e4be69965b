"""The outermost layer: counts and times requests, and turns a bug into one log entry and a plain 500."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vegamite_api import metrics
from vegamite_api.core.refusal import shown
from vegamite_api.http.problem import internal_error

log = structlog.get_logger(__name__)

_CLIENT_LEFT = 499
"""Counted for a client that left before it had sent its request: the number that proxies use for it."""


def _route(scope: Scope) -> str:
    """Return the route's template: a bounded set of labels, whatever paths clients try."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))


class ObservationMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve and observe one request; connections and the lifespan pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            log.error("a request failed", path=shown(scope["path"]), exc_info=error)
            if not status:
                await internal_error()(scope, receive, observed)
        finally:
            route = _route(scope)
            metrics.REQUESTS.labels(route, _method(scope), str(status)).inc()
            metrics.REQUEST_SECONDS.labels(route).observe(time.perf_counter() - begun)


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST") else "other"
