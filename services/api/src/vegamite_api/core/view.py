"""Trades, candles and the rest as clients see them: JSON objects, JSON arrays and csv, decimals always as texts."""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TypeAlias

import msgspec

from vegamite_api.core.fill import AnyCandle, SyntheticCandle
from vegamite_api.core.query import TimeStyle
from vegamite_api.core.row import StoredGap, StoredTrade
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.time import Micros, format_time

TimeText: TypeAlias = str | int
TimeWriter: TypeAlias = Callable[[Micros], TimeText]


def time_writer(style: TimeStyle) -> TimeWriter:
    """Return the function that writes instants in a style: RFC 3339 UTC, or whole milliseconds or microseconds."""
    if style == "us":
        return int
    return (lambda micros: micros // 1000) if style == "ms" else format_time


class CandleView(msgspec.Struct, frozen=True, gc=False):
    """A candle as served; `as_of`, as `3-5400`, is the trades log's epoch and offset that it was computed up to."""

    market: str
    timeframe: str
    open_time: TimeText
    close_time: TimeText
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    volume: str
    quote_volume: str
    buy_volume: str
    buy_quote_volume: str
    vwap: str | None
    trade_count: int
    first_trade_id: str | None
    last_trade_id: str | None
    final: bool
    complete: bool
    revision: int
    as_of: str | None
    updated_at: TimeText | None
    synthetic: bool | msgspec.UnsetType = msgspec.UNSET


class TradeView(msgspec.Struct, frozen=True, gc=False):
    """A trade as served."""

    market: str
    trade_id: str
    sequence: int
    event_time: TimeText
    received_time: TimeText
    price: str
    amount: str
    taker_side: str | None


class GapView(msgspec.Struct, frozen=True):
    """A hole in a market's coverage as served."""

    market: str
    from_time: TimeText
    to_time: TimeText
    cause: str
    state: str
    reason: str | None
    recovered: int
    opened_time: TimeText
    closed_time: TimeText | None


class CoverageView(msgspec.Struct, frozen=True):
    """A span in which every trade of the market is stored, as served."""

    market: str
    from_time: TimeText
    to_time: TimeText


class LastTradeView(msgspec.Struct, frozen=True):
    """The newest trade of a market, in a listing of markets."""

    trade_id: str
    event_time: TimeText
    price: str
    amount: str
    taker_side: str | None


class MarketView(msgspec.Struct, frozen=True, kw_only=True):
    """A market as served: `listing` is the exchange's word on it, `state` what our source of its trades does."""

    market: str
    exchange: str
    symbol: str
    type: str
    base: str
    quote: str
    settle: str | None
    contract_size: str | None
    inverse: bool | None
    price_increment: str | None
    amount_increment: str | None
    listing: str
    simulated: bool
    tracked: bool
    state: str | None
    state_since: TimeText | None
    state_reason: str | None
    suggestions: list[str]
    history_from: TimeText | None
    last_trade: LastTradeView | None
    open_gaps: int


class TrackedView(msgspec.Struct, frozen=True):
    """A tracked market, in the answer to a change."""

    market: str
    state: str
    history_from: TimeText


def candle_view(
    market: Market, candle: AnyCandle, write: TimeWriter, *, marked: bool = False
) -> CandleView:
    """Return a candle as served; `marked` adds the field `synthetic`, which synthetic rows always have."""
    if isinstance(candle, SyntheticCandle):
        return _synthetic_view(market, candle, write)
    vwap = candle.vwap
    return CandleView(
        market=market.key,
        timeframe=candle.timeframe.value,
        open_time=write(candle.open_time),
        close_time=write(candle.close_time),
        open=format_decimal(candle.open),
        high=format_decimal(candle.high),
        low=format_decimal(candle.low),
        close=format_decimal(candle.close),
        volume=format_decimal(candle.volume),
        quote_volume=format_decimal(candle.quote_volume),
        buy_volume=format_decimal(candle.buy_volume),
        buy_quote_volume=format_decimal(candle.buy_quote_volume),
        vwap=None if vwap is None else format_decimal(vwap),
        trade_count=candle.trade_count,
        first_trade_id=candle.first_trade_id,
        last_trade_id=candle.last_trade_id,
        final=candle.final,
        complete=candle.complete,
        revision=candle.revision,
        as_of=f"{candle.epoch}-{candle.as_of}",
        updated_at=write(candle.updated_at),
        synthetic=False if marked else msgspec.UNSET,
    )


def _synthetic_view(market: Market, candle: SyntheticCandle, write: TimeWriter) -> CandleView:
    price = None if candle.price is None else format_decimal(candle.price)
    return CandleView(
        market=market.key,
        timeframe=candle.timeframe.value,
        open_time=write(candle.open_time),
        close_time=write(candle.close_time),
        open=price,
        high=price,
        low=price,
        close=price,
        volume="0",
        quote_volume="0",
        buy_volume="0",
        buy_quote_volume="0",
        vwap=None,
        trade_count=0,
        first_trade_id=None,
        last_trade_id=None,
        final=True,
        complete=True,
        revision=0,
        as_of=None,
        updated_at=None,
        synthetic=True,
    )


def trade_view(market: Market, stored: StoredTrade, write: TimeWriter) -> TradeView:
    """Return a trade as served."""
    trade = stored.trade
    return TradeView(
        market.key,
        trade.trade_id,
        trade.sequence,
        write(trade.event_time),
        write(stored.received_time),
        format_decimal(trade.price),
        format_decimal(trade.amount),
        trade.taker_side,
    )


def gap_view(market: Market, stored: StoredGap, write: TimeWriter) -> GapView:
    """Return a gap as served."""
    gap = stored.gap
    return GapView(
        market=market.key,
        from_time=write(gap.from_time),
        to_time=write(gap.to_time),
        cause=gap.cause,
        state=gap.state.value,
        reason=gap.reason,
        recovered=gap.recovered,
        opened_time=write(stored.opened_time),
        closed_time=None if stored.closed_time is None else write(stored.closed_time),
    )


def coverage_view(market: Market, span: Span, write: TimeWriter) -> CoverageView:
    """Return a covered span as served."""
    return CoverageView(market.key, write(span.from_time), write(span.to_time))


def decimal_text(value: Decimal | None) -> str | None:
    """Return the canonical text of a number that may be absent."""
    return None if value is None else format_decimal(value)


def encode_list(rows: Sequence[object], next_cursor: str | None) -> bytes:
    """Return the JSON of a list of objects: `{"data": […], "next_cursor": …}`."""
    return msgspec.json.encode({"data": rows, "next_cursor": next_cursor})


def encode_arrays(
    rows: Sequence[msgspec.Struct], columns: Sequence[str], next_cursor: str | None
) -> bytes:
    """Return the JSON of a list of arrays: `{"columns": […], "data": [[…], …], "next_cursor": …}`."""
    data = [[getattr(row, name) for name in columns] for row in rows]
    return msgspec.json.encode({"columns": columns, "data": data, "next_cursor": next_cursor})


def encode_csv(rows: Iterable[msgspec.Struct], columns: Sequence[str]) -> bytes:
    """Return the rows as RFC 4180 csv in UTF-8, with a header; absent values are empty, flags `true` and `false`."""
    lines = [",".join(columns)]
    lines += [",".join([_cell(getattr(row, name)) for name in columns]) for row in rows]
    return ("\r\n".join(lines) + "\r\n").encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if any(char in text for char in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


CANDLE_COLUMNS = tuple(name for name in CandleView.__struct_fields__ if name != "synthetic")
FILLED_CANDLE_COLUMNS = CandleView.__struct_fields__
TRADE_COLUMNS = TradeView.__struct_fields__
