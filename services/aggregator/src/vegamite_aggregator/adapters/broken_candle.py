"""Stored candles that no trades can give, as a hand in the database makes them: what they should say, from what is stored.

None of them may end the process: it would meet the same row at its next start.
"""

from collections.abc import Set
from typing import Any

import structlog

from vegamite_aggregator.adapters.candle_table import candles_within, delete_candle
from vegamite_aggregator.adapters.row import Connection, stand_in, stored_candle
from vegamite_aggregator.adapters.trade_table import stored_trades
from vegamite_aggregator.core.facts import TradeKey
from vegamite_aggregator.core.fold import TradeFold
from vegamite_aggregator.core.rows import StoredCandle
from vegamite_aggregator.core.tally import (
    Standing,
    Tally,
    candle_of,
    exactly,
    merge_all,
    tally_of,
)
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros, from_datetime
from vegamite_common.domain.timeframe import Timeframe

IMPOSSIBLE = (ValueError, ArithmeticError)
"""What `stored_candle` raises for a row that no trades can give."""

log = structlog.get_logger(__name__)


class CandleMender:
    """Reads anew what broken candles of one market should say, inside the transaction that met them.

    Trades before `trades_from` have expired; `new` were inserted in this transaction and are still to be counted.
    """

    def __init__(
        self,
        connection: Connection,
        market: Market,
        *,
        market_key: int,
        contract: Contract | None,
        trades_from: Micros,
        new: Set[TradeKey],
    ) -> None:
        self._connection = connection
        self._market = market
        self._market_key = market_key
        self._contract = contract
        self._trades_from = trades_from
        self._new = new

    async def mend(self, row: Any) -> StoredCandle | None:
        """Return the candle with the content of its trades, or of its parts where those have expired, and its own standing.

        None where it can't be: the row is deleted where no candle can open or no trade is stored, and left as it is where
        all that it was made of has expired.
        """
        timeframe, open_time = Timeframe(row["timeframe"]), from_datetime(row["open_time"])
        log.warning(
            "a stored candle that no trades can give",
            market=self._market.key,
            timeframe=timeframe.value,
            open_time=row["open_time"].isoformat(),
        )
        if not has_place(row):
            await delete_candle(self._connection, row)
            return None
        stored = stand_in(row)
        candle = stored.candle
        expired = open_time < self._trades_from
        tally = await (self._parts(candle) if expired else self._trades(candle))
        if tally is None:
            if not expired:
                await delete_candle(self._connection, row)
            return None
        standing = Standing(
            epoch=candle.epoch,
            as_of=candle.as_of,
            updated_at=candle.updated_at,
            final=candle.final,
            complete=candle.complete,
            revision=candle.revision,
        )
        with exactly():
            content = candle_of(timeframe, open_time, tally, standing)
        return StoredCandle(content, stored.held_by, stored.pending)

    async def _trades(self, candle: Candle) -> Tally | None:
        fold = TradeFold(self._contract)
        async for page in stored_trades(
            self._connection,
            market_key=self._market_key,
            from_time=candle.open_time,
            to_time=candle.close_time,
        ):
            fold.add(
                trade
                for trade in page
                if (self._market, trade.event_time, trade.trade_id) not in self._new
            )
        return fold.total()[candle.timeframe].get(candle.open_time)

    async def _parts(self, candle: Candle) -> Tally | None:
        if candle.timeframe.source is None:
            return None
        rows = await candles_within(
            self._connection,
            self._market_key,
            candle.timeframe.source,
            from_time=candle.open_time,
            to_time=candle.close_time,
        )
        with exactly():
            try:
                parts = [tally_of(stored_candle(row).candle) for row in rows]
            except IMPOSSIBLE:
                return None
            return merge_all(parts) if parts else None


def has_place(row: Any) -> bool:
    """Whether a candle of the row's timeframe can open where it says."""
    open_time = from_datetime(row["open_time"])
    return open_time >= 0 and Timeframe(row["timeframe"]).open_time(open_time) == open_time
