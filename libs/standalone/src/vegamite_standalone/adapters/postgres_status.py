"""How the tracked markets are, for a person who watches the terminal."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

import asyncpg

from vegamite_common.domain.time import Micros, from_datetime

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_STATUS = """
    SELECT market.exchange, market.symbol, coalesce(market_state.state, 'pending') AS state,
           newest.close, newest.last_event_time,
           (SELECT count(*) FROM gap WHERE gap.market_key = market.market_key AND gap.state = 'open') AS open_gaps
    FROM tracked_market
    JOIN market USING (market_key)
    LEFT JOIN market_state USING (market_key)
    LEFT JOIN LATERAL (
        SELECT close, last_event_time FROM candle
        WHERE candle.market_key = market.market_key AND timeframe = '1m'
        ORDER BY open_time DESC LIMIT 1
    ) AS newest ON true
    ORDER BY market.exchange, market.symbol
"""


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """One tracked market: the state of its source, its newest price and trade (microseconds), gaps being filled."""

    exchange: str
    symbol: str
    state: str
    price: Decimal | None
    last_trade_time: Micros | None
    open_gaps: int


async def read_status(pool: Pool) -> list[MarketStatus]:
    """Return all tracked markets, by exchange and symbol."""
    return [
        MarketStatus(
            exchange=row["exchange"],
            symbol=row["symbol"],
            state=row["state"],
            price=row["close"],
            last_trade_time=None
            if row["last_event_time"] is None
            else from_datetime(row["last_event_time"]),
            open_gaps=row["open_gaps"],
        )
        for row in await pool.fetch(_STATUS)
    ]
