"""Pages of stored rows: what a query means, in questions to the store, and where the next page begins."""

from collections.abc import Sequence

from vegamite_api.core.cursor import encode_instant_cursor, encode_trade_cursor
from vegamite_api.core.fill import AnyCandle, FillMode, fill
from vegamite_api.core.query import CandleQuery, Range, SpanQuery, TradeQuery
from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.row import StoredGap, StoredTrade
from vegamite_api.ports import HistoryStore
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros


async def market_key(store: HistoryStore, market: Market) -> int:
    """Return the number of a market; raise `RefusedError` where it has no row."""
    known = await store.find_markets([market])
    if market not in known:
        raise RefusedError(
            "unknown_market",
            f"unknown market: {market.key!r}",
            parameter="market",
            allowed="markets of GET /v1/markets",
        )
    return known[market].market_key


async def candle_page(
    store: HistoryStore, query: CandleQuery
) -> tuple[Sequence[AnyCandle], str | None]:
    """Return the candles of one page in the asked order, and the cursor of the next one, None where this is the last."""
    key = await market_key(store, query.market)
    descending = query.sort == "desc" or query.newest
    range_ = _beyond(query.range, query.after, descending=descending)
    if query.fill is not None:
        rows = await _filled(store, key, query, query.fill, range_, descending=descending)
    else:
        rows = await store.candles(
            key,
            query.timeframe,
            range_,
            limit=query.limit + 1,
            descending=descending,
            final_only=not query.partial,
        )
    page, more = list(rows[: query.limit]), len(rows) > query.limit
    cursor = None
    if query.newest:
        page.reverse()
    elif more:
        cursor = encode_instant_cursor(query.question, page[-1].open_time)
    if not query.partial:
        page = [row for row in page if not isinstance(row, Candle) or row.final]
    return page, cursor


def _beyond(range_: Range, after: Micros | None, *, descending: bool) -> Range:
    if after is None:
        return range_
    if descending:
        return Range(range_.start, min(range_.high, after))
    return Range(max(range_.low, after + 1), range_.end)


async def _filled(
    store: HistoryStore,
    key: int,
    query: CandleQuery,
    mode: FillMode,
    range_: Range,
    *,
    descending: bool,
) -> Sequence[AnyCandle]:
    """Return up to limit + 1 rows, synthetic ones among them; candles not final are among the stored ones, never filled over."""
    limit = query.limit + 1
    # Coverage first: a candle that comes later only replaces what would have been synthetic.
    spans = await store.coverage(key)
    rows = await store.candles(key, query.timeframe, range_, limit=limit, descending=descending)
    before = None
    if mode == "prev" and range_.low > 0:
        earlier = await store.candles(
            key, query.timeframe, Range(None, range_.low), limit=1, descending=True
        )
        before = earlier[0] if earlier else None
    return fill(
        rows,
        spans=spans,
        timeframe=query.timeframe,
        start=range_.low,
        end=range_.high,
        mode=mode,
        limit=limit,
        descending=descending,
        before=before,
    )


async def trade_page(
    store: HistoryStore, query: TradeQuery
) -> tuple[list[StoredTrade], str | None]:
    """Return the trades of one page in the asked order, and the cursor of the next one, None where this is the last."""
    key = await market_key(store, query.market)
    descending = query.sort == "desc" or query.newest
    rows = await store.trades(
        key, query.range, after=query.after, limit=query.limit + 1, descending=descending
    )
    page, more = rows[: query.limit], len(rows) > query.limit
    if query.newest:
        page.reverse()
        return page, None
    return page, encode_trade_cursor(query.question, page[-1].trade.order) if more else None


async def gap_page(store: HistoryStore, query: SpanQuery) -> tuple[list[StoredGap], str | None]:
    """Return one page of the gaps that overlap the range, by their beginning, and the cursor of the next."""
    key = await market_key(store, query.market)
    rows = await store.gaps(key, query.range, after=query.after, limit=query.limit + 1)
    page, more = rows[: query.limit], len(rows) > query.limit
    cursor = encode_instant_cursor(query.question, page[-1].gap.from_time) if more else None
    return page, cursor


async def coverage_page(store: HistoryStore, query: SpanQuery) -> tuple[list[Span], str | None]:
    """Return one page of the covered spans, cut to the range, and the cursor of the next."""
    key = await market_key(store, query.market)
    spans = list((await store.coverage(key)).within(query.range.low, query.range.high))
    if query.after is not None:
        spans = [span for span in spans if span.from_time > query.after]
    page, more = spans[: query.limit], len(spans) > query.limit
    cursor = encode_instant_cursor(query.question, page[-1].from_time) if more else None
    return page, cursor
