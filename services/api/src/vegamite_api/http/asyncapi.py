"""The AsyncAPI 3.0 document of `/v1/ws`: every message that is sent and taken, with an example each."""

from typing import Any

import msgspec

from vegamite_api.core.request import MAX_MARKETS, MAX_SNAPSHOT
from vegamite_api.core.stream import CHANNELS
from vegamite_api.core.view import CandleView, TradeView
from vegamite_api.http.document import CANDLE_EXAMPLE, TRADE_EXAMPLE
from vegamite_common.domain.timeframe import Timeframe

_SEQ = {"type": "string", "description": "A place in the log; opaque, compare for equality only."}
_PREV_SEQ = {
    "type": ["string", "null"],
    "description": "The stream's undroppable message before this one; null where this replica has not seen it.",
}
_MARKET = {"type": "string", "description": "As `kraken:BTC/USD`."}
_TIMEFRAME = {"type": "string", "enum": [timeframe.value for timeframe in Timeframe]}
_REQ_ID = {"type": ["integer", "null"], "description": "Comes back in the reply."}
_CANDLES = {"type": "array", "items": {"$ref": "#/components/schemas/Candle"}}
_TRADES = {"type": "array", "items": {"$ref": "#/components/schemas/Trade"}}

DESCRIPTION = """Subscribe by message; each request gets one reply. A snapshot, where asked for, comes before the stream and leaves no hole.

Trades come in the log's order, at least once: drop a trade_id that was seen. Keep of each candle the state that is greatest by
(as_of, final, revision), where `as_of` is two numbers, the log's epoch and an offset in it. `prev_seq` of a trade, final or revision
names the one before: another one than the last received means a
hole; subscribe again with `resume`. The ack's `seq` says after which place nothing is missing. Without anonymous reading send `auth` within 5 s, or a
key in the handshake's headers. A client that reads too slowly gets `SLOW_CONSUMER` with its last `seqs`, and close 1008."""


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }


def _message(title: str, summary: str, payload: dict[str, Any], example: dict[str, Any]) -> Any:
    return {
        "name": title,
        "title": title,
        "summary": summary,
        "contentType": "application/json",
        "payload": payload,
        "examples": [{"payload": example}],
    }


def _selection(*more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "channel": {"type": "string", "enum": list(CHANNELS)},
        "markets": {
            "type": "array",
            "items": {**_MARKET, "description": "A market, or all of an exchange as `kraken:*`."},
            "minItems": 1,
            "maxItems": MAX_MARKETS,
        },
        "timeframe": {**_TIMEFRAME, "description": "For candles, and for them alone."},
    }
    properties.update(more)
    return _object(properties, "timeframe", "snapshot", "resume")


def _request(method: str, params: dict[str, Any] | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"method": {"const": method}, "req_id": _REQ_ID}
    if params is not None:
        properties["params"] = params
    return _object(properties, "req_id")


def _requests() -> dict[str, Any]:
    snapshot = {"type": "integer", "minimum": 0, "maximum": MAX_SNAPSHOT, "default": 0}
    resume = {
        "type": "object",
        "additionalProperties": _SEQ,
        "description": "By market: go on after this seq.",
    }
    subscribe = _selection(("snapshot", snapshot), ("resume", resume))
    candles = {"channel": "candles", "markets": ["kraken:BTC/USD"], "timeframe": "1m"}
    return {
        "subscribe": _message(
            "subscribe",
            "Begin streams; subscribing twice is harmless.",
            _request("subscribe", subscribe),
            {"method": "subscribe", "req_id": 1, "params": {**candles, "snapshot": 100}},
        ),
        "unsubscribe": _message(
            "unsubscribe",
            "End streams.",
            _request("unsubscribe", _selection()),
            {"method": "unsubscribe", "req_id": 2, "params": candles},
        ),
        "list": _message(
            "list",
            "Name the streams there are.",
            _request("list", None),
            {"method": "list", "req_id": 3},
        ),
        "ping": _message(
            "ping",
            "Ask for a sign of life.",
            _request("ping", None),
            {"method": "ping", "req_id": 4},
        ),
        "auth": _message(
            "auth",
            "Present a key: the first message, within 5 s, where one is needed.",
            _request("auth", _object({"key": {"type": "string"}})),
            {"method": "auth", "req_id": 5, "params": {"key": "vgm_…"}},
        ),
    }


def _replies() -> dict[str, Any]:
    error = _object(
        {
            "code": {"type": "string"},
            "message": {"type": "string"},
            "parameter": {"type": "string"},
            "allowed": {"type": "string"},
            "oldest": {
                **_SEQ,
                "description": "With RESUME_TOO_OLD: the oldest place to go on from.",
            },
        },
        "parameter",
        "allowed",
        "oldest",
    )
    reply = _object(
        {
            "method": {"type": ["string", "null"]},
            "req_id": _REQ_ID,
            "success": {"type": "boolean"},
            "results": {"type": "array", "items": {"type": "object"}},
            "time": {"type": "string"},
            "error": error,
        },
        "results",
        "time",
        "error",
    )
    stream = {"channel": "candles", "market": "kraken:BTC/USD", "timeframe": "1m"}
    return {
        "reply": _message(
            "reply",
            "One for each request.",
            reply,
            {
                "method": "subscribe",
                "req_id": 1,
                "success": True,
                "results": [{**stream, "seq": "3-7-88120"}],
            },
        ),
        "error": _message(
            "error",
            "Something that belongs to no request, before the connection is closed.",
            {
                **_object({"channel": {"const": "error"}}),
                "allOf": [error],
                "properties": {"channel": {"const": "error"}, "seqs": {"type": "object"}},
            },
            {
                "channel": "error",
                "code": "SLOW_CONSUMER",
                "message": "the client reads more slowly than its streams come",
                "seqs": {"trades:kraken:BTC/USD": "3-7-5400"},
            },
        ),
    }


