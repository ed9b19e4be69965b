"""What the OpenAPI document says of each route: parameters, answers with examples, and every refusal that can come."""

from typing import Any

from vegamite_api.http.parameter import Parameter

PROBLEM_TYPE = "application/problem+json"

CANDLE_EXAMPLE: dict[str, Any] = {
    "market": "kraken:BTC/USD",
    "timeframe": "1m",
    "open_time": "2026-01-31T12:00:00Z",
    "close_time": "2026-01-31T12:01:00Z",
    "open": "104250.1",
    "high": "104262",
    "low": "104250",
    "close": "104261.3",
    "volume": "1.24500001",
    "quote_volume": "129798.412345678",
    "buy_volume": "0.745",
    "buy_quote_volume": "77670.1",
    "vwap": "104255.751721259824150731",
    "trade_count": 41,
    "first_trade_id": "88120044",
    "last_trade_id": "88120084",
    "final": True,
    "complete": True,
    "revision": 0,
    "as_of": "3-5400",
    "updated_at": "2026-01-31T12:01:02.104Z",
}
TRADE_EXAMPLE: dict[str, Any] = {
    "market": "kraken:BTC/USD",
    "trade_id": "88120084",
    "sequence": 88120084,
    "event_time": "2026-01-31T12:00:59.123456Z",
    "received_time": "2026-01-31T12:00:59.201Z",
    "price": "104261.3",
    "amount": "0.0125",
    "taker_side": "buy",
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "candles": CANDLE_EXAMPLE,
    "trades": TRADE_EXAMPLE,
    "exchanges": {
        "exchange": "kraken",
        "name": "Kraken",
        "simulated": False,
        "trades": "stream",
        "tracked_markets": 2,
    },
    "markets": {
        "market": "kraken:BTC/USD",
        "exchange": "kraken",
        "symbol": "BTC/USD",
        "type": "spot",
        "base": "BTC",
        "quote": "USD",
        "settle": None,
        "contract_size": None,
        "inverse": None,
        "price_increment": "0.1",
        "amount_increment": "0.00000001",
        "listing": "active",
        "simulated": False,
        "tracked": True,
        "state": "live",
        "state_since": "2026-01-31T08:00:00.5Z",
        "state_reason": None,
        "suggestions": [],
        "history_from": "2026-01-30T00:00:00Z",
        "last_trade": {
            "trade_id": "88120084",
            "event_time": "2026-01-31T12:00:59.123456Z",
            "price": "104261.3",
            "amount": "0.0125",
            "taker_side": "buy",
        },
        "open_gaps": 0,
    },
    "gaps": {
        "market": "kraken:BTC/USD",
        "from_time": "2026-01-31T09:14:03Z",
        "to_time": "2026-01-31T09:14:09.25Z",
        "cause": "socket_closed",
        "state": "filled",
        "reason": None,
        "recovered": 17,
        "opened_time": "2026-01-31T09:14:10Z",
        "closed_time": "2026-01-31T09:14:16Z",
    },
    "coverage": {
        "market": "kraken:BTC/USD",
        "from_time": "2026-01-30T00:00:00Z",
        "to_time": "2026-01-31T12:00:59Z",
    },
    "tracked": {
        "market": "kraken:BTC/USD",
        "state": "pending",
        "history_from": "2026-01-31T00:00:00Z",
    },
}
_SCHEMAS = {
    "candles": "Candle",
    "trades": "Trade",
    "exchanges": "Exchange",
    "markets": "Market",
    "gaps": "Gap",
    "coverage": "CoveredSpan",
    "tracked": "TrackedMarket",
}
_CURSOR = "gCPZqpLObCDhXs8ABQxQ3-1gAA"

_PROBLEMS: dict[int, tuple[str, dict[str, Any]]] = {
    400: (
        "A parameter, a header or the body is wrong: `parameter` names it, `allowed` says what would be right.",
        {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "code": "invalid_parameter",
            "detail": "unknown timeframe: '7m'",
            "parameter": "timeframe",
            "allowed": "1s, 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d, 3d, 1w, 1M",
        },
    ),
    401: (
        "No key, or one that is not valid.",
        {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "code": "unauthorized",
            "detail": "an API key is needed",
            "parameter": "Authorization",
            "allowed": "Authorization: Bearer KEY, or X-API-Key: KEY",
        },
    ),
    403: (
        "The key's scope is too narrow.",
        {
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "code": "forbidden",
            "detail": "the key's scope is too narrow",
            "parameter": "Authorization",
            "allowed": "admin",
        },
    ),
    404: (
        "The market is unknown.",
        {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "code": "unknown_market",
            "detail": "unknown market: 'kraken:BTC/XYZ'",
            "parameter": "market",
            "allowed": "markets of GET /v1/markets",
        },
    ),
    406: (
        "No representation of the resource is acceptable.",
        {
            "type": "about:blank",
            "title": "Not Acceptable",
            "status": 406,
            "code": "not_acceptable",
            "detail": "no representation of this resource is acceptable",
            "parameter": "Accept",
            "allowed": "application/json, text/csv",
        },
    ),
    413: (
        "The body is too large.",
        {
            "type": "about:blank",
            "title": "Content Too Large",
            "status": 413,
            "code": "body_too_large",
            "detail": "the body is too large",
            "allowed": "65536 bytes",
        },
    ),
    415: (
        "The body is of another type.",
        {
            "type": "about:blank",
            "title": "Unsupported Media Type",
            "status": 415,
            "code": "unsupported_media_type",
            "detail": "the body is text/plain",
            "parameter": "Content-Type",
            "allowed": "application/json",
        },
    ),
    500: (
        "A bug of the server; it is logged there.",
        {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "code": "internal_error",
            "detail": "the server failed; this is logged",
        },
    ),
    503: (
        "The database can't answer now; try again.",
        {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "code": "store_unavailable",
            "detail": "the database can't answer now; try again",
        },
    ),
}

