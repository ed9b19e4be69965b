"""Reference data and tracked markets in PostgreSQL."""

from collections.abc import Sequence

import asyncpg

from vegamite_api.adapters.postgres_store import Pool, at, connection, micros
from vegamite_api.core.query import MarketQuery
from vegamite_api.core.row import ExchangeRow
from vegamite_api.core.view import (
    LastTradeView,
    MarketView,
    TimeWriter,
    TrackedView,
    decimal_text,
)
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.time import Micros

# The page is chosen first: the newest trade and the gaps are looked up for its rows only.
_MARKETS = """
    WITH page AS MATERIALIZED (
        SELECT m.*, t.history_from FROM market m
          LEFT JOIN tracked_market t ON t.market_key = m.market_key
         WHERE ($1::text IS NULL OR m.exchange = $1)
           AND ($2::text IS NULL OR m.base = $2)
           AND ($3::text IS NULL OR m.quote = $3)
           AND ($4::text IS NULL OR m.type = $4)
           AND ($5::boolean IS NULL OR (t.market_key IS NOT NULL) = $5)
           AND ($6::text IS NULL OR (m.exchange, m.symbol) > ($6, $7))
         ORDER BY m.exchange, m.symbol LIMIT $8
    )
    SELECT m.exchange, m.symbol, m.type, m.base, m.quote, m.settle, m.contract_size, m.inverse,
           m.price_increment, m.amount_increment, m.state AS listing, m.history_from,
           coalesce(e.simulated, false) AS simulated,
           s.state, s.since_time, s.reason, s.suggestions,
           last.trade_id, last.event_time, last.price, last.amount, last.taker_side,
           (SELECT count(*) FROM gap WHERE gap.market_key = m.market_key AND gap.state = 'open') AS open_gaps
      FROM page m
      LEFT JOIN exchange e ON e.exchange = m.exchange
      LEFT JOIN market_state s ON s.market_key = m.market_key
      LEFT JOIN LATERAL (
          SELECT trade_id, event_time, price, amount, taker_side FROM trade
           WHERE trade.market_key = m.market_key
           ORDER BY event_time DESC, sequence DESC, trade_id DESC LIMIT 1
      ) last ON true
     ORDER BY m.exchange, m.symbol
"""


class PostgresMarketStore:
    """`MarketStore` over a pool, which stays its owner's to close."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def exchanges(self) -> list[ExchangeRow]:
        """Return every exchange, by id."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(
                """
                SELECT e.exchange, e.name, e.simulated, e.trades, count(t.market_key) AS tracked
                  FROM exchange e
                  LEFT JOIN market m ON m.exchange = e.exchange
                  LEFT JOIN tracked_market t ON t.market_key = m.market_key
                 GROUP BY e.exchange ORDER BY e.exchange
                """
            )
        return [
            ExchangeRow(
                exchange=row["exchange"],
                name=row["name"],
                simulated=row["simulated"],
                trades=row["trades"],
                tracked_markets=row["tracked"],
            )
            for row in rows
        ]

    async def markets(
        self, query: MarketQuery, write: TimeWriter, *, limit: int
    ) -> list[MarketView]:
        """Return the first `limit` markets that the query asks for, by exchange and symbol."""
        exchange, _, symbol = (query.after or "").partition(":")
        async with connection(self._pool) as lent:
            rows = await lent.fetch(
                _MARKETS,
                query.exchange,
                query.base,
                query.quote,
                query.type,
                query.tracked,
                exchange or None,
                symbol,
                limit,
            )
        return [_market_view(row, write) for row in rows]

    async def tracked_markets(self, exchange: str) -> list[Market]:
        """Return the tracked markets of an exchange."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(
                """
                SELECT exchange, symbol FROM market JOIN tracked_market USING (market_key)
                 WHERE exchange = $1 ORDER BY symbol
                """,
                exchange,
            )
        return [Market(row["exchange"], row["symbol"]) for row in rows]

    async def unknown_exchanges(self, exchanges: Sequence[str]) -> set[str]:
        """Return those of the ids that no exchange has."""
        async with connection(self._pool) as lent:
            rows = await lent.fetch(
                "SELECT exchange FROM exchange WHERE exchange = ANY($1::text[])", list(exchanges)
            )
        return set(exchanges) - {row["exchange"] for row in rows}

    async def track(
        self, markets: Sequence[Market], history_from: Micros | None, write: TimeWriter
    ) -> list[TrackedView]:
        """Track the markets, in one transaction; their histories from `history_from`, where given, else as before or from now."""
        tracked = {}
        async with connection(self._pool) as lent, lent.transaction():
            # One order for all writers, so that two requests can't wait for each other.
            for market in sorted(markets):
                parts = market.parts
                row = await lent.fetchrow(
                    """
                    INSERT INTO tracked_market (market_key, history_from)
                    SELECT ensure_market($1, $2, $3, $4, $5, $6), coalesce($7, now())
                    ON CONFLICT (market_key) DO UPDATE
                       SET history_from = coalesce($7, tracked_market.history_from)
                    RETURNING history_from,
                              (SELECT state FROM market_state s WHERE s.market_key = tracked_market.market_key) AS state
                    """,
                    market.exchange,
                    market.symbol,
                    parts.type,
                    parts.base,
                    parts.quote,
                    parts.settle,
                    None if history_from is None else at(history_from),
                )
                assert row is not None
                state = row["state"] or "pending"
                tracked[market] = TrackedView(market.key, state, write(micros(row["history_from"])))
        return [tracked[market] for market in markets]

    async def untrack(self, market: Market) -> bool:
        """Stop tracking a market; False where it was not tracked."""
        async with connection(self._pool) as lent:
            status = await lent.execute(
                """
                DELETE FROM tracked_market USING market
                 WHERE market.market_key = tracked_market.market_key AND exchange = $1 AND symbol = $2
                """,
                market.exchange,
                market.symbol,
            )
        return not status.endswith(" 0")


def _market_view(row: asyncpg.Record, write: TimeWriter) -> MarketView:
    tracked = row["history_from"] is not None
    state = (row["state"] or "pending") if tracked else None
    since = row["since_time"] if tracked else None
    return MarketView(
        market=f"{row['exchange']}:{row['symbol']}",
        exchange=row["exchange"],
        symbol=row["symbol"],
        type=row["type"],
        base=row["base"],
        quote=row["quote"],
        settle=row["settle"],
        contract_size=decimal_text(row["contract_size"]),
        inverse=row["inverse"],
        price_increment=decimal_text(row["price_increment"]),
        amount_increment=decimal_text(row["amount_increment"]),
        listing=row["listing"],
        simulated=row["simulated"],
        tracked=tracked,
        state=state,
        state_since=None if since is None else write(micros(since)),
        state_reason=row["reason"] if tracked else None,
        suggestions=list(row["suggestions"] or ()) if tracked else [],
        history_from=write(micros(row["history_from"])) if tracked else None,
        last_trade=_last_trade(row, write),
        open_gaps=row["open_gaps"],
    )


def _last_trade(row: asyncpg.Record, write: TimeWriter) -> LastTradeView | None:
    if row["trade_id"] is None:
        return None
    return LastTradeView(
        trade_id=row["trade_id"],
        event_time=write(micros(row["event_time"])),
        price=format_decimal(row["price"]),
        amount=format_decimal(row["amount"]),
        taker_side=row["taker_side"],
    )
