"""The table `candle`: absolute states, read by key, by range and by the jobs that hold them.

Reading goes to each timeframe's own table with the bounds of what is asked, so that the planner leaves out the other partitions.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from vegamite_aggregator.adapters.row import (
    CANDLE_COLUMNS,
    HELD_SEPARATOR,
    Connection,
    candle_values,
    stored_candle,
)
from vegamite_aggregator.adapters.time_partition import candle_table
from vegamite_aggregator.core.changes import MarketChanges
from vegamite_aggregator.core.demand import IncompleteRange, RebuildRange
from vegamite_aggregator.core.rows import CandleKey, StoredCandle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe

Candles = dict[Market, dict[CandleKey, StoredCandle]]

LOADED_OPEN = "NOT final AND held_by IS NULL"
"""What is always in memory: candles in progress that no job holds back."""

_COLUMNS = ", ".join(f"c.{name}" for name in CANDLE_COLUMNS)
_TYPES = {
    "market_key": "int",
    "timeframe": "text",
    "trade_count": "bigint",
    "first_sequence": "bigint",
    "last_sequence": "bigint",
    "first_trade_id": "text",
    "last_trade_id": "text",
    "final": "boolean",
    "complete": "boolean",
    "revision": "int",
    "epoch": "int",
    "as_of": "bigint",
    "held_by": "text",
    "pending_reason": "text",
}
_KEY = ("market_key", "timeframe", "open_time")


def _type(column: str) -> str:
    default = "timestamptz" if column.endswith(("_time", "_at")) else "numeric"
    return _TYPES.get(column, default)


_ARRAYS = ", ".join(
    f"${number}::{_type(name)}[]" for number, name in enumerate(CANDLE_COLUMNS, start=1)
)
_SELECTED = ", ".join(
    f"string_to_array({name}, E'{HELD_SEPARATOR}')" if name == "held_by" else name
    for name in CANDLE_COLUMNS
)
_UPSERT = f"""
    INSERT INTO candle ({", ".join(CANDLE_COLUMNS)})
    SELECT {_SELECTED} FROM unnest({_ARRAYS}) AS given ({", ".join(CANDLE_COLUMNS)})
    ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
        ({", ".join(name for name in CANDLE_COLUMNS if name not in _KEY)})
        = ({", ".join(f"excluded.{name}" for name in CANDLE_COLUMNS if name not in _KEY)})
"""
_UPSERT_ROWS = 500  # more at once would keep the loop busy with encoding

_BY_KEY = {
    timeframe: f"""
        SELECT {_COLUMNS} FROM unnest($1::int[], $2::timestamptz[]) AS wanted (market_key, open_time)
        JOIN {candle_table(timeframe)} c USING (market_key, open_time)
        WHERE c.timeframe = '{timeframe.value}' AND c.open_time BETWEEN $3 AND $4
    """
    for timeframe in Timeframe
}
_COLLECT_ROWS = 200
_IN_RANGE = {
    timeframe: f"""
        SELECT {_COLUMNS} FROM {candle_table(timeframe)} c
        WHERE market_key = $1 AND timeframe = '{timeframe.value}' AND open_time >= $2 AND open_time < $3
    """
    for timeframe in Timeframe
}
_INCOMPLETE = " AND final AND NOT complete AND held_by IS NULL"
_OPEN = f"SELECT {_COLUMNS} FROM candle c WHERE {LOADED_OPEN} AND market_key = ANY($1::int[])"
_HELD = f"SELECT {_COLUMNS} FROM candle c WHERE held_by && $1::text[] AND market_key = ANY($2::int[]) LIMIT $3"
_NEWEST = " UNION ALL ".join(
    f"""
        SELECT wanted.market_key, '{timeframe.value}' AS timeframe, (
            SELECT open_time FROM {candle_table(timeframe)} c
            WHERE c.market_key = wanted.market_key AND c.timeframe = '{timeframe.value}'
            ORDER BY open_time DESC LIMIT 1
        ) AS open_time FROM unnest($1::int[]) AS wanted (market_key)
    """
    for timeframe in Timeframe
)
_DELETE = """
    DELETE FROM candle c USING unnest($1::int[], $2::text[], $3::timestamptz[]) AS gone (market_key, timeframe, open_time)
    WHERE c.market_key = gone.market_key AND c.timeframe = gone.timeframe AND c.open_time = gone.open_time
        AND c.open_time BETWEEN $4 AND $5
