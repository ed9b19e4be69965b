"""The table `trade`: inserting trades once, and reading them again for a rebuild."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.core.intake import TradeBatch, TradeKey
from vegamite_aggregator.ports import Inserted
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.domain.trade import Trade

COPY_FROM = 200
"""From so many rows on COPY beats an INSERT of arrays."""

COLUMNS = (
    "market_key",
    "event_time",
    "trade_id",
    "sequence",
    "price",
    "amount",
    "taker_side",
    "received_time",
    "origin",
    "job",
)

_TYPES = "int[], timestamptz[], text[], bigint[], numeric[], numeric[], text[], timestamptz[], text[], text[]"
_ARRAYS = ", ".join(
    f"${number}::{type_}" for number, type_ in enumerate(_TYPES.split(", "), start=1)
)

_INSERT = f"""
    INSERT INTO trade ({", ".join(COLUMNS)}) SELECT * FROM unnest({_ARRAYS})
    ON CONFLICT DO NOTHING RETURNING market_key, event_time, trade_id
"""

_CONTRADICTING = """
    SELECT count(*) FROM unnest($1::int[], $2::timestamptz[], $3::text[], $4::numeric[], $5::numeric[], $6::text[])
        AS given (market_key, event_time, trade_id, price, amount, taker_side)
    JOIN trade USING (market_key, event_time, trade_id)
    WHERE (trade.price, trade.amount, trade.taker_side) IS DISTINCT FROM (given.price, given.amount, given.taker_side)
        AND trade.event_time BETWEEN $7 AND $8
"""

_PAGE = """
    SELECT trade_id, sequence, event_time, price, amount, taker_side FROM trade
    WHERE market_key = $1 AND event_time >= $2 AND event_time < $3 AND (event_time, trade_id) > ($4, $5)
    ORDER BY event_time, trade_id LIMIT $6
"""
_PAGE_ROWS = 20_000


def _rows(batches: Sequence[TradeBatch], keys: Mapping[Market, int]) -> list[tuple[Any, ...]]:
    return [
        (
            market_key,
            to_datetime(trade.event_time),
            trade.trade_id,
            trade.sequence,
            trade.price,
            trade.amount,
            trade.taker_side,
            received,
            origin,
            batch.job,
        )
        for batch in batches
        for market_key, received, origin in (
            (keys[batch.market], to_datetime(batch.received_time), batch.origin.value),
        )
        for trade in batch.trades
    ]


class TradeTable:
    """Inserts trades: the common way is a COPY, which a trade that is there already makes fail; then row by row.

    After a duplicate the next batches of that partition go the second way at once, until one brings nothing known.
    """

    def __init__(self) -> None:
        self._repeating: set[int] = set()

    async def insert(
        self,
        connection: Connection,
        *,
        partition: int,
        batches: Sequence[TradeBatch],
        keys: Mapping[Market, int],
    ) -> Inserted:
        """Insert trades, each identity once in `batches`, inside the connection's transaction."""
        rows = _rows(batches, keys)
        if not rows:
            return Inserted(keys=set())
        everything: set[TradeKey] = {
            (batch.market, trade.event_time, trade.trade_id)
            for batch in batches
            for trade in batch.trades
        }
        copies = len(rows) >= COPY_FROM and partition not in self._repeating
        if copies and await _copied(connection, rows):
            return Inserted(keys=everything)
        columns = list(zip(*rows, strict=True))
        returned = await connection.fetch(_INSERT, *columns)
        if len(returned) == len(rows):
            self._repeating.discard(partition)
            return Inserted(keys=everything)
        self._repeating.add(partition)
        markets = {keys[batch.market]: batch.market for batch in batches}
        inserted = {
            (markets[market_key], from_datetime(event_time), trade_id)
            for market_key, event_time, trade_id in returned
        }
        return Inserted(keys=inserted, contradicting=await _contradicting(connection, columns))


async def _copied(connection: Connection, rows: list[tuple[Any, ...]]) -> bool:
    """Whether COPY took all rows; if one was there already, none was taken."""
    await connection.execute("SAVEPOINT trades")
    try:
        await connection.copy_records_to_table("trade", records=rows, columns=COLUMNS)
    except asyncpg.UniqueViolationError:
        await connection.execute("ROLLBACK TO SAVEPOINT trades")
        return False
    await connection.execute("RELEASE SAVEPOINT trades")
    return True


async def _contradicting(connection: Connection, columns: list[tuple[Any, ...]]) -> int:
    times: tuple[datetime, ...] = columns[1]
    return int(
        await connection.fetchval(
            _CONTRADICTING,
            *columns[:3],
            *columns[4:7],
            min(times),
            max(times),
        )
    )


async def stored_trades(
    connection: Connection, *, market_key: int, from_time: Micros, to_time: Micros
) -> AsyncIterator[list[Trade]]:
    """Yield all stored trades of [from_time, to_time), page by page."""
    begin, end = to_datetime(from_time), to_datetime(to_time)
    after: tuple[datetime, str] = (begin, "")
    while True:
        rows = await connection.fetch(_PAGE, market_key, begin, end, *after, _PAGE_ROWS)
        if not rows:
            return
        yield [
            Trade(
                trade_id=row["trade_id"],
                sequence=row["sequence"],
                event_time=from_datetime(row["event_time"]),
                price=row["price"],
                amount=row["amount"],
                taker_side=row["taker_side"],
            )
            for row in rows
        ]
        after = (rows[-1]["event_time"], rows[-1]["trade_id"])
