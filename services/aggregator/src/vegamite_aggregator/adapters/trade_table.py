"""The table `trade`: inserting trades once, and reading them again for a rebuild."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from vegamite_aggregator.adapters import copy_binary
from vegamite_aggregator.adapters.copy_binary import trade_rows
from vegamite_aggregator.adapters.copy_text import trade_lines
from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.core.facts import TradeBatch, TradeKey, without_stored
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_aggregator.core.packed_trades import (
    PackedTrades,
    earliest,
    event_times,
    latest,
    trade_ids,
)
from vegamite_aggregator.metrics import TRADE_BATCHES
from vegamite_aggregator.ports import Inserted
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.domain.trade import InvalidTradeError, Trade

log = structlog.get_logger(__name__)

COPY_FROM = 200
"""From so many rows on COPY beats an INSERT of arrays."""

FEW = 10
"""Where one in so many trades, or less, may be stored already, they are looked for before the others are copied."""

PORTION = 1_000
"""About so many rows are sent at once."""

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

# One look into the key's index for each row, in whatever state the planner's statistics are; the time bounds leave out
# the other partitions.
_STORED = """
    SELECT given.place, stored.price, stored.amount, stored.taker_side
    FROM unnest($1::int[], $2::timestamptz[], $3::text[]) WITH ORDINALITY
        AS given (market_key, event_time, trade_id, place)
    CROSS JOIN LATERAL (
        SELECT price, amount, taker_side FROM trade
        WHERE market_key = given.market_key AND event_time = given.event_time AND trade_id = given.trade_id
            AND event_time BETWEEN $4 AND $5
        LIMIT 1
    ) stored
"""

_PAGE = """
    SELECT trade_id, sequence, event_time, price, amount, taker_side FROM trade
    WHERE market_key = $1 AND event_time >= $2 AND event_time < $3 AND (event_time, trade_id) > ($4, $5)
    ORDER BY event_time, trade_id LIMIT $6
"""
_PAGE_ROWS = 20_000


class TradeTable:
    """Inserts trades; by partition it remembers whether the last ones were there already, and then looks before it copies."""

    def __init__(self) -> None:
        self._repeating: set[int] = set()

    async def insert(
        self,
        connection: Connection,
        *,
        partition: int,
        batches: Sequence[TradeBatch],
        keys: Mapping[Market, int],
        newest: Callable[[Market], Micros],
    ) -> Inserted:
        """Insert trades, each identity once in `batches`, inside the connection's transaction.

        `newest` gives the event time of a market's newest stored trade: what is later is not looked for in the table.
        """
        count = sum(len(batch.trades) for batch in batches)
        if count < COPY_FROM:
            return await _insert(connection, batches, keys) if count else Inserted()
        doubtful = [batch for batch in batches if earliest(batch.trades) <= newest(batch.market)]
        few = sum(len(batch.trades) for batch in doubtful) * FEW <= count
        if not (doubtful and (few or partition in self._repeating)):
            if await _copied(connection, batches, keys):
                TRADE_BATCHES.labels("copied").inc()
                return Inserted()
            TRADE_BATCHES.labels("fallback").inc()
        else:
            TRADE_BATCHES.labels("looked").inc()
        # None doubtful, and yet COPY met one: rows came into the table beside the partition's owner.
        inserted = await _look(connection, doubtful or batches, keys)
        if inserted.stored and not few:
            self._repeating.add(partition)
        elif not few:
            self._repeating.discard(partition)
        new = without_stored(batches, inserted.stored)
        if not new or await _copied(connection, new, keys):
            return inserted
        # Some that weren't doubtful are there too.
        return await _insert(connection, batches, keys)


async def _copied(
    connection: Connection, batches: Sequence[TradeBatch], keys: Mapping[Market, int]
) -> bool:
    """Whether COPY took all trades; if one was there already, none was taken."""
    packed = [batch for batch in batches if isinstance(batch.trades, PackedTrades)]
    loose = [batch for batch in batches if not isinstance(batch.trades, PackedTrades)]
    await connection.execute("SAVEPOINT trades")
    try:
        if packed:
            rows = copy_binary.file_of(_portions(packed, keys, trade_rows))
            await connection.copy_to_table("trade", source=rows, columns=COLUMNS, format="binary")
        if loose:
            rows = _portions(loose, keys, trade_lines)
            await connection.copy_to_table("trade", source=rows, columns=COLUMNS, format="text")
    except asyncpg.UniqueViolationError:
        await connection.execute("ROLLBACK TO SAVEPOINT trades")
        return False
    await connection.execute("RELEASE SAVEPOINT trades")
    return True


async def _portions(
    batches: Sequence[TradeBatch],
    keys: Mapping[Market, int],
    encode: Callable[[Sequence[TradeBatch], Mapping[Market, int]], bytes],
) -> AsyncIterator[bytes]:
    """Yield the trades' rows, a few milliseconds' work at once: the server reads while the next ones are made."""
    start = count = 0
    for end, batch in enumerate(batches, start=1):
        count += len(batch.trades)
        if count >= PORTION or end == len(batches):
            yield encode(batches[start:end], keys)
            start, count = end, 0
            await asyncio.sleep(0)


async def _insert(
    connection: Connection, batches: Sequence[TradeBatch], keys: Mapping[Market, int]
) -> Inserted:
    """Insert what isn't stored, by one statement."""
    TRADE_BATCHES.labels("inserted").inc()
    rows = _rows(batches, keys)
    returned = await connection.fetch(_INSERT, *zip(*rows, strict=True))
    if len(returned) == len(rows):
        return Inserted()
    markets = {keys[batch.market]: batch.market for batch in batches}
    inserted = {
        (markets[market_key], from_datetime(event_time), trade_id)
        for market_key, event_time, trade_id in returned
    }
    return await _look(connection, without_stored(batches, inserted), keys)