_HEADERS: dict[str, Any] = {
    "ETag": {
        "description": "Strong; changes when any row does.",
        "schema": {"type": "string"},
        "example": '"9b2f0d6c8e1a4f3b7c5d2e1f0a9b8c7d"',
    },
    "Link": {
        "description": 'The next page (rel="next"), where the representation has no `next_cursor`.',
        "schema": {"type": "string"},
        "example": f'</v1/candles?market=kraken%3ABTC%2FUSD&cursor={_CURSOR}>; rel="next"',
    },
}


def _problems(*statuses: int) -> dict[str, Any]:
    return {
        str(status): {
            "description": _PROBLEMS[status][0],
            "content": {
                PROBLEM_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": _PROBLEMS[status][1],
                }
            },
        }
        for status in statuses
    }


def _list_schema(name: str, *, arrays: bool) -> dict[str, Any]:
    objects: dict[str, Any] = {
        "type": "object",
        "required": ["data", "next_cursor"],
        "properties": {
            "data": {
                "type": "array",
                "items": {"$ref": f"#/components/schemas/{_SCHEMAS[name]}"},
            },
            "next_cursor": {"type": ["string", "null"]},
        },
    }
    if not arrays:
        return objects
    rows: dict[str, Any] = {
        "type": "object",
        "required": ["columns", "data", "next_cursor"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
            "next_cursor": {"type": ["string", "null"]},
        },
    }
    return {"anyOf": [objects, rows]}


def _examples(name: str, *, arrays: bool, paged: bool) -> dict[str, Any]:
    cursor = _CURSOR if paged else None
    row = EXAMPLES[name]
    examples: dict[str, Any] = {
        "objects": {"value": {"data": [row], "next_cursor": cursor}},
    }
    if arrays:
        examples["arrays"] = {
            "value": {"columns": list(row), "data": [list(row.values())], "next_cursor": cursor}
        }
    return examples


def _csv_example(name: str) -> str:
    def cell(value: object) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    row = EXAMPLES[name]
    return ",".join(row) + "\r\n" + ",".join(cell(value) for value in row.values()) + "\r\n"


def listing(
    name: str, parameters: tuple[Parameter, ...], *, csv: bool = False, paged: bool = True
) -> dict[str, Any]:
    """Return the arguments of a route that answers a list of `name`: what its document says."""
    paged = paged and any(parameter.name == "cursor" for parameter in parameters)
    content: dict[str, Any] = {
        "application/json": {
            "schema": _list_schema(name, arrays=csv),
            "examples": _examples(name, arrays=csv, paged=paged),
        }
    }
    if csv:
        content["text/csv"] = {"schema": {"type": "string"}, "example": _csv_example(name)}
    refusals = [400, 401, 403, 406, 500, 503]
    if any(parameter.name == "market" for parameter in parameters):
        refusals.append(404)
    return {
        "response_model": None,
        "tags": ["markets" if name in ("exchanges", "markets") else "history"],
        "openapi_extra": {
            "parameters": [parameter.document() for parameter in parameters],
            "responses": {
                "200": {
                    "description": "The rows.",
                    "headers": _HEADERS if csv else {"ETag": _HEADERS["ETag"]},
                    "content": content,
                },
                "304": {"description": "What `If-None-Match` names is still right."},
                **_problems(*sorted(refusals)),
            },
        },
    }


def tracking() -> dict[str, Any]:
    """Return the arguments of the route that tracks markets."""
    return {
        "response_model": None,
        "tags": ["tracking"],
        "status_code": 202,
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/Tracking"},
                        "example": {
                            "markets": ["kraken:BTC/USD"],
                            "history_from": "2026-01-31T00:00:00Z",
                        },
                    }
                },
            },
            "responses": {
                "202": {
                    "description": "Taken; collectors hear of it at once.",
                    "content": {
                        "application/json": {
                            "schema": _list_schema("tracked", arrays=False),
                            "examples": _examples("tracked", arrays=False, paged=False),
                        }
                    },
                },
                **_problems(400, 401, 403, 413, 415, 500, 503),
            },
        },
    }


def removal(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """Return the arguments of the route that stops tracking a market."""
    return {
        "response_model": None,
        "tags": ["tracking"],
        "status_code": 204,
        "openapi_extra": {
            "parameters": [parameter.document() for parameter in parameters],
            "responses": {
                "204": {"description": "Not tracked any more; what is stored stays."},
                **_problems(400, 401, 403, 404, 500, 503),
            },
        },
    }
