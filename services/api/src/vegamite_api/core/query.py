"""Questions as clients put them: texts in, typed values out; every refusal names the parameter and what is allowed."""

from collections.abc import Mapping
from typing import Literal, TypeVar, get_args

import msgspec

from vegamite_api.core.cursor import (
    decode_instant_cursor,
    decode_name_cursor,
    decode_trade_cursor,
)
from vegamite_api.core.fill import FillMode
from vegamite_api.core.refusal import RefusedError, invalid, shown
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import LATEST, Micros, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import TradeOrder

DEFAULT_LIMIT = 500
MAX_LIMIT = 10_000
TIMEFRAMES = tuple(timeframe.value for timeframe in Timeframe)
MARKET_TYPES = ("spot", "swap", "future", "option")

Parameters = Mapping[str, str]
Sort = Literal["asc", "desc"]
TimeStyle = Literal["rfc3339", "ms", "us"]
Shape = Literal["object", "array"]
ChoiceT = TypeVar("ChoiceT", bound=str)

_MARKET_ALLOWED = "exchange:SYMBOL, as in kraken:BTC/USD"
_TIME_ALLOWED = "RFC 3339 (UTC where no offset is given; in a URL write + as %2B), or milliseconds since the epoch"


class Range(msgspec.Struct, frozen=True):
    """[start, end) in microseconds; either may be open."""

    start: Micros | None
    end: Micros | None

    @property
    def low(self) -> Micros:
        """The inclusive start; the beginning of time where open."""
        return 0 if self.start is None else self.start

    @property
    def high(self) -> Micros:
        """The exclusive end; the end of time where open."""
        return LATEST if self.end is None else self.end


class CandleQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/candles` is asked; `after` is the last open time of the page before."""

    market: Market
    timeframe: Timeframe
    range: Range
    limit: int
    after: Micros | None
    sort: Sort
    fill: FillMode | None
    partial: bool

    @property
    def newest(self) -> bool:
        """Whether the newest rows are meant although the order is ascending: no start, no page before."""
        return self.sort == "asc" and self.range.start is None and self.after is None

    @property
    def question(self) -> str:
        """What the pages of one listing have in common."""
        return f"candles|{self.market.key}|{self.timeframe.value}|{self.sort}"


class TradeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/trades` is asked; `after` is the place of the last trade of the page before."""

    market: Market
    range: Range
    limit: int
    after: TradeOrder | None
    sort: Sort

    @property
    def newest(self) -> bool:
        """Whether the newest rows are meant although the order is ascending: no start, no page before."""
        return self.sort == "asc" and self.range.start is None and self.after is None

    @property
    def question(self) -> str:
        """What the pages of one listing have in common."""
        return f"trades|{self.market.key}|{self.sort}"


class SpanQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/gaps` and `/v1/coverage` are asked; `after` is the last `from_time` of the page before."""

    kind: Literal["gaps", "coverage"]
    market: Market
    range: Range
    limit: int
    after: Micros | None

    @property
    def question(self) -> str:
        """What the pages of one listing have in common."""
        return f"{self.kind}|{self.market.key}"


class MarketQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/markets` is asked; `after` is the key of the last market of the page before."""

    exchange: str | None
    base: str | None
    quote: str | None
    type: str | None
    tracked: bool | None
    limit: int
    after: str | None

    @property
    def question(self) -> str:
        """What the pages of one listing have in common."""
        return f"markets|{self.exchange}|{self.base}|{self.quote}|{self.type}|{self.tracked}"


def required(parameters: Parameters, name: str, allowed: str) -> str:
    """Return a parameter's text; raise `RefusedError` where it is missing or empty."""
    text = parameters.get(name, "")
    if not text:
        raise RefusedError(
            "missing_parameter", f"{name} is required", parameter=name, allowed=allowed
        )
    return text


def parse_market(text: str, *, parameter: str) -> Market:
    """Return the market that `exchange:SYMBOL` names; raise `RefusedError` where it names none."""
    try:
        return Market.parse(text)
    except ValueError:
        raise invalid(parameter, f"not a market: '{shown(text)}'", _MARKET_ALLOWED) from None


def parse_market_parameter(parameters: Parameters) -> Market:
    """Return the market of the parameter `market`."""
    return parse_market(required(parameters, "market", _MARKET_ALLOWED), parameter="market")


def parse_timeframe(text: str, *, parameter: str = "timeframe") -> Timeframe:
    """Return the timeframe of that name; case matters."""
    try:
        return Timeframe(text)
    except ValueError:
        raise invalid(
            parameter, f"unknown timeframe: '{shown(text)}'", ", ".join(TIMEFRAMES)
        ) from None


def parse_instant(text: str, *, parameter: str) -> Micros:
    """Return the microseconds that a query's time names."""
    try:
        return parse_time(text)
    except ValueError as error:
        raise invalid(parameter, str(error), _TIME_ALLOWED) from None


def parse_range(parameters: Parameters) -> Range:
    """Return the range of the parameters `start` (inclusive) and `end` (exclusive)."""
    start, end = (
        parse_instant(parameters[name], parameter=name) if name in parameters else None
        for name in ("start", "end")
    )
    if start is not None and end is not None and end < start:
        raise invalid("end", "end lies before start", "an end at or after start")
    return Range(start, end)


def parse_limit(parameters: Parameters) -> int:
    """Return how many rows a page has: 1 to 10,000, 500 where not said."""
    text = parameters.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise invalid("limit", f"not a page size: '{shown(text)}'", f"1 to {MAX_LIMIT}")
    return int(text)


def parse_choice(
    parameters: Parameters, name: str, choices: tuple[ChoiceT, ...], default: ChoiceT
) -> ChoiceT:
    """Return one of `choices`, or `default` where the parameter is absent."""
    text = parameters.get(name)
    if text is None:
        return default
    for choice in choices:
        if text == choice:
            return choice
    raise invalid(name, f"unknown value: '{shown(text)}'", ", ".join(choices))


def parse_flag(parameters: Parameters, name: str) -> bool | None:
    """Return true or false, None where the parameter is absent."""
    text = parameters.get(name)
    if text is None:
        return None
    return parse_choice(parameters, name, ("true", "false"), "false") == "true"


def parse_sort(parameters: Parameters) -> Sort:
    """Return the order of the rows, `asc` where not said."""
    choices: tuple[Sort, ...] = get_args(Sort)
    return parse_choice(parameters, "sort", choices, "asc")


def parse_time_style(parameters: Parameters) -> TimeStyle:
    """Return how instants are written: RFC 3339, or integers of milliseconds or microseconds."""
    choices: tuple[TimeStyle, ...] = get_args(TimeStyle)
    return parse_choice(parameters, "time", choices, "rfc3339")


def parse_shape(parameters: Parameters) -> Shape:
    """Return how JSON rows are written: as objects or as arrays."""
    choices: tuple[Shape, ...] = get_args(Shape)
    return parse_choice(parameters, "shape", choices, "object")


def parse_candle_query(parameters: Parameters) -> CandleQuery:
    """Return what `/v1/candles` is asked."""
    fills: tuple[FillMode, ...] = get_args(FillMode)
    query = CandleQuery(
        market=parse_market_parameter(parameters),
        timeframe=parse_timeframe(required(parameters, "timeframe", ", ".join(TIMEFRAMES))),
        range=parse_range(parameters),
        limit=parse_limit(parameters),
        after=None,
        sort=parse_sort(parameters),
        fill=parse_choice(parameters, "fill", fills, fills[0]) if "fill" in parameters else None,
        partial=parse_flag(parameters, "partial") is not False,
    )
    if "cursor" not in parameters:
        return query
    after = decode_instant_cursor(parameters["cursor"], query.question)
    return msgspec.structs.replace(query, after=after)


def parse_trade_query(parameters: Parameters) -> TradeQuery:
    """Return what `/v1/trades` is asked."""
    query = TradeQuery(
        market=parse_market_parameter(parameters),
        range=parse_range(parameters),
        limit=parse_limit(parameters),
        after=None,
        sort=parse_sort(parameters),
    )
    if "cursor" not in parameters:
        return query
    after = decode_trade_cursor(parameters["cursor"], query.question)
    return msgspec.structs.replace(query, after=after)


def parse_span_query(kind: Literal["gaps", "coverage"], parameters: Parameters) -> SpanQuery:
    """Return what `/v1/gaps` or `/v1/coverage` is asked."""
    query = SpanQuery(
        kind=kind,
        market=parse_market_parameter(parameters),
        range=parse_range(parameters),
        limit=parse_limit(parameters),
        after=None,
    )
    if "cursor" not in parameters:
        return query
    after = decode_instant_cursor(parameters["cursor"], query.question)
    return msgspec.structs.replace(query, after=after)


def parse_market_query(parameters: Parameters) -> MarketQuery:
    """Return what `/v1/markets` is asked."""
    kind = parse_choice(parameters, "type", MARKET_TYPES, "spot") if "type" in parameters else None
    query = MarketQuery(
        exchange=_parse_word(parameters, "exchange"),
        base=_parse_word(parameters, "base"),
        quote=_parse_word(parameters, "quote"),
        type=kind,
        tracked=parse_flag(parameters, "tracked"),
        limit=parse_limit(parameters),
        after=None,
    )
    if "cursor" not in parameters:
        return query
    return msgspec.structs.replace(
        query, after=decode_name_cursor(parameters["cursor"], query.question)
    )


def _parse_word(parameters: Parameters, name: str) -> str | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not text or len(text) > 40 or not text.isprintable():
        raise invalid(name, f"not a name: '{shown(text)}'", "1 to 40 printable characters")
    return text