async def _look(
    connection: Connection, batches: Sequence[TradeBatch], keys: Mapping[Market, int]
) -> Inserted:
    """Return which of the trades are stored, and how many of those differ from what is stored."""
    given = [(batch, place) for batch in batches for place in range(len(batch.trades))]
    found = await connection.fetch(
        _STORED,
        [keys[batch.market] for batch, _ in given],
        [to_datetime(at) for batch in batches for at in event_times(batch.trades)],
        [trade_id for batch in batches for trade_id in trade_ids(batch.trades)],
        to_datetime(min(earliest(batch.trades) for batch in batches)),
        to_datetime(max(latest(batch.trades) for batch in batches)),
    )
    stored: set[TradeKey] = set()
    contradicting = 0
    for number, *content in found:
        batch, place = given[number - 1]
        market, trade = batch.market, batch.trades[place]
        stored.add((market, trade.event_time, trade.trade_id))
        contradicting += content != [trade.price, trade.amount, trade.taker_side]
    return Inserted(stored, contradicting)


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
        yield _trades_of(rows)
        after = (rows[-1]["event_time"], rows[-1]["trade_id"])


def _trades_of(rows: Sequence[Any]) -> list[Trade]:
    """Return the trades of the rows; one that can't be, as nobody but a hand can make it, is told of and left out."""
    trades: list[Trade] = []
    for row in rows:
        event_time = from_datetime(row["event_time"])
        try:
            trades.append(
                Trade(
                    trade_id=row["trade_id"],
                    sequence=row["sequence"],
                    event_time=event_time,
                    price=row["price"],
                    amount=row["amount"],
                    taker_side=row["taker_side"],
                )
            )
        except InvalidTradeError as error:
            log.error("a stored trade that can't be", trade_id=row["trade_id"], error=str(error))
    return trades


_ARCHIVED = """
    SELECT (extract(epoch FROM event_time) * 1000000)::bigint AS event_time, trade_id, sequence, price::text, amount::text,
        taker_side, (extract(epoch FROM received_time) * 1000000)::bigint AS received_time, origin, job
    FROM trade
    WHERE market_key = $1 AND event_time >= $2 AND event_time < $3 AND (event_time, trade_id) > ($4, $5)
    ORDER BY trade.event_time, trade_id LIMIT $6
"""


async def archived_trades(
    connection: Connection, *, market_key: int, from_time: Micros, to_time: Micros
) -> AsyncIterator[list[ArchivedTrade]]:
    """Yield all that is stored of the trades of [from_time, to_time), in the order of (event time, id), page by page."""
    end = to_datetime(to_time)
    after: tuple[datetime, str] = (to_datetime(from_time), "")
    while True:
        rows = await connection.fetch(_ARCHIVED, market_key, after[0], end, *after, _PAGE_ROWS)
        if not rows:
            return
        yield [ArchivedTrade(*row) for row in rows]
        after = (to_datetime(rows[-1]["event_time"]), rows[-1]["trade_id"])