_CANDLE_HEAD = {"channel": "candles", "market": "kraken:BTC/USD", "timeframe": "1m"}
_TRADE_HEAD = {"channel": "trades", "market": "kraken:BTC/USD"}


def _candle_payload(kind: str, *more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return _object(
        {
            "channel": {"const": "candles"},
            "market": _MARKET,
            "timeframe": _TIMEFRAME,
            "type": {"const": kind},
            "seq": _SEQ,
            **dict(more),
            "data": _CANDLES,
        }
    )


def _candle_streams() -> dict[str, Any]:
    in_progress = {**CANDLE_EXAMPLE, "final": False, "complete": False}
    revised = {**CANDLE_EXAMPLE, "revision": 1}
    chained = ("prev_seq", _PREV_SEQ)
    head = _CANDLE_HEAD
    return {
        "candleSnapshot": _message(
            "candle snapshot",
            "The newest candles as stored, oldest first; the stream follows.",
            _candle_payload("snapshot"),
            {**head, "type": "snapshot", "seq": "3-7-88120", "data": [CANDLE_EXAMPLE]},
        ),
        "candleUpdate": _message(
            "candle update",
            "Candles in progress, their newest state; older ones may never be sent.",
            _candle_payload("update"),
            {**head, "type": "update", "seq": "3-7-88121", "data": [in_progress]},
        ),
        "candleFinal": _message(
            "candle final",
            "Candles that became final.",
            _candle_payload("final", chained),
            {
                **head,
                "type": "final",
                "seq": "3-7-88122",
                "prev_seq": "3-7-88101",
                "data": [CANDLE_EXAMPLE],
            },
        ),
        "candleRevision": _message(
            "candle revision",
            "Final candles that changed, and why.",
            _candle_payload("revision", chained, ("reason", {"type": "string"})),
            {
                **head,
                "type": "revision",
                "seq": "3-7-88130",
                "prev_seq": "3-7-88122",
                "reason": "backfill",
                "data": [revised],
            },
        ),
    }


def _trade_payload(kind: str, *more: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return _object(
        {
            "channel": {"const": "trades"},
            "market": _MARKET,
            "type": {"const": kind},
            "seq": _SEQ,
            **dict(more),
            "data": _TRADES,
        }
    )


def _trade_streams() -> dict[str, Any]:
    origin = {"enum": ["live", "backfill", "import", "simulated"]}
    return {
        "tradeSnapshot": _message(
            "trade snapshot",
            "The newest trades as stored, oldest first; the stream follows.",
            _trade_payload("snapshot"),
            {**_TRADE_HEAD, "type": "snapshot", "seq": "3-7-5399", "data": [TRADE_EXAMPLE]},
        ),
        "tradeUpdate": _message(
            "trade update",
            "Trades as they came into the log, with their origin.",
            _trade_payload("update", ("prev_seq", _PREV_SEQ), ("origin", origin)),
            {
                **_TRADE_HEAD,
                "type": "update",
                "seq": "3-7-5400",
                "prev_seq": "3-7-5397",
                "origin": "live",
                "data": [TRADE_EXAMPLE],
            },
        ),
    }


def _status() -> dict[str, Any]:
    kinds = [
        "source_up",
        "source_down",
        "gap_opened",
        "gap_filled",
        "gap_unfillable",
        "revised",
        "draining",
    ]
    return {
        "status": _message(
            "status",
            "A source's state, a gap, a range to read again (`revised`, sent to candle streams too), or that the server stops soon.",
            _object({"channel": {"const": "status"}, "type": {"enum": kinds}}),
            {
                "channel": "status",
                "type": "gap_opened",
                "market": "kraken:BTC/USD",
                "seq": "3-7-91",
                "prev_seq": "3-7-90",
                "event_time": "2026-01-31T09:14:10Z",
                "from_time": "2026-01-31T09:14:03Z",
                "to_time": "2026-01-31T09:14:09.25Z",
                "cause": "socket_closed",
            },
        ),
        "heartbeat": _message(
            "heartbeat",
            "Every few seconds: per stream the last undroppable place sent before it.",
            _object(
                {
                    "channel": {"const": "heartbeat"},
                    "time": {"type": "string"},
                    "seqs": {"type": "object", "additionalProperties": _SEQ},
                }
            ),
            {
                "channel": "heartbeat",
                "time": "2026-01-31T12:01:05Z",
                "seqs": {"candles:kraken:BTC/USD:1m": "3-7-88122"},
            },
        ),
    }


def build_asyncapi(version: str) -> dict[str, Any]:
    """Return the AsyncAPI document of the stream."""
    _, schemas = msgspec.json.schema_components(
        [CandleView, TradeView], ref_template="#/components/schemas/{name}"
    )
    requests, answers = (
        _requests(),
        {**_replies(), **_candle_streams(), **_trade_streams(), **_status()},
    )
    messages = {**requests, **answers}

    def named(names: dict[str, Any]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/stream/messages/{name}"} for name in names]

    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "vegamite",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": "/v1/ws",
                "description": "WebSocket; every message is one JSON object as text.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "ask": {
                "action": "receive",
                "summary": "What clients may send.",
                "channel": {"$ref": "#/channels/stream"},
                "messages": named(requests),
            },
            "tell": {
                "action": "send",
                "summary": "What clients get.",
                "channel": {"$ref": "#/channels/stream"},
                "messages": named(answers),
            },
        },
        "components": {
            "schemas": {
                "Candle": schemas["CandleView"],
                "Trade": schemas["TradeView"],
            },
            "messages": messages,
        },
    }
