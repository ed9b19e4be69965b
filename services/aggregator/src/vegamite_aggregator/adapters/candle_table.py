"""The table `candle`: absolute states, read by key, by range and by the jobs that hold them.

Reading goes to each timeframe's own table with the bounds of what is asked, so that the planner leaves out the other partitions.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import asyncpg

from vegamite_aggregator.adapters.copy_text import candle_lines
from vegamite_aggregator.adapters.row import (
    CANDLE_COLUMNS,
    HELD_SEPARATOR,
    Connection,
    candle_values,
    stored_candle,
)
from vegamite_aggregator.adapters.time_partition import candle_table
from vegamite_aggregator.core.changes import MarketChanges
from vegamite_aggregator.core.demand import IncompleteRange, OpenCandles, RebuildRange
from vegamite_aggregator.core.rows import CandleKey, StoredCandle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import LATEST_EVENT, Micros, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe

Candles = dict[Market, dict[CandleKey, StoredCandle]]

OPEN = "NOT final AND held_by IS NULL"
"""Candles in progress that no job holds back; the index `candle_open` has them."""

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
COPY_FROM = 50
"""From so many new candles on COPY, between two savepoints, beats the upsert."""

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
_INCOMPLETE = {
    timeframe: f"""
        SELECT {_COLUMNS} FROM unnest($1::int[], $2::timestamptz[], $3::timestamptz[]) AS wanted (market_key, from_time, to_time)
        JOIN {candle_table(timeframe)} c
            ON c.market_key = wanted.market_key AND open_time >= from_time AND open_time < to_time
        WHERE c.timeframe = '{timeframe.value}' AND open_time >= $4 AND open_time < $5
            AND final AND NOT complete AND held_by IS NULL
    """
    for timeframe in Timeframe
}
_OPEN = " UNION ALL ".join(
    f"""
        SELECT {_COLUMNS} FROM {candle_table(timeframe)} c
        WHERE {OPEN} AND timeframe = '{timeframe.value}' AND market_key = ANY($1::int[])
            AND open_time BETWEEN ${2 * number} AND ${2 * number + 1}
    """
    for number, timeframe in enumerate(Timeframe, start=1)
)
_FIRST_OPEN = f"""
    SELECT market_key, timeframe, min(open_time) AS open_time FROM candle
    WHERE {OPEN} AND market_key = ANY($1::int[]) GROUP BY market_key, timeframe
"""
_HELD = f"SELECT {_COLUMNS} FROM candle c WHERE held_by && $1::text[] AND market_key = ANY($2::int[]) LIMIT $3"
# A trade is in one candle of each timeframe, and the greatest trade in the latest of each: one of them would do. Several, for a
# row that somebody deleted must not make all that is stored look new; the longest, for their tables are the smallest.
_LATEST = " UNION ALL ".join(
    f"""
        (SELECT last_event_time FROM {candle_table(timeframe)} c
        WHERE c.market_key = wanted.market_key AND c.timeframe = '{timeframe.value}'
        ORDER BY open_time DESC LIMIT 1)
    """
    for timeframe in (Timeframe.D1, Timeframe.W1, Timeframe.MO1)
)
_NEWEST = f"""
    SELECT wanted.market_key, max(latest.last_event_time) AS last_event_time
    FROM unnest($1::int[]) AS wanted (market_key), LATERAL ({_LATEST}) latest GROUP BY wanted.market_key
"""
_DELETE = """
    DELETE FROM candle c USING unnest($1::int[], $2::text[], $3::timestamptz[]) AS gone (market_key, timeframe, open_time)
    WHERE c.market_key = gone.market_key AND c.timeframe = gone.timeframe AND c.open_time = gone.open_time
        AND c.open_time BETWEEN $4 AND $5
