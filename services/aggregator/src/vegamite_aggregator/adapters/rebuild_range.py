"""What a rebuild reads: the rows that it concerns, even those that no trades can give, and the trades to compute them from."""

from vegamite_aggregator.adapters.broken_candle import IMPOSSIBLE, CandleMender, has_place
from vegamite_aggregator.adapters.candle_table import delete_candle, rebuild_candles
from vegamite_aggregator.adapters.row import Connection, stand_in, stored_candle
from vegamite_aggregator.adapters.trade_table import stored_trades
from vegamite_aggregator.core.demand import RebuildRange
from vegamite_aggregator.core.fold import TradeFold
from vegamite_aggregator.core.rows import StoredCandle
from vegamite_common.domain.market import Contract
from vegamite_common.domain.time import Micros, from_datetime
from vegamite_common.domain.timeframe import Timeframe


async def fold_range(
    connection: Connection, wanted: RebuildRange, *, market_key: int, contract: Contract | None
) -> TradeFold:
    """Return all stored trades of the range, added up."""
    fold = TradeFold(contract)
    async for page in stored_trades(
        connection, market_key=market_key, from_time=wanted.from_time, to_time=wanted.to_time
    ):
        fold.add(page)
    return fold


async def candles_of_range(
    connection: Connection, wanted: RebuildRange, *, market_key: int, mender: CandleMender
) -> list[StoredCandle]:
    """Return every stored candle that the rebuild concerns.

    One that no trades can give is there with its standing alone, since its content is about to be computed; a day beside the
    range is mended. One that opens where none can is deleted.
    """
    found: list[StoredCandle] = []
    for row in await rebuild_candles(connection, wanted, market_key):
        try:
            found.append(stored_candle(row))
            continue
        except IMPOSSIBLE:
            pass
        if not has_place(row):
            await delete_candle(connection, row)
        elif _is_beside(wanted, Timeframe(row["timeframe"]), from_datetime(row["open_time"])):
            mended = await mender.mend(row)
            if mended is not None:
                found.append(mended)
        else:
            found.append(stand_in(row))
    return found


def _is_beside(wanted: RebuildRange, timeframe: Timeframe, open_time: Micros) -> bool:
    """Whether it is a day that only longer candles are made of."""
    return timeframe is Timeframe.D1 and not wanted.from_time <= open_time < wanted.to_time
