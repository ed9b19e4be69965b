"""Query parameters, told once: what the OpenAPI document says of them is what is read, and nothing else is."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from vegamite_api.core.query import DEFAULT_LIMIT, MARKET_TYPES, MAX_LIMIT
from vegamite_api.core.refusal import RefusedError, shown
from vegamite_common.domain.timeframe import Timeframe

_INSTANT = (
    r"^(\d{1,15}|\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})?)?)$"
)


@dataclass(frozen=True)
class Parameter:
    """One query parameter: its name, what it means, its JSON schema, an example."""

    name: str
    description: str
    schema: dict[str, Any]
    example: str | int | bool
    required: bool = False

    def document(self) -> dict[str, Any]:
        """Return the parameter as OpenAPI has it."""
        return {
            "name": self.name,
            "in": "query",
            "required": self.required,
            "description": self.description,
            "schema": self.schema,
            "example": self.example,
        }


def read_parameters(request: Request, known: tuple[Parameter, ...]) -> dict[str, str]:
    """Return the query's parameters; raise `RefusedError` for an unknown or a repeated one, naming it."""
    values: dict[str, str] = {}
    names = {parameter.name for parameter in known}
    for name, value in request.query_params.multi_items():
        if name not in names:
            raise RefusedError(
                "unknown_parameter",
                f"unknown query parameter: '{shown(name)}'",
                parameter=shown(name),
                allowed=", ".join(sorted(names)) or "no parameters",
            )
        if name in values:
            raise RefusedError(
                "repeated_parameter", f"{name} is given twice", parameter=name, allowed="once"
            )
        values[name] = value
    return values


def _choice(
    name: str, description: str, choices: list[str], default: str | None, example: str
) -> Parameter:
    schema: dict[str, Any] = {"type": "string", "enum": choices}
    if default is not None:
        schema["default"] = default
    return Parameter(name, description, schema, example)


MARKET = Parameter(
    "market",
    "The market: the exchange's ccxt id and ccxt's unified symbol.",
    {"type": "string", "minLength": 3, "maxLength": 133, "pattern": r"^[a-z0-9_]{1,32}:[^/]+/.+$"},
    "kraken:BTC/USD",
    required=True,
)
TIMEFRAME = Parameter(
    "timeframe",
    "The candles' length, by Binance's names; case matters (`1m` is a minute, `1M` a month).",
    {"type": "string", "enum": [timeframe.value for timeframe in Timeframe]},
    "1m",
    required=True,
)
START = Parameter(
    "start",
    "Inclusive; RFC 3339, or milliseconds since the epoch.",
    {"type": "string", "pattern": _INSTANT},
    "2026-01-31T12:00:00Z",
)
END = Parameter(
    "end",
    "Exclusive; RFC 3339, or milliseconds since the epoch. Without `start` the newest rows before it are meant.",
    {"type": "string", "pattern": _INSTANT},
    "2026-01-31T13:00:00Z",
)
LIMIT = Parameter(
    "limit",
    "Rows a page; a range with more rows is paged.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    100,
)
CURSOR = Parameter(
    "cursor",
    "`next_cursor` of the page before, with the other parameters unchanged; opaque, stable while rows are added.",
    {"type": "string", "minLength": 1, "maxLength": 400, "pattern": "^[A-Za-z0-9_-]+$"},
    "gCPZqpLObCDhXs8ABQxQ3-1gAA",
)
SORT = _choice("sort", "Order of the rows by time.", ["asc", "desc"], "asc", "desc")
FILL = _choice(
    "fill",
    "Add rows for intervals without trades, inside coverage only, marked `synthetic`: with the last known price, or with null.",
    ["prev", "null"],
    None,
    "prev",
)
PARTIAL = Parameter(
    "partial",
    "Whether candles that are not final yet are among the rows.",
    {"type": "boolean", "default": True},
    example=False,
)
TIME = _choice(
    "time",
    "How instants are written: RFC 3339 UTC, or integers of milliseconds or microseconds.",
    ["rfc3339", "ms", "us"],
    "rfc3339",
    "ms",
)
FORMAT = _choice(
    "format", "Representation, over the header Accept: json or csv.", ["json", "csv"], None, "csv"
)
SHAPE = _choice(
    "shape",
    "JSON rows as objects, or as arrays with `columns`.",
    ["object", "array"],
    "object",
    "array",
)
_WORD = {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[!-~]+$"}
EXCHANGE = Parameter("exchange", "Only markets of this exchange.", _WORD, "kraken")
BASE = Parameter("base", "Only markets with this base currency.", _WORD, "BTC")
QUOTE = Parameter("quote", "Only markets with this quote currency.", _WORD, "USD")
TYPE = _choice("type", "Only markets of this type.", list(MARKET_TYPES), None, "spot")
TRACKED = Parameter(
    "tracked",
    "Only markets that are tracked, or only those that are not.",
    {"type": "boolean"},
    example=True,
)
