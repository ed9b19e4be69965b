"""The routes that change what is tracked: with an admin key alone."""

from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from vegamite_api.core.query import parse_instant, parse_market, parse_market_parameter
from vegamite_api.core.refusal import RefusedError, invalid, shown
from vegamite_api.core.view import encode_list
from vegamite_api.http import parameter as p
from vegamite_api.http.context import context_of
from vegamite_api.http.document import removal, tracking
from vegamite_api.http.parameter import read_parameters
from vegamite_api.http.security import admin
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, format_time

router = APIRouter(prefix="/v1", dependencies=[Depends(admin)])

MAX_BODY_BYTES = 65_536
MAX_MARKETS = 500

_BODY = '{"markets": ["kraken:BTC/USD"], "history_from": "2026-01-31T00:00:00Z"}'


@router.put("/tracked-markets", **tracking())
async def track(request: Request) -> Response:
    """Track markets: their collection starts soon. `history_from` says since when, else now."""
    read_parameters(request, ())
    context = context_of(request)
    markets, history_from = _parse_tracking(await _json_body(request), context.clock.now())
    unknown = await context.markets.unknown_exchanges(list({market.exchange for market in markets}))
    for index, market in enumerate(markets):
        if market.exchange in unknown:
            raise RefusedError(
                "unknown_exchange",
                f"unknown exchange: {market.exchange!r}",
                parameter=f"markets[{index}]",
                allowed="exchanges of GET /v1/exchanges",
            )
    tracked = await context.markets.track(markets, history_from, format_time)
    return Response(encode_list(tracked, None), 202, media_type="application/json")


@router.delete("/tracked-markets", **removal((p.MARKET,)))
async def untrack(request: Request) -> Response:
    """Stop tracking a market; what is stored stays."""
    market = parse_market_parameter(read_parameters(request, (p.MARKET,)))
    if not await context_of(request).markets.untrack(market):
        raise RefusedError(
            "not_tracked",
            f"not tracked: {market.key!r}",
            parameter="market",
            allowed="markets of GET /v1/markets?tracked=true",
        )
    return Response(status_code=204)


async def _json_body(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(
            "unsupported_media_type",
            f"the body is {shown(kind) or 'of no type'}",
            parameter="Content-Type",
            allowed="application/json",
        )
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(
                "body_too_large", "the body is too large", allowed=f"{MAX_BODY_BYTES} bytes"
            )
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise RefusedError(
            "invalid_body", "the body is not JSON", parameter="body", allowed=_BODY
        ) from None


def _parse_tracking(body: Any, now: Micros) -> tuple[list[Market], Micros | None]:
    if not isinstance(body, dict):
        raise RefusedError("invalid_body", "the body is no object", parameter="body", allowed=_BODY)
    for name in body:
        if name not in ("markets", "history_from"):
            raise RefusedError(
                "unknown_parameter",
                f"unknown field: '{shown(name)}'",
                parameter=shown(name),
                allowed="markets, history_from",
            )
    names = body.get("markets")
    allowed = f"1 to {MAX_MARKETS} markets, each as kraken:BTC/USD"
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_MARKETS:
        raise invalid("markets", "markets is no list of fitting length", allowed)
    markets = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise invalid(f"markets[{index}]", "not a text", allowed)
        markets.append(parse_market(name, parameter=f"markets[{index}]"))
    return list(dict.fromkeys(markets)), _parse_history_from(body.get("history_from"), now)


def _parse_history_from(value: object, now: Micros) -> Micros | None:
    if value is None:
        return None
    # Milliseconds may come as a JSON number, too.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise invalid("history_from", "not a time", "RFC 3339, or milliseconds since the epoch")
    instant = parse_instant(text, parameter="history_from")
    if instant > now:
        raise invalid("history_from", "history_from lies ahead", "now or before")
    return instant
