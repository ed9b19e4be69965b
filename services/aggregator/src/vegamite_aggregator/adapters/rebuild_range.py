"""What a rebuild reads: the rows that it concerns, even those that no trades can give, and the trades to compute them from.

Whoever asks for a rebuild has wrong rows. None of them may end the process, or the record that was to mend them would.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import structlog

from vegamite_aggregator.adapters.candle_table import (
    candles_within,
    delete_candle,
    rebuild_candles,
)
from vegamite_aggregator.adapters.row import Connection, stand_in, stored_candle
from vegamite_aggregator.adapters.trade_table import stored_trades
from vegamite_aggregator.core.demand import RebuildRange
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
from vegamite_common.domain.market import Contract
from vegamite_common.domain.time import Micros, from_datetime
from vegamite_common.domain.timeframe import Timeframe

log = structlog.get_logger(__name__)


class RebuildReader:
    """Reads for rebuilds of one market, inside the transaction that carries them out."""

    def __init__(
        self,
        connection: Connection,
        *,
        market_key: int,
        contract: Contract | None,
        trades_from: Micros,
    ) -> None:
        """Read by `connection`; trades before `trades_from` have expired."""
        self._trades_from = trades_from
        self._connection = connection
        self._market_key = market_key
        self._contract = contract

    async def fold(self, wanted: RebuildRange) -> TradeFold:
        """Return all stored trades of the range, added up."""
        return await self._fold(wanted.from_time, wanted.to_time)

    async def candles(self, wanted: RebuildRange) -> list[StoredCandle]:
        """Return every stored candle that the rebuild concerns.

        One that no trades can give is there with its standing alone, since its content is about to be computed; of a day
        beside the range the content comes from its trades, or its halves. One that opens where none can is deleted.
        """
        rows = await rebuild_candles(self._connection, wanted, self._market_key)
        found: list[StoredCandle] = []
        broken: list[Any] = []
        for row in rows:
            try:
                found.append(stored_candle(row))
            except (ValueError, ArithmeticError):
                broken.append(row)
        if broken:
            log.warning(
                "stored candles that no trades can give",
                market=wanted.market.key,
                count=len(broken),
            )
        return [*found, *[one async for one in self._mended(broken, wanted)]]

    async def _mended(
        self, rows: Iterable[Any], wanted: RebuildRange
    ) -> AsyncIterator[StoredCandle]:
        for row in rows:
            timeframe, open_time = Timeframe(row["timeframe"]), from_datetime(row["open_time"])
            if open_time < 0 or timeframe.open_time(open_time) != open_time:
                await delete_candle(self._connection, row)
                continue
            beside = (
                timeframe is Timeframe.D1 and not wanted.from_time <= open_time < wanted.to_time
            )
            standing = stand_in(row)
            if not beside:
                yield standing
            elif (day := await self._day(standing)) is not None:
                yield day

    async def _day(self, stored: StoredCandle) -> StoredCandle | None:
        candle = stored.candle
        if candle.open_time >= self._trades_from:
            fold = await self._fold(candle.open_time, candle.close_time)
            tally = fold.total()[Timeframe.D1].get(candle.open_time)
        else:
            tally = await self._halves(candle)
        if tally is None:
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
            content = candle_of(Timeframe.D1, candle.open_time, tally, standing)
        return StoredCandle(content, stored.held_by, stored.pending)

    async def _halves(self, day: Candle) -> Tally | None:
        """Return what the day's two halves add up to: what is left where its trades have expired."""
        rows = await candles_within(
            self._connection,
            self._market_key,
            Timeframe.H12,
            from_time=day.open_time,
            to_time=day.close_time,
        )
        with exactly():
            halves = [tally_of(stored_candle(row).candle) for row in rows]
            return merge_all(halves) if halves else None

    async def _fold(self, from_time: Micros, to_time: Micros) -> TradeFold:
        fold = TradeFold(self._contract)
        async for page in stored_trades(
            self._connection, market_key=self._market_key, from_time=from_time, to_time=to_time
        ):
            fold.add(page)
        return fold
