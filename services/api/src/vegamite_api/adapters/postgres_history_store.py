"""Stored trades, candles, coverage and gaps, read from PostgreSQL."""

from collections.abc import Mapping, Sequence

import asyncpg

from vegamite_api.adapters.postgres_store import Connection, Pool, at, connection, micros
from vegamite_api.core.query import Range
from vegamite_api.core.row import KnownMarket, StoredGap, StoredTrade
from vegamite_api.ports import CandleSnapshot, TradeSnapshot
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import Gap, GapState, Span, SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade, TradeOrder

_CANDLE = """
    SELECT timeframe, open_time, open, high, low, close, volume, quote_volume, buy_volume, buy_quote_volume,
           trade_count, first_event_time, first_sequence, first_trade_id,
           last_event_time, last_sequence, last_trade_id, final, complete, revision, epoch, as_of, updated_at
      FROM candle WHERE market_key = $1 AND timeframe = $2
"""
_TRADE = """
    SELECT trade_id, sequence, event_time, price, amount, taker_side, received_time FROM trade WHERE market_key = $1
"""
_ORDER = {
    False: "event_time, sequence, trade_id",
    True: "event_time DESC, sequence DESC, trade_id DESC",
}


def _candle(row: asyncpg.Record) -> Candle:
    return Candle(
        timeframe=Timeframe(row["timeframe"]),
        open_time=micros(row["open_time"]),
        open=row["open"],
        high=row["high"],
        low=row["low"],
        close=row["close"],
        volume=row["volume"],
        quote_volume=row["quote_volume"],
        buy_volume=row["buy_volume"],
        buy_quote_volume=row["buy_quote_volume"],
        trade_count=row["trade_count"],
        first_event_time=micros(row["first_event_time"]),
        first_sequence=row["first_sequence"],
        first_trade_id=row["first_trade_id"],
        last_event_time=micros(row["last_event_time"]),
        last_sequence=row["last_sequence"],
        last_trade_id=row["last_trade_id"],
        epoch=row["epoch"],
        as_of=row["as_of"],
        updated_at=micros(row["updated_at"]),
        final=row["final"],
        complete=row["complete"],
        revision=row["revision"],
    )


def _trade(row: asyncpg.Record) -> StoredTrade:
    trade = Trade(
        trade_id=row["trade_id"],
        sequence=row["sequence"],
        event_time=micros(row["event_time"]),
        price=row["price"],
        amount=row["amount"],
        taker_side=row["taker_side"],
    )
    return StoredTrade(trade, micros(row["received_time"]))


class PostgresHistoryStore:
    """`HistoryStore` over a pool, which stays its owner's to close."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[Market, KnownMarket] = {}

    async def find_markets(self, markets: Sequence[Market]) -> dict[Market, KnownMarket]:
        """Return those of the markets that have a row; a market's number never changes, so it is remembered."""
        missing = [market for market in markets if market not in self._known]
        if missing:
            async with connection(self._pool) as lent:
                rows = await lent.fetch(
                    """
                    SELECT market_key, exchange, symbol FROM market
                      JOIN unnest($1::text[], $2::text[]) AS asked (exchange, symbol) USING (exchange, symbol)
                    """,
                    [market.exchange for market in missing],
                    [market.symbol for market in missing],
                )
            for row in rows:
                market = Market(row["exchange"], row["symbol"])
                self._known[market] = KnownMarket(market, row["market_key"])
        return {market: self._known[market] for market in markets if market in self._known}

    async def candles(
        self,
        market_key: int,
        timeframe: Timeframe,
        range_: Range,
        *,
        limit: int,
        descending: bool,
        final_only: bool = False,
    ) -> list[Candle]:
        """Return the first `limit` candles that open in the range, in the asked order; all, or the final ones."""
        async with connection(self._pool) as lent:
            return await _candles(
                lent,
                market_key,
                timeframe,
                range_,
                limit=limit,
                descending=descending,
                final_only=final_only,
            )

    async def latest_candles(self, market_key: int, timeframe: Timeframe) -> list[Candle]:
        """Return the newest final candle and those after it that are not final, ascending."""
        async with connection(self._pool) as lent:
            newest = await _candles(
                lent, market_key, timeframe, Range(None, None), limit=1, descending=True
            )
            if newest and newest[0].final:
                return newest
            rows = await lent.fetch(
                f"""
                WITH last_final AS (
                    SELECT max(open_time) AS open_time FROM candle
                     WHERE market_key = $1 AND timeframe = $2 AND final
                )
                {_CANDLE} AND open_time >= coalesce((SELECT open_time FROM last_final), '-infinity')
                ORDER BY open_time DESC LIMIT 1000
                """,
                market_key,
                timeframe.value,
            )
        return [_candle(row) for row in reversed(rows)]

    async def trades(
        self,
        market_key: int,
        range_: Range,
        *,
        after: TradeOrder | None,
        limit: int,
        descending: bool,
    ) -> list[StoredTrade]:
        """Return the first `limit` trades of the range beyond the place `after`, in the asked direction of the total order."""
        async with connection(self._pool) as lent:
            return await _trades(
                lent, market_key, range_, after=after, limit=limit, descending=descending
            )

    async def coverage(self, market_key: int) -> SpanSet:
        """Return all that is covered, open spans included."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(
                """
                SELECT from_time, to_time FROM coverage_span WHERE market_key = $1
                UNION ALL
                SELECT from_time, to_time FROM open_span WHERE market_key = $1 AND from_time < to_time
                """,
                market_key,
            )
        return SpanSet(Span(micros(row["from_time"]), micros(row["to_time"])) for row in rows)

    async def gaps(
        self, market_key: int, range_: Range, *, after: Micros | None, limit: int
    ) -> list[StoredGap]:
        """Return the first `limit` gaps that overlap the range and begin after `after`, by their beginning."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(
                """
                SELECT from_time, to_time, cause, state, reason, recovered, opened_time, closed_time
                  FROM gap
                 WHERE market_key = $1 AND to_time > $2 AND from_time < $3
                   AND ($4::timestamptz IS NULL OR from_time > $4)
                 ORDER BY from_time LIMIT $5
                """,
                market_key,
                at(range_.low),
                at(range_.high),
                None if after is None else at(after),
                limit,
            )
        return [_gap(row) for row in rows]

    async def candle_snapshots(
        self, markets: Mapping[int, int], timeframe: Timeframe, limit: int
    ) -> dict[int, CandleSnapshot]:
        """Return the newest `limit` candles of each market key, read with the fence of its partition in one snapshot."""
        snapshots = {}
        async with (
            connection(self._pool) as lent,
            lent.transaction(isolation="repeatable_read", readonly=True),
        ):
            fences = await _fences(lent, markets)
            for market_key, partition in markets.items():
                rows = await _candles(
                    lent, market_key, timeframe, Range(None, None), limit=limit, descending=True
                )
                rows.reverse()
                snapshots[market_key] = CandleSnapshot(rows, *fences[partition])
        return snapshots

    async def trade_snapshots(
        self, markets: Mapping[int, int], limit: int
    ) -> dict[int, TradeSnapshot]:
        """Return the newest `limit` trades of each market key, read with the fence of its partition in one snapshot."""
        snapshots = {}
        async with (
            connection(self._pool) as lent,
            lent.transaction(isolation="repeatable_read", readonly=True),
        ):
            fences = await _fences(lent, markets)
            for market_key, partition in markets.items():
                rows = await _trades(
                    lent, market_key, Range(None, None), after=None, limit=limit, descending=True
                )
                rows.reverse()
                snapshots[market_key] = TradeSnapshot(rows, *fences[partition])
        return snapshots

    async def log_epoch(self) -> int | None:
        """Return the current epoch of the log; None before there is one."""
        async with connection(self._pool) as lent:
            epoch: int | None = await lent.fetchval("SELECT max(epoch) FROM log_epoch")
        return epoch