"""


def collect_stored(candles: Candles, market: Market, found: Iterable[StoredCandle]) -> None:
    """Add candles of a market to `candles`; the same one may come again."""
    candles.setdefault(market, {}).update((stored.key, stored) for stored in found)


async def collect(
    candles: Candles, rows: Iterable[Any], markets: Mapping[int, Market]
) -> list[Any]:
    """Add rows of `candle` to `candles`, letting others on the loop have their turn; the same row may come again.

    Return the rows that no trades can give, which are left out.
    """
    broken: list[Any] = []
    for number, row in enumerate(rows, start=1):
        try:
            stored = stored_candle(row)
        except (ValueError, ArithmeticError):
            broken.append(row)
            continue
        candles.setdefault(markets[row["market_key"]], {})[stored.key] = stored
        if number % _COLLECT_ROWS == 0:
            await asyncio.sleep(0)
    return broken


async def open_candles(
    connection: Connection, wanted: Sequence[OpenCandles], keys: Mapping[Market, int]
) -> Sequence[Any]:
    """Return the rows of these markets that are neither final nor held by a job."""
    begin = max(min(asked.from_close for asked in wanted) - 1, 0)
    end = min(max(asked.until_open for asked in wanted), LATEST_EVENT)
    bounds = [
        to_datetime(instant)
        for timeframe in Timeframe
        for instant in (timeframe.open_time(min(begin, end)), end)
    ]
    return await connection.fetch(_OPEN, [keys[asked.market] for asked in wanted], *bounds)


async def first_open(connection: Connection, market_keys: Sequence[int]) -> dict[int, Micros]:
    """Return the earliest close time of a candle that is neither final nor held, by market that has one."""
    found: dict[int, Micros] = {}
    for row in await connection.fetch(_FIRST_OPEN, market_keys):
        close_time = Timeframe(row["timeframe"]).close_time(from_datetime(row["open_time"]))
        found[row["market_key"]] = min(close_time, found.get(row["market_key"], close_time))
    return found


async def newest_event_times(
    connection: Connection, market_keys: Sequence[int]
) -> dict[int, Micros]:
    """Return the event time of each market's greatest trade, where it has candles."""
    rows = await connection.fetch(_NEWEST, market_keys)
    return {row["market_key"]: from_datetime(row["last_event_time"]) for row in rows}


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
    connection: Connection, wanted: Sequence[IncompleteRange], keys: Mapping[Market, int]
) -> list[Any]:
    """Return the rows of the ranges that are final, incomplete and free."""
    by_timeframe: dict[Timeframe, list[IncompleteRange]] = defaultdict(list)
    for asked in wanted:
        by_timeframe[asked.timeframe].append(asked)
    rows: list[Any] = []
    for timeframe, ranges in by_timeframe.items():
        begins = [to_datetime(asked.from_time) for asked in ranges]
        ends = [to_datetime(asked.to_time) for asked in ranges]
        rows += await connection.fetch(
            _INCOMPLETE[timeframe],
            [keys[asked.market] for asked in ranges],
            begins,
            ends,
            min(begins),
            max(ends),
        )
    return rows


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


async def candles_within(
    connection: Connection,
    market_key: int,
    timeframe: Timeframe,
    *,
    from_time: Micros,
    to_time: Micros,
) -> Sequence[Any]:
    """Return the rows of a timeframe that open in [from_time, to_time)."""
    return await connection.fetch(
        _IN_RANGE[timeframe], market_key, to_datetime(from_time), to_datetime(to_time)
    )


async def delete_candle(connection: Connection, row: Any) -> None:
    """Delete the row that has this one's key."""
    opened = row["open_time"]
    keys = ([row["market_key"]], [row["timeframe"]], [opened])
    await connection.execute(_DELETE, *keys, opened, opened)


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
    rows = [
        (keys[market], stored, stored.key in change.candles_new and not stored.held_by)
        for market, change in changes.items()
        for stored in change.candles
    ]
    new = [(market_key, stored) for market_key, stored, is_new in rows if is_new]
    copied = len(new) >= COPY_FROM and await _copied(connection, new)
    values = (
        candle_values(market_key, stored)
        for market_key, stored, is_new in rows
        if not (copied and is_new)
    )
    while portion := list(islice(values, _UPSERT_ROWS)):
        await connection.execute(_UPSERT, *zip(*portion, strict=True))


async def _copied(connection: Connection, rows: Sequence[tuple[int, StoredCandle]]) -> bool:
    """Whether COPY took all rows; if one was there already, which nobody has seen yet, none was taken."""
    await connection.execute("SAVEPOINT candles")
    try:
        await connection.copy_to_table(
            "candle", source=_portions(rows), columns=CANDLE_COLUMNS, format="text"
        )
    except asyncpg.UniqueViolationError:
        await connection.execute("ROLLBACK TO SAVEPOINT candles")
        return False
    await connection.execute("RELEASE SAVEPOINT candles")
    return True


async def _portions(rows: Sequence[tuple[int, StoredCandle]]) -> AsyncIterator[bytes]:
    for start in range(0, len(rows), _UPSERT_ROWS):
        yield candle_lines(rows[start : start + _UPSERT_ROWS]).encode()
        await asyncio.sleep(0)
