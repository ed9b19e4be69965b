"""Errors as RFC 9457 problems, with a stable `code`, the parameter's name and what is allowed."""

from http import HTTPStatus

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from vegamite_api import metrics
from vegamite_api.core.refusal import RefusedError
from vegamite_api.ports import StoreError

PROBLEM_TYPE = "application/problem+json"

STATUSES: dict[str, int] = {
    "invalid_parameter": 400,
    "missing_parameter": 400,
    "unknown_parameter": 400,
    "repeated_parameter": 400,
    "invalid_body": 400,
    "unknown_exchange": 400,
    "host_not_allowed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "origin_not_allowed": 403,
    "not_found": 404,
    "unknown_market": 404,
    "not_tracked": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "internal_error": 500,
    "store_unavailable": 503,
}
"""The HTTP status of every code."""

log = structlog.get_logger(__name__)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem's body; `type` is always `about:blank`, so `title` is the status's phrase: clients go by `code`."""

    title: str
    status: int
    code: str
    detail: str
    parameter: str | None = None
    allowed: str | None = None
    type: str = msgspec.field(default_factory=lambda: "about:blank")


def problem_response(error: RefusedError, *, headers: dict[str, str] | None = None) -> Response:
    """Return the response of a refusal."""
    status = STATUSES[error.code]
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=error.code,
        detail=error.detail,
        parameter=error.parameter,
        allowed=error.allowed,
    )
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = 'Bearer realm="vegamite"'
    return Response(msgspec.json.encode(body), status, headers=sent, media_type=PROBLEM_TYPE)


def unavailable() -> Response:
    """Return the response for a store that can't answer now."""
    metrics.STORE_FAULTS.inc()
    error = RefusedError("store_unavailable", "the database can't answer now; try again")
    return problem_response(error, headers={"Retry-After": "1"})


def internal_error() -> Response:
    """Return the response for a bug of ours: it tells nothing but that."""
    return problem_response(RefusedError("internal_error", "the server failed; this is logged"))


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return problem_response(error)


async def _store_error(request: Request, error: Exception) -> Response:
    log.warning("the store can't answer", path=request.url.path, error=str(error))
    return unavailable()


def _methods(request: Request) -> str:
    """Return every method that the path has, of all its routes: the framework's own answer names the first route's."""
    found: set[str] = set()
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return ", ".join(sorted(found))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods(request) or headers.get("Allow", headers.get("allow", ""))
        headers = {"Allow": allowed}
        refusal = RefusedError(
            "method_not_allowed", "this path has no such method", allowed=allowed
        )
        return problem_response(refusal, headers=headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        refusal = RefusedError("not_found", "there is nothing at this path", allowed="GET /docs")
        return problem_response(refusal, headers=headers)
    code = next((code for code, s in STATUSES.items() if s == error.status_code), "invalid_body")
    return problem_response(RefusedError(code, str(error.detail)), headers=headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    refusal = RefusedError("invalid_parameter", str(first["msg"]), parameter=where)
    return problem_response(refusal)


def install_problems(app: FastAPI) -> None:
    """Make every error of the application a problem, those of the framework too."""
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