async def _candles(
    lent: Connection,
    market_key: int,
    timeframe: Timeframe,
    range_: Range,
    *,
    limit: int,
    descending: bool,
    final_only: bool = False,
) -> list[Candle]:
    order = "DESC" if descending else "ASC"
    which = "AND final" if final_only else ""
    rows = await lent.fetch(
        f"{_CANDLE} AND open_time >= $3 AND open_time < $4 {which} ORDER BY open_time {order} LIMIT $5",
        market_key,
        timeframe.value,
        at(range_.low),
        at(range_.high),
        limit,
    )
    return [_candle(row) for row in rows]


async def _trades(
    lent: Connection,
    market_key: int,
    range_: Range,
    *,
    after: TradeOrder | None,
    limit: int,
    descending: bool,
) -> list[StoredTrade]:
    arguments: list[object] = [market_key, at(range_.low), at(range_.high), limit]
    beyond = ""
    if after is not None:
        event_time, sequence, trade_id = after
        arguments += [at(event_time), sequence, trade_id.decode()]
        sign = "<" if descending else ">"
        # The bare comparison of event_time is what prunes partitions and bounds the index scan.
        beyond = (
            f"AND event_time {sign}= $5 AND (event_time, sequence, trade_id) {sign} ($5, $6, $7)"
        )
    rows = await lent.fetch(
        f"{_TRADE} AND event_time >= $2 AND event_time < $3 {beyond} ORDER BY {_ORDER[descending]} LIMIT $4",
        *arguments,
    )
    return [_trade(row) for row in rows]


async def _fences(lent: Connection, markets: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Return (epoch, next offset) of the partitions; one that nobody has read yet stands before the log's first record."""
    epoch = await lent.fetchval("SELECT coalesce(max(epoch), 0) FROM log_epoch")
    rows = await lent.fetch(
        "SELECT partition, epoch, next_offset FROM partition_fence WHERE partition = ANY($1::int[])",
        sorted(set(markets.values())),
    )
    fences = {row["partition"]: (row["epoch"], row["next_offset"]) for row in rows}
    return {partition: fences.get(partition, (epoch, 0)) for partition in markets.values()}


def _gap(row: asyncpg.Record) -> StoredGap:
    gap = Gap(
        from_time=micros(row["from_time"]),
        to_time=micros(row["to_time"]),
        cause=row["cause"],
        state=GapState(row["state"]),
        reason=row["reason"],
        recovered=row["recovered"],
    )
    closed = row["closed_time"]
    return StoredGap(gap, micros(row["opened_time"]), None if closed is None else micros(closed))