"""


async def collect(candles: Candles, rows: Iterable[Any], markets: Mapping[int, Market]) -> None:
    """Add rows of `candle` to `candles`, letting others on the loop have their turn; the same row may come again."""
    for number, row in enumerate(rows, start=1):
        stored = stored_candle(row)
        candles.setdefault(markets[row["market_key"]], {})[stored.key] = stored
        if number % _COLLECT_ROWS == 0:
            await asyncio.sleep(0)


async def open_candles(connection: Connection, market_keys: Sequence[int]) -> Sequence[Any]:
    """Return the rows of these markets that are neither final nor held by a job."""
    return await connection.fetch(_OPEN, market_keys)


async def newest_open_times(
    connection: Connection, market_keys: Sequence[int]
) -> dict[int, dict[Timeframe, Micros]]:
    """Return, by market, the greatest stored open time of each timeframe that has a candle."""
    found: dict[int, dict[Timeframe, Micros]] = defaultdict(dict)
    for row in await connection.fetch(_NEWEST, market_keys):
        if row["open_time"] is not None:
            timeframe = Timeframe(row["timeframe"])
            found[row["market_key"]][timeframe] = from_datetime(row["open_time"])
    return found


async def candles_by_key(
    connection: Connection,
    wanted: Mapping[Market, Sequence[CandleKey]],
    keys: Mapping[Market, int],
) -> list[Any]:
    """Return the rows of the wanted candles that are stored."""
    columns: dict[Timeframe, tuple[list[int], list[Micros]]] = defaultdict(lambda: ([], []))
    for market, candle_keys in wanted.items():
        for timeframe, open_time in candle_keys:
            market_keys, open_times = columns[timeframe]
            market_keys.append(keys[market])
            open_times.append(open_time)
    rows: list[Any] = []
    for timeframe, (market_keys, open_times) in columns.items():
        rows += await connection.fetch(
            _BY_KEY[timeframe],
            market_keys,
            [to_datetime(open_time) for open_time in open_times],
            to_datetime(min(open_times)),
            to_datetime(max(open_times)),
        )
    return rows


async def incomplete_candles(
    connection: Connection, wanted: IncompleteRange, market_key: int
) -> Sequence[Any]:
    """Return the rows of the range that are final, incomplete and free."""
    return await connection.fetch(
        _IN_RANGE[wanted.timeframe] + _INCOMPLETE,
        market_key,
        to_datetime(wanted.from_time),
        to_datetime(wanted.to_time),
    )


async def held_candles(
    connection: Connection, *, jobs: Iterable[str], market_keys: Sequence[int], limit: int
) -> Sequence[Any]:
    """Return at most `limit` rows that one of the jobs holds."""
    return await connection.fetch(_HELD, list(jobs), market_keys, limit)


async def rebuild_candles(
    connection: Connection, wanted: RebuildRange, market_key: int
) -> list[Any]:
    """Return every row that a rebuild of whole days concerns."""
    rows: list[Any] = []
    for timeframe in Timeframe:
        longer = timeframe in (Timeframe.D1, Timeframe.D3, Timeframe.W1, Timeframe.MO1)
        begin = min(wanted.days_from, wanted.from_time) if longer else wanted.from_time
        end = max(wanted.days_to, wanted.to_time) if longer else wanted.to_time
        rows += await connection.fetch(
            _IN_RANGE[timeframe], market_key, to_datetime(begin), to_datetime(end)
        )
    return rows


async def write_candles(
    connection: Connection,
    changes: Mapping[Market, MarketChanges],
    keys: Mapping[Market, int],
) -> None:
    """Delete, then upsert candles, each as a whole row."""
    gone = [
        (keys[market], timeframe.value, to_datetime(open_time))
        for market, change in changes.items()
        for timeframe, open_time in change.candles_deleted
    ]
    if gone:
        columns = list(zip(*gone, strict=True))
        await connection.execute(_DELETE, *columns, min(columns[2]), max(columns[2]))
    values = (
        candle_values(keys[market], stored)
        for market, change in changes.items()
        for stored in change.candles
    )
    while rows := list(islice(values, _UPSERT_ROWS)):
        await connection.execute(_UPSERT, *zip(*rows, strict=True))
