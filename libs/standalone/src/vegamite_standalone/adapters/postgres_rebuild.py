"""What a rebuild asks of the database: how much there is to do, and how far the owner of the partition is."""

from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros, from_datetime, to_datetime

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

COUNT_SECONDS = 600.0

_COUNTS = """
    SELECT date_trunc('day', event_time, 'UTC') AS day, count(*) AS trades
    FROM trade JOIN market USING (market_key)
    WHERE exchange = $1 AND symbol = $2 AND event_time >= $3 AND event_time < $4
    GROUP BY 1
"""
# Whoever is at work holds the row locked, and shows nothing of it before the end.
_FENCE = """
    SELECT next_offset, NOT EXISTS (
        SELECT FROM partition_fence WHERE partition = $1 FOR KEY SHARE SKIP LOCKED) AS locked
    FROM partition_fence WHERE partition = $1
"""
_NEWEST_WAITING = "SELECT coalesce(max(id), 0) FROM outbox WHERE partition = $1"
_WAITING = "SELECT EXISTS (SELECT FROM outbox WHERE partition = $1 AND id <= $2)"


@dataclass(frozen=True, slots=True)
class Fence:
    """How far a partition's owner has committed; `locked`: somebody's transaction is under way."""

    next_offset: int
    locked: bool


async def count_trades(
    pool: Pool, market: Market, *, from_time: Micros, to_time: Micros
) -> dict[Micros, int]:
    """Return how many trades are stored of each day of [from_time, to_time), by its first instant."""
    rows = await pool.fetch(
        _COUNTS,
        market.exchange,
        market.symbol,
        to_datetime(from_time),
        to_datetime(to_time),
        timeout=COUNT_SECONDS,
    )
    return {from_datetime(row["day"]) // DAY * DAY: row["trades"] for row in rows}


async def find_fence(pool: Pool, partition: int) -> Fence | None:
    """Return the fence of the partition; None before any aggregator has had it."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(_FENCE, partition)
    if row is None:
        return None
    return Fence(next_offset=row["next_offset"], locked=row["locked"])


async def newest_waiting(pool: Pool, partition: int) -> int:
    """Return the id of the newest committed record that waits to be published; 0 where none does."""
    return int(await pool.fetchval(_NEWEST_WAITING, partition))


async def still_waiting(pool: Pool, partition: int, up_to: int) -> bool:
    """Whether a record up to this id still waits to be published."""
    return bool(await pool.fetchval(_WAITING, partition, up_to))
