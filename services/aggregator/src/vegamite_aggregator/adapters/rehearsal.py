"""What a maintenance would do to tables and rows, found out by reading alone."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.adapters.time_partition import (
    candle_table,
    partitions_of_day,
    tables_before,
)
from vegamite_aggregator.ports import ExpiredCandles
from vegamite_common.domain.time import DAY, Micros, to_datetime
from vegamite_common.domain.timeframe import Timeframe

_ATTACHED = "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
_MARKETS = {
    timeframe: f"""
        SELECT market_key FROM market WHERE EXISTS (
            SELECT FROM {candle_table(timeframe)} c WHERE c.market_key = market.market_key
                AND c.timeframe = '{timeframe.value}' AND c.open_time >= $1 AND c.open_time < $2)
    """
    for timeframe in Timeframe
}
_ROWS = {
    timeframe: f"""
        SELECT count(*) FROM {candle_table(timeframe)} c
        JOIN unnest($1::int[], $2::timestamptz[]) AS due (market_key, until) USING (market_key)
        WHERE c.timeframe = '{timeframe.value}' AND c.open_time < due.until AND NOT EXISTS (
            SELECT FROM unnest($3::timestamptz[], $4::timestamptz[]) AS gone (begin_time, end_time)
            WHERE c.open_time >= begin_time AND c.open_time < end_time)
    """
    for timeframe in Timeframe
}
_RESTORING = "SELECT market_key, restores_from, restores_to FROM job WHERE state = 'open' AND restores_from IS NOT NULL"


async def missing_tables(connection: Connection, event_times: Iterable[Micros]) -> list[str]:
    """Return the names of the time partitions that trades of these times and their candles lack."""
    there = {row["relname"] for row in await connection.fetch(_ATTACHED)}
    days = sorted({at // DAY for at in event_times})
    wanted = dict.fromkeys(table.name for day in days for table in partitions_of_day(day))
    return [name for name in wanted if name not in there]


async def expired_candles(
    connection: Connection, timeframe: Timeframe, *, cutoff: Micros, until: Mapping[int, datetime]
) -> ExpiredCandles:
    """Return what would go of a timeframe, were the markets' horizons (by number) `until`: as `drop_time_partition` decides."""
    restoring = await connection.fetch(_RESTORING)
    end_of_all = to_datetime(timeframe.open_time(cutoff))
    gone: list[tuple[str, datetime, datetime]] = []
    for name, begin, end in await tables_before(
        connection, candle_table(timeframe), before=end_of_all
    ):
        markets = [
            row["market_key"] for row in await connection.fetch(_MARKETS[timeframe], begin, end)
        ]
        expired = {market_key for market_key, at in until.items() if at >= end}
        wanted = any(row["restores_from"] < end and row["restores_to"] > begin for row in restoring)
        if expired and expired.issuperset(markets) and not wanted:
            gone.append((name, begin, end))
    held = {row["market_key"] for row in restoring}
    due = {market_key: min(at, end_of_all) for market_key, at in until.items()}
    rows: int = await connection.fetchval(
        _ROWS[timeframe],
        [market_key for market_key in due if market_key not in held],
        [at for market_key, at in due.items() if market_key not in held],
        [begin for _, begin, _ in gone],
        [end for _, _, end in gone],
    )
    return ExpiredCandles(tables=tuple(name for name, _, _ in gone), rows=rows)
