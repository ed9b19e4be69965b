"""`PostgresMarketStore`: the market tables of the system of record, for the collector."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, TypeVar

import asyncpg

from vegamite_collector.ports import (
    ExchangeRow,
    MarketState,
    OpenGap,
    ReferenceMarket,
    StoreError,
    TrackedMarket,
)
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.runtime.postgres import POSTGRES_FAULTS, connect_arguments, describe
from vegamite_common.runtime.section import PostgresSection

T = TypeVar("T")

_CHANNEL = "tracked_market"

_TRACKED = """
    SELECT t.market_key, m.exchange, m.symbol, t.history_from
    FROM tracked_market t JOIN market m USING (market_key)
"""

_SAVE_EXCHANGES = """
    INSERT INTO exchange (exchange, name, simulated, trades)
    SELECT * FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[])
    ON CONFLICT (exchange) DO UPDATE
        SET name = excluded.name, simulated = excluded.simulated, trades = excluded.trades, updated_time = now()
        WHERE (exchange.name, exchange.simulated, exchange.trades)
            IS DISTINCT FROM (excluded.name, excluded.simulated, excluded.trades)
"""

_SAVE_MARKETS = """
    WITH listed AS (
        SELECT * FROM unnest(
            $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
            $7::numeric[], $8::boolean[], $9::numeric[], $10::numeric[], $11::text[]
        ) AS l (symbol, type, base, quote, settle, contract_size, inverse, price_increment, amount_increment, state)
    ), changed AS (
        UPDATE market m
        SET type = l.type, base = l.base, quote = l.quote, settle = l.settle, contract_size = l.contract_size,
            inverse = l.inverse, price_increment = l.price_increment, amount_increment = l.amount_increment,
            state = l.state, updated_time = now()
        FROM listed l
        WHERE m.exchange = $1 AND m.symbol = l.symbol
    ), gone AS (
        UPDATE market m SET state = 'inactive', updated_time = now()
        WHERE m.exchange = $1 AND m.state = 'active' AND NOT EXISTS (SELECT FROM listed l WHERE l.symbol = m.symbol)
    )
    INSERT INTO market
        (exchange, symbol, type, base, quote, settle, contract_size, inverse, price_increment, amount_increment, state)
    SELECT $1, l.* FROM listed l
    WHERE NOT EXISTS (SELECT FROM market m WHERE m.exchange = $1 AND m.symbol = l.symbol)
    ON CONFLICT (exchange, symbol) DO NOTHING
"""

_SAVE_STATE = """
    INSERT INTO market_state (market_key, state, since_time, reason, suggestions) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (market_key) DO UPDATE
        SET state = excluded.state, since_time = excluded.since_time, reason = excluded.reason,
            suggestions = excluded.suggestions
"""

_OPEN_GAPS = """
    SELECT market_key, from_time, to_time FROM gap
    WHERE state = 'open' AND market_key = ANY($1::integer[]) AND to_time < $2
    ORDER BY to_time DESC LIMIT 1000
"""

_ENDED_JOBS = "SELECT job FROM job WHERE job = ANY($1::text[]) AND state <> 'open'"


class PostgresMarketStore:
    """`MarketStore` over a pool; notifications come by a connection of their own, to the same database."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], section: PostgresSection) -> None:
        self._pool = pool
        self._section = section
        self._listener: asyncpg.Connection[asyncpg.Record] | None = None
        self._changes: asyncio.Queue[int | None] = asyncio.Queue()

    async def tracked_markets(self) -> Sequence[TrackedMarket]:
        """Return every tracked market."""
        return [_tracked(row) for row in await _stored(self._pool.fetch(_TRACKED))]

    async def tracked_market(self, market_key: int) -> TrackedMarket | None:
        """Return one tracked market, None where it isn't tracked."""
        row = await _stored(self._pool.fetchrow(_TRACKED + " WHERE t.market_key = $1", market_key))
        return _tracked(row) if row is not None else None

    async def next_change(self) -> int | None:
        """Wait for the next notification; None after each (re)connection, since changes may have gone unheard."""
        if self._listener is None or self._listener.is_closed():
            await self._listen()
            return None
        return await self._changes.get()

    async def _listen(self) -> None:
        arguments = connect_arguments(self._section, application_name="vegamite-collector-listen")
        connection = await _stored(asyncpg.connect(**arguments))
        self._changes = changes = asyncio.Queue[int | None]()

        def heard(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
            text = str(payload)
            changes.put_nowait(int(text) if text.isdigit() else None)

        # Whoever waits has to learn of a lost connection, to make a new one.
        connection.add_termination_listener(lambda _: changes.put_nowait(None))
        await _stored(connection.add_listener(_CHANNEL, heard))
        self._listener = connection

    async def save_exchanges(self, rows: Sequence[ExchangeRow]) -> None:
        """Make the exchange table say what `rows` say."""
        columns = list(
            zip(*((r.exchange, r.name, r.simulated, r.trades) for r in rows), strict=True)
        )
        await _stored(self._pool.execute(_SAVE_EXCHANGES, *columns))

    async def save_markets(self, exchange: str, markets: Sequence[ReferenceMarket]) -> None:
        """Store an exchange's markets; those that it no longer lists become inactive."""
        if not markets:
            return
        columns = zip(
            *(
                (
                    m.market.symbol,
                    m.type,
                    m.base,
                    m.quote,
                    m.settle,
                    m.contract_size,
                    m.inverse,
                    m.price_increment,
                    m.amount_increment,
                    "active" if m.active else "inactive",
                )
                for m in {m.market.symbol: m for m in markets}.values()
            ),
            strict=True,
        )
        await _stored(self._pool.execute(_SAVE_MARKETS, exchange, *columns))

    async def save_state(self, market_key: int, state: MarketState) -> None:
        """Store what a market's source is doing."""
        await _stored(
            self._pool.execute(
                _SAVE_STATE,
                market_key,
                state.state,
                to_datetime(state.since_time),
                state.reason,
                list(state.suggestions),
            )
        )

    async def open_gaps(self, market_keys: Sequence[int], *, before: Micros) -> Sequence[OpenGap]:
        """Return the open gaps of these markets that end before `before`, the newest first."""
        rows = await _stored(self._pool.fetch(_OPEN_GAPS, list(market_keys), to_datetime(before)))
        return [
            OpenGap(
                row["market_key"],
                Span(from_datetime(row["from_time"]), from_datetime(row["to_time"])),
            )
            for row in rows
        ]

    async def ended_jobs(self, jobs: Collection[str]) -> frozenset[str]:
        """Return those of the jobs that the aggregator has seen the end of."""
        rows = await _stored(self._pool.fetch(_ENDED_JOBS, list(jobs)))
        return frozenset(row["job"] for row in rows)

    async def close(self) -> None:
        """Close the connection for notifications."""
        if self._listener is not None and not self._listener.is_closed():
            await self._listener.close(timeout=2)


def _tracked(row: asyncpg.Record) -> TrackedMarket:
    return TrackedMarket(
        row["market_key"],
        Market(row["exchange"], row["symbol"]),
        from_datetime(row["history_from"]),
    )


async def _stored(call: Awaitable[T]) -> T:
    try:
        return await call
    except POSTGRES_FAULTS as error:
        raise StoreError(describe(error)) from error
