"""Requests of WebSocket clients: one JSON object a message, read strictly; every refusal names what was wrong."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from vegamite_api.core.query import TIMEFRAMES, parse_market, parse_timeframe
from vegamite_api.core.refusal import RefusedError, invalid, shown
from vegamite_api.core.seq import Seq, parse_seq
from vegamite_api.core.stream import CHANNELS, Channel
from vegamite_common.domain.market import Market
from vegamite_common.domain.timeframe import Timeframe

Method = Literal["subscribe", "unsubscribe", "list", "ping", "auth"]
METHODS: tuple[Method, ...] = get_args(Method)

MAX_SNAPSHOT = 1_000
MAX_SNAPSHOT_ROWS = 20_000
MAX_MARKETS = 1_000
MAX_REQ_ID = 2**53

_ENVELOPE = "an object with method, req_id and params"


class MalformedError(RefusedError):
    """A message that is no request at all; the connection ends with it."""


class Request(msgspec.Struct, frozen=True):
    """A request's envelope: `req_id` comes back in the reply."""

    method: Method
    req_id: int | None
    params: dict[str, Any]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Streams that a request speaks of: markets by name, all markets of exchanges, one timeframe for candles."""

    channel: Channel
    markets: tuple[Market, ...]
    exchanges: tuple[str, ...]
    timeframe: Timeframe | None


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription: `snapshot` rows first (0: none), or on from a place, by market key."""

    selection: Selection
    snapshot: int
    resume: dict[str, Seq]


def decode_message(message: str | bytes) -> dict[str, Any]:
    """Return the JSON object of a message; raise `MalformedError` for a binary one and for any other text."""
    if isinstance(message, bytes):
        raise MalformedError("invalid_message", "binary messages are not read", allowed="JSON text")
    try:
        body = msgspec.json.decode(message)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise MalformedError(
            "invalid_message", "the message is not JSON", allowed=_ENVELOPE
        ) from None
    if not isinstance(body, dict):
        raise MalformedError("invalid_message", "the message is no JSON object", allowed=_ENVELOPE)
    return body


def request_id(body: Mapping[str, Any]) -> int | None:
    """Return the request's number where it has a usable one, so that even a refusal can carry it."""
    number = body.get("req_id")
    return number if type(number) is int and abs(number) <= MAX_REQ_ID else None


def parse_request(body: Mapping[str, Any]) -> Request:
    """Return the envelope of a message; raise `RefusedError` naming what is wrong with it."""
    _only(body, ("method", "req_id", "params"), where="")
    method = body.get("method")
    if method not in METHODS:
        raise RefusedError(
            "unknown_method",
            _missing_or_unknown("method", method),
            parameter="method",
            allowed=", ".join(METHODS),
        )
    if body.get("req_id") is not None and request_id(body) is None:
        raise invalid("req_id", "not a request number", f"an integer of at most {MAX_REQ_ID}")
    params = body.get("params", {})
    if not isinstance(params, dict):
        raise invalid("params", "params is no object", "an object")
    return Request(method=method, req_id=request_id(body), params=params)


def parse_auth(params: Mapping[str, Any]) -> str:
    """Return the key that an `auth` request presents."""
    _only(params, ("key",), where="params.")
    key = params.get("key")
    if not isinstance(key, str) or not key:
        raise invalid("params.key", "key is missing or no text", "an API key")
    return key


def parse_nothing(params: Mapping[str, Any]) -> None:
    """Raise `RefusedError` unless the request has no parameters."""
    _only(params, (), where="params.")


def parse_subscribe(params: Mapping[str, Any]) -> Subscribe:
    """Return what a `subscribe` request asks for."""
    _only(params, ("channel", "markets", "timeframe", "snapshot", "resume"), where="params.")
    selection = _selection(params)
    return Subscribe(
        selection=selection,
        snapshot=_snapshot(params, selection),
        resume=_resume(params, selection),
    )


def parse_unsubscribe(params: Mapping[str, Any]) -> Selection:
    """Return what an `unsubscribe` request names."""
    _only(params, ("channel", "markets", "timeframe"), where="params.")
    return _selection(params)


def _missing_or_unknown(name: str, value: object) -> str:
    return f"{name} is missing" if value is None else f"unknown {name}: '{shown(str(value))}'"


def _only(body: Mapping[str, Any], names: tuple[str, ...], *, where: str) -> None:
    for name in body:
        if name not in names:
            raise invalid(
                where + shown(str(name)),
                f"unknown field: '{shown(str(name))}'",
                ", ".join(names) if names else "no parameters",
            )


def _selection(params: Mapping[str, Any]) -> Selection:
    channel = params.get("channel")
    if channel not in CHANNELS:
        raise invalid(
            "params.channel", _missing_or_unknown("channel", channel), ", ".join(CHANNELS)
        )
    markets, exchanges = _markets(params.get("markets"))
    text = params.get("timeframe")
    timeframe = None
    if channel == "candles":
        if text is None:
            raise invalid("params.timeframe", "timeframe is missing", ", ".join(TIMEFRAMES))
        timeframe = parse_timeframe(str(text), parameter="params.timeframe")
    elif text is not None:
        raise invalid("params.timeframe", f"{channel} has no timeframe", "none, but for candles")
    return Selection(channel=channel, markets=markets, exchanges=exchanges, timeframe=timeframe)


def _markets(names: object) -> tuple[tuple[Market, ...], tuple[str, ...]]:
    parameter = "params.markets"
    allowed = f"1 to {MAX_MARKETS} markets as kraken:BTC/USD, or all of an exchange as kraken:*"
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_MARKETS:
        raise invalid(parameter, "markets is no list of fitting length", allowed)
    markets: list[Market] = []
    exchanges: list[str] = []
    for index, name in enumerate(names):
        where = f"{parameter}[{index}]"
        if not isinstance(name, str):
            raise invalid(where, "not a text", allowed)
        if name.endswith(":*"):
            exchanges.append(parse_market(f"{name[:-1]}A/A", parameter=where).exchange)
        else:
            markets.append(parse_market(name, parameter=where))
    return tuple(dict.fromkeys(markets)), tuple(dict.fromkeys(exchanges))


def _snapshot(params: Mapping[str, Any], selection: Selection) -> int:
    rows = params.get("snapshot", 0)
    if type(rows) is not int or not 0 <= rows <= MAX_SNAPSHOT:
        raise invalid("params.snapshot", "not a number of rows", f"0 to {MAX_SNAPSHOT}")
    if rows and selection.channel == "status":
        raise invalid("params.snapshot", "status has no snapshot", "0, or a GET /v1/markets first")
    return rows


def _resume(params: Mapping[str, Any], selection: Selection) -> dict[str, Seq]:
    places = params.get("resume", {})
    if not isinstance(places, dict):
        raise invalid("params.resume", "resume is no object", "an object of market: seq")
    named = {market.key for market in selection.markets}
    found: dict[str, Seq] = {}
    for key, text in places.items():
        where = f"params.resume[{shown(str(key))}]"
        if key not in named:
            raise invalid(where, "the market is not among params.markets", "markets named there")
        if not isinstance(text, str):
            raise invalid(where, "not a text", "a seq that this API sent, as in 3-7-5400")
        found[key] = parse_seq(text, parameter=where)
    return found
