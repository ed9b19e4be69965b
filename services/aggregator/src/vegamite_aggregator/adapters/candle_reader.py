"""Candles as the system of record has them, read in pages: for the sink, which writes nothing there."""

from typing import Any

import asyncpg

from vegamite_aggregator.adapters.fence import store_faults
from vegamite_aggregator.adapters.row import CANDLE_COLUMNS, stored_candle
from vegamite_aggregator.adapters.time_partition import candle_table
from vegamite_aggregator.core.horizon import NOTHING_EXPIRED
from vegamite_aggregator.ports import CandlePage, StoreError
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe

_COLUMNS = ", ".join(f"c.{name}" for name in CANDLE_COLUMNS)
_PAGE = {
    timeframe: f"""
        SELECT {_COLUMNS} FROM {candle_table(timeframe)} c
        JOIN market USING (market_key)
        WHERE exchange = $1 AND symbol = $2 AND c.timeframe = '{timeframe.value}'
            AND open_time >= $3 AND open_time < $4
        ORDER BY open_time LIMIT $5
    """
    for timeframe in Timeframe
}
_HORIZON = """
    SELECT horizon_time FROM horizon JOIN market USING (market_key)
    WHERE exchange = $1 AND symbol = $2 AND series = $3
"""


class PostgresCandleReader:
    """`CandleReader` over a pool of asyncpg whose user may read `market`, `candle` and `horizon`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def page(
        self,
        market: Market,
        timeframe: Timeframe,
        *,
        from_time: Micros,
        to_time: Micros,
        limit: int,
    ) -> CandlePage:
        """Return the first candles of the range; see `CandleReader`."""
        rows = await self._fetch(
            _PAGE[timeframe], market, to_datetime(from_time), to_datetime(to_time), limit
        )
        candles: list[Candle] = []
        for row in rows:
            try:
                candles.append(stored_candle(row).candle)
            except (ValueError, ArithmeticError):
                continue  # no candle at all: there are trades that decide what is to be there, and a rebuild tells it
        whole = len(rows) < limit
        return CandlePage(
            candles=tuple(candles),
            to_time=to_time if whole else from_datetime(rows[-1]["open_time"]) + 1,
        )

    async def expired_before(self, market: Market, timeframe: Timeframe) -> Micros:
        """Return before which open time candles have expired; see `CandleReader`."""
        rows = await self._fetch(_HORIZON, market, timeframe.value)
        return (
            from_datetime(rows[0]["horizon_time"])
            if rows
            else NOTHING_EXPIRED.of_candles(timeframe)
        )

    async def _fetch(self, query: str, market: Market, *arguments: object) -> list[Any]:
        try:
            async with store_faults():
                rows: list[Any] = await self._pool.fetch(
                    query, market.exchange, market.symbol, *arguments
                )
        except asyncpg.InsufficientPrivilegeError as error:
            raise StoreError(str(error)) from error
        return rows
