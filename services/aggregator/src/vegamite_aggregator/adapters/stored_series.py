"""What is stored of a market, read from its beginning to its end in one snapshot: for whoever compares, and writes nothing.

Each series has a cursor of its own inside one read-only transaction, so no page waits for another's, and memory holds
pages only. Instants come as numbers (`tuple` codec): a `datetime` for each would cost as much as all the rest of a row.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from vegamite_aggregator.adapters.fence import store_faults
from vegamite_aggregator.adapters.row import Connection, contract_of, span_row
from vegamite_aggregator.adapters.time_partition import candle_table
from vegamite_aggregator.core.tally import Tally
from vegamite_aggregator.core.verification import Scope, StoredState
from vegamite_aggregator.ports import ImpossibleTrade, StoreError, TradePage
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import DAY, Micros, from_datetime
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import InvalidTradeError, Trade

READ_SECONDS = 600.0
"""How long one page may take: its first one may have to sort a day."""

_SINCE_2000: Micros = 946_684_800_000_000  # what PostgreSQL counts from

_MARKET = (
    "SELECT market_key, contract_size, inverse FROM market WHERE exchange = $1 AND symbol = $2"
)
_MARKETS = """
    SELECT exchange, symbol FROM market WHERE market_key IN (
        SELECT market_key FROM tracked_market
        UNION SELECT market_key FROM coverage_span
        UNION SELECT market_key FROM job
        UNION SELECT market_key FROM candle_1d
        UNION SELECT market_key FROM candle_1mo)
    ORDER BY exchange, symbol
"""
_SPANS = """
    SELECT from_time, to_time, end_cause FROM coverage_span WHERE market_key = $1 ORDER BY from_time
"""
_HORIZONS = "SELECT series, horizon_time FROM horizon WHERE market_key = $1"
_TRADES = """
    SELECT trade_id, sequence, event_time, price, amount, taker_side FROM trade
    WHERE market_key = $1 AND event_time >= $2 AND event_time < $3 ORDER BY event_time, trade_id
