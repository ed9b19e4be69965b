"""Answers: representation by `format` or Accept, strong ETags, compression, and the headers that caches need."""

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from vegamite_api.core.query import Parameters, parse_choice
from vegamite_api.core.refusal import RefusedError
from vegamite_api.http.context import context_of

Format = Literal["json", "csv"]
MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "csv": "text/csv; charset=utf-8"}
VARY = "Accept, Accept-Encoding, Authorization, X-API-Key, Origin"

_COMPRESS_BYTES = 1_024
_THREAD_BYTES = 65_536
_THREAD_ROWS = 1_000
_GZIP_LEVEL = 4


def chosen_format(request: Request, parameters: Parameters, offered: tuple[Format, ...]) -> Format:
    """Return the representation that `format` or else Accept asks for; raise `RefusedError` where none is offered."""
    if "format" in parameters:
        return parse_choice(parameters, "format", offered, offered[0])
    accept = request.headers.get("accept", "*/*")
    weights = {choice: _weight(accept, MEDIA_TYPES[choice].partition(";")[0]) for choice in offered}
    best = max(offered, key=lambda choice: weights[choice])
    if weights[best] <= 0:
        raise RefusedError(
            "not_acceptable",
            "no representation of this resource is acceptable",
            parameter="Accept",
            allowed=", ".join(MEDIA_TYPES[choice].partition(";")[0] for choice in offered),
        )
    return best


def _weight(accept: str, media_type: str) -> float:
    """Return the weight that an Accept header gives a media type: that of the most specific range that holds it."""
    kind = media_type.partition("/")[0]
    ranks = {"*/*": 0, f"{kind}/*": 1, media_type: 2}
    best, weight = -1, 0.0
    for part in accept.lower().split(","):
        name, *options = (piece.strip() for piece in part.split(";"))
        if ranks.get(name, -1) > best:
            best, weight = ranks[name], _quality(options)
    return weight


def _quality(options: list[str]) -> float:
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _takes_gzip(request: Request) -> bool:
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, *options = (piece.strip() for piece in part.split(";"))
        if name == "gzip":
            return _quality(options) > 0
    return False


async def respond(
    request: Request,
    build: Callable[[], bytes],
    *,
    rows: int,
    kind: Format = "json",
    next_cursor: str | None = None,
) -> Response:
    """Return the answer that `build` writes; 304 where the client has it already.

    The ETag is a hash of what is sent, so a revised candle changes it. Large bodies are built and compressed in a thread.
    """
    body = await asyncio.to_thread(build) if rows > _THREAD_ROWS else build()
    headers = {"Vary": VARY, "Cache-Control": _cache_control(request)}
    if next_cursor is not None and kind != "json":
        headers["Link"] = f'<{_next_url(request, next_cursor)}>; rel="next"'
    digest = hashlib.blake2b(body, digest_size=16, person=b"vegamite").hexdigest()
    compressed = len(body) >= _COMPRESS_BYTES and _takes_gzip(request)
    headers["ETag"] = f'"{digest}-gzip"' if compressed else f'"{digest}"'
    if _matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["Content-Encoding"] = "gzip"
        if len(body) >= _THREAD_BYTES:
            body = await asyncio.to_thread(_gzip, body)
        else:
            body = _gzip(body)
    return Response(body, headers=headers, media_type=MEDIA_TYPES[kind])


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)


def _cache_control(request: Request) -> str:
    return "no-cache" if context_of(request).section.anonymous_read else "private, no-cache"


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    held = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in held or etag in held


def _next_url(request: Request, cursor: str) -> str:
    pairs = [
        (name, value) for name, value in request.query_params.multi_items() if name != "cursor"
    ]
    return f"{request.url.path}?{urlencode([*pairs, ('cursor', cursor)])}"
