"""The routes under /v1: each reads its parameters, asks a service, and writes the rows."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from vegamite_api.core.cursor import encode_name_cursor
from vegamite_api.core.query import (
    TIMEFRAMES,
    parse_candle_query,
    parse_market_parameter,
    parse_market_query,
    parse_shape,
    parse_span_query,
    parse_time_style,
    parse_timeframe,
    parse_trade_query,
    required,
)
from vegamite_api.core.view import (
    CANDLE_COLUMNS,
    FILLED_CANDLE_COLUMNS,
    TRADE_COLUMNS,
    CandleView,
    TradeView,
    candle_view,
    coverage_view,
    encode_arrays,
    encode_csv,
    encode_list,
    gap_view,
    time_writer,
    trade_view,
)
from vegamite_api.http import parameter as p
from vegamite_api.http.context import context_of
from vegamite_api.http.document import listing
from vegamite_api.http.parameter import read_parameters
from vegamite_api.http.response import Format, chosen_format, respond
from vegamite_api.http.security import reader
from vegamite_api.service.history import (
    candle_page,
    coverage_page,
    gap_page,
    market_key,
    trade_page,
)

router = APIRouter(prefix="/v1", dependencies=[Depends(reader)])

_BOTH: tuple[Format, ...] = ("json", "csv")
_JSON: tuple[Format, ...] = ("json",)

EXCHANGES: tuple[p.Parameter, ...] = ()
MARKETS = (p.EXCHANGE, p.BASE, p.QUOTE, p.TYPE, p.TRACKED, p.LIMIT, p.CURSOR, p.TIME)
CANDLES = (
    p.MARKET,
    p.TIMEFRAME,
    p.START,
    p.END,
    p.LIMIT,
    p.CURSOR,
    p.SORT,
    p.FILL,
    p.PARTIAL,
    p.TIME,
    p.FORMAT,
    p.SHAPE,
)
LATEST_CANDLES = (p.MARKET, p.TIMEFRAME, p.TIME)
TRADES = (
    p.MARKET,
    p.START,
    p.END,
    p.LIMIT,
    p.CURSOR,
    p.SORT,
    p.TIME,
    p.FORMAT,
    p.SHAPE,
)
LATEST_TRADES = (p.MARKET, p.TIME)
SPANS = (p.MARKET, p.START, p.END, p.LIMIT, p.CURSOR, p.TIME)


@router.get("/exchanges", **listing("exchanges", EXCHANGES))
async def exchanges(request: Request) -> Response:
    """Every exchange that markets can be tracked on."""
    parameters = read_parameters(request, EXCHANGES)
    chosen_format(request, parameters, _JSON)
    rows = await context_of(request).markets.exchanges()
    return await respond(request, lambda: encode_list(rows, None), rows=len(rows))


@router.get("/markets", **listing("markets", MARKETS))
async def markets(request: Request) -> Response:
    """Markets that are known, with what is tracked of them: state of the source, newest trade, open gaps."""
    parameters = read_parameters(request, MARKETS)
    chosen_format(request, parameters, _JSON)
    query = parse_market_query(parameters)
    write = time_writer(parse_time_style(parameters))
    rows = await context_of(request).markets.markets(query, write, limit=query.limit + 1)
    page = rows[: query.limit]
    cursor = None
    if len(rows) > query.limit:
        cursor = encode_name_cursor(query.question, page[-1].market)
    return await respond(request, lambda: encode_list(page, cursor), rows=len(page))


@router.get("/candles", **listing("candles", CANDLES, csv=True))
async def candles(request: Request) -> Response:
    """Candles of one market and timeframe, a page at a time; without start, end and cursor the newest, ascending."""
    parameters = read_parameters(request, CANDLES)
    kind = chosen_format(request, parameters, _BOTH)
    query = parse_candle_query(parameters)
    shape, write = parse_shape(parameters), time_writer(parse_time_style(parameters))
    page, cursor = await candle_page(context_of(request).history, query)
    marked = query.fill is not None
    columns = FILLED_CANDLE_COLUMNS if marked else CANDLE_COLUMNS

    def build() -> bytes:
        rows = [candle_view(query.market, row, write, marked=marked) for row in page]
        return _write(rows, columns, kind, shape, cursor)

    return await respond(request, build, rows=len(page), kind=kind, next_cursor=cursor)


@router.get("/candles/latest", **listing("candles", LATEST_CANDLES, paged=False))
async def latest_candles(request: Request) -> Response:
    """The newest final candle and those after it that are still in progress, ascending."""
    parameters = read_parameters(request, LATEST_CANDLES)
    chosen_format(request, parameters, _JSON)
    market = parse_market_parameter(parameters)
    timeframe = parse_timeframe(required(parameters, "timeframe", ", ".join(TIMEFRAMES)))
    write = time_writer(parse_time_style(parameters))
    history = context_of(request).history
    rows = await history.latest_candles(await market_key(history, market), timeframe)
    views = [candle_view(market, row, write) for row in rows]
    return await respond(request, lambda: encode_list(views, None), rows=len(views))


@router.get("/trades", **listing("trades", TRADES, csv=True))
async def trades(request: Request) -> Response:
    """Trades of one market in the total order, a page at a time; without start, end and cursor the newest, ascending."""
    parameters = read_parameters(request, TRADES)
    kind = chosen_format(request, parameters, _BOTH)
    query = parse_trade_query(parameters)
    shape, write = parse_shape(parameters), time_writer(parse_time_style(parameters))
    page, cursor = await trade_page(context_of(request).history, query)

    def build() -> bytes:
        rows = [trade_view(query.market, row, write) for row in page]
        return _write(rows, TRADE_COLUMNS, kind, shape, cursor)

    return await respond(request, build, rows=len(page), kind=kind, next_cursor=cursor)


@router.get("/trades/latest", **listing("trades", LATEST_TRADES, paged=False))
async def latest_trades(request: Request) -> Response:
    """The newest trade of a market; an empty list where it has none."""
    parameters = read_parameters(request, LATEST_TRADES)
    chosen_format(request, parameters, _JSON)
    query = parse_trade_query({"market": parameters.get("market", ""), "limit": "1"})
    write = time_writer(parse_time_style(parameters))
    page, _ = await trade_page(context_of(request).history, query)
    views = [trade_view(query.market, row, write) for row in page]
    return await respond(request, lambda: encode_list(views, None), rows=len(views))


@router.get("/gaps", **listing("gaps", SPANS))
async def gaps(request: Request) -> Response:
    """The holes in a market's coverage that touch the range: open, filled, or not to be filled any more."""
    parameters = read_parameters(request, SPANS)
    chosen_format(request, parameters, _JSON)
    query = parse_span_query("gaps", parameters)
    write = time_writer(parse_time_style(parameters))
    page, cursor = await gap_page(context_of(request).history, query)
    views = [gap_view(query.market, row, write) for row in page]
    return await respond(request, lambda: encode_list(views, cursor), rows=len(views))


@router.get("/coverage", **listing("coverage", SPANS))
async def coverage(request: Request) -> Response:
    """The spans in which every trade of the market is stored; what lies outside is unknown."""
    parameters = read_parameters(request, SPANS)
    chosen_format(request, parameters, _JSON)
    query = parse_span_query("coverage", parameters)
    write = time_writer(parse_time_style(parameters))
    page, cursor = await coverage_page(context_of(request).history, query)
    views = [coverage_view(query.market, span, write) for span in page]
    return await respond(request, lambda: encode_list(views, cursor), rows=len(views))


def _write(
    rows: Sequence[CandleView] | Sequence[TradeView],
    columns: Sequence[str],
    kind: Format,
    shape: str,
    cursor: str | None,
) -> bytes:
    if kind == "csv":
        return encode_csv(rows, columns)
    if shape == "array":
        return encode_arrays(rows, columns, cursor)
    return encode_list(rows, cursor)