"""
_TALLY = ", ".join(Tally.__struct_fields__)
_CANDLES = {
    timeframe: f"""
        SELECT open_time, {_TALLY}, final, complete, revision, held_by IS NOT NULL FROM {candle_table(timeframe)}
        WHERE market_key = $1 AND timeframe = '{timeframe.value}' AND open_time >= $2 AND open_time < $3
        ORDER BY open_time
    """
    for timeframe in Timeframe
}
_EXTENT = " UNION ALL ".join(
    f"(SELECT {column} AS at FROM {table} WHERE market_key = $1{of} ORDER BY {column} {order} LIMIT 1)"
    for table, column, of in (
        ("trade", "event_time", ""),
        *(
            (candle_table(timeframe), "open_time", f" AND timeframe = '{timeframe.value}'")
            for timeframe in Timeframe
        ),
    )
    for order in ("ASC", "DESC")
)


class PostgresStoredSeries:
    """`StoredSeries` over a pool of asyncpg."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def markets(self) -> list[Market]:
        """Return the markets that anything is stored of; see `StoredSeries`."""
        async with store_faults():
            rows = await self._pool.fetch(_MARKETS)
        return [Market(row["exchange"], row["symbol"]) for row in rows]

    async def known(self, market: Market) -> bool:
        """Return whether the market has a row; see `StoredSeries`."""
        async with store_faults():
            return await self._pool.fetchrow(_MARKET, market.exchange, market.symbol) is not None

    async def extent(self, market: Market) -> tuple[Micros, Micros] | None:
        """Return the days that anything is stored of; see `StoredSeries`."""
        async with store_faults():
            row = await self._pool.fetchrow(_MARKET, market.exchange, market.symbol)
            if row is None:
                return None
            found = await self._pool.fetch(_EXTENT, row["market_key"], timeout=READ_SECONDS)
        instants = [from_datetime(each["at"]) for each in found]
        if not instants:
            return None
        begin, last = min(instants), max(instants)
        return begin - begin % DAY, last - last % DAY + DAY

    @asynccontextmanager
    async def read(self, market: Market, scope: Scope) -> AsyncIterator["PostgresMarketSeries"]:
        """Open one snapshot of the market; see `StoredSeries`."""
        async with (
            store_faults(),
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(_MARKET, market.exchange, market.symbol)
            if row is None:
                raise StoreError(f"there is no market {market.key}")
            spans = await connection.fetch(_SPANS, row["market_key"])
            horizons = await connection.fetch(_HORIZONS, row["market_key"])
            await _instants_as_numbers(connection)
            try:
                yield PostgresMarketSeries(
                    connection,
                    _with_horizons(scope, horizons),
                    market_key=row["market_key"],
                    contract=contract_of(dict(row)),
                    coverage=_coverage(spans),
                )
            finally:
                if not connection.is_closed():
                    await connection.reset_type_codec("timestamptz", schema="pg_catalog")


class PostgresMarketSeries:
    """`MarketSeries` over cursors of one connection, inside its transaction."""

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        *,
        market_key: int,
        contract: Contract | None,
        coverage: SpanSet,
    ) -> None:
        self.contract = contract
        self.coverage = coverage
        self._connection = connection
        self.scope = scope
        self._market_key = market_key
        self._trades: Any = None
        self._candles: dict[Timeframe, Any] = {}

    async def trades(self, limit: int) -> TradePage:
        """Return the next trades; see `MarketSeries`."""
        if self._trades is None:
            begin = max(self.scope.from_time, self.scope.trades_from)
            self._trades = await self._open(_TRADES, begin, max(begin, self.scope.to_time))
        rows = await self._trades.fetch(limit, timeout=READ_SECONDS)
        impossible: list[ImpossibleTrade] = []
        try:
            trades = [
                Trade(trade_id, sequence, at[0] + _SINCE_2000, price, amount, side)
                for trade_id, sequence, at, price, amount, side in rows
            ]
        except InvalidTradeError:
            trades = _possible(rows, impossible)
        return TradePage(trades=trades, impossible=impossible, rest=len(rows) == limit)

    async def candles(self, timeframe: Timeframe, limit: int) -> Sequence[StoredState]:
        """Return the timeframe's next candles; see `MarketSeries`."""
        cursor = self._candles.get(timeframe)
        if cursor is None:
            begin, end = self.scope.read_from(timeframe), self.scope.read_to(timeframe)
            cursor = await self._open(_CANDLES[timeframe], begin, end)
            self._candles[timeframe] = cursor
        return list(map(_stored_state, await cursor.fetch(limit, timeout=READ_SECONDS)))

    async def _open(self, query: str, begin: Micros, end: Micros) -> Any:
        return await self._connection.cursor(
            query,
            self._market_key,
            (begin - _SINCE_2000,),
            (end - _SINCE_2000,),
            timeout=READ_SECONDS,
        )


async def _instants_as_numbers(connection: Connection) -> None:
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda value: value,
        decoder=lambda value: value,
    )


def _coverage(spans: Sequence[Any]) -> SpanSet:
    rows = map(span_row, spans)
    return SpanSet(Span(row.from_time, row.to_time) for row in rows)


def _with_horizons(scope: Scope, rows: Sequence[Any]) -> Scope:
    horizons = {row["series"]: from_datetime(row["horizon_time"]) for row in rows}
    return msgspec.structs.replace(
        scope,
        trades_from=horizons.get("trade", 0),
        candles_from={tf: horizons[tf.value] for tf in Timeframe if tf.value in horizons},
    )


def _possible(rows: Sequence[Any], impossible: list[ImpossibleTrade]) -> list[Trade]:
    """Return the trades of the rows that are some, and add the others to `impossible`."""
    trades: list[Trade] = []
    for trade_id, sequence, at, price, amount, side in rows:
        try:
            trades.append(Trade(trade_id, sequence, at[0] + _SINCE_2000, price, amount, side))
        except InvalidTradeError as error:
            impossible.append(ImpossibleTrade(at[0] + _SINCE_2000, trade_id, str(error)))
    return trades


def _stored_state(row: Any) -> StoredState:
    (
        open_time,
        open_,
        high,
        low,
        close,
        volume,
        quote_volume,
        buy_volume,
        buy_quote_volume,
        trade_count,
        first_time,
        first_sequence,
        first_id,
        last_time,
        last_sequence,
        last_id,
        final,
        complete,
        revision,
        held,
    ) = row
    tally = Tally(
        open_,
        high,
        low,
        close,
        volume,
        quote_volume,
        buy_volume,
        buy_quote_volume,
        trade_count,
        first_time[0] + _SINCE_2000,
        first_sequence,
        first_id,
        last_time[0] + _SINCE_2000,
        last_sequence,
        last_id,
    )
    return StoredState(open_time[0] + _SINCE_2000, tally, final, complete, revision, held)
