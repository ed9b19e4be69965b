"""The tables `market` and `tracked_market`: which number a market has, its contract's terms, since when it is tracked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg

from vegamite_aggregator.adapters.row import Connection, contract_of, optional_micros
from vegamite_aggregator.core.state import MarketState
from vegamite_common.bus.partition import partition_for
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros

_COLUMNS = """
    SELECT market.market_key, exchange, symbol, contract_size, inverse, history_from
    FROM market LEFT JOIN tracked_market USING (market_key)
"""
_BY_KEY = f"{_COLUMNS} WHERE market.market_key = ANY($1::int[])"

# Markets that a partition's owner has something to do for before their next record; the others wait for that one.
_ALIVE = f"""
    {_COLUMNS} WHERE market.market_key IN (
        SELECT market_key FROM tracked_market
        UNION SELECT market_key FROM open_span
        UNION SELECT market_key FROM job WHERE state = 'open'
        UNION SELECT market_key FROM candle WHERE NOT final)
"""
_ENSURE = "SELECT ensure_market($1, $2, $3, $4, $5, $6)"


class MarketTable:
    """Knows the number of each market it has met; numbers never change, so they are remembered."""

    def __init__(self) -> None:
        self._keys: dict[Market, int] = {}
        self._markets: dict[int, Market] = {}

    @property
    def keys(self) -> Mapping[Market, int]:
        """The number of each market met so far."""
        return self._keys

    @property
    def markets(self) -> Mapping[int, Market]:
        """The market of each number met so far."""
        return self._markets

    async def ensure(self, pool: "asyncpg.Pool[asyncpg.Record]", markets: Iterable[Market]) -> None:
        """Make the rows of markets that have none; to be called outside any transaction."""
        for market in markets:
            if market not in self._keys:
                parts = market.parts
                market_key = await pool.fetchval(
                    _ENSURE,
                    market.exchange,
                    market.symbol,
                    parts.type,
                    parts.base,
                    parts.quote,
                    parts.settle,
                )
                self._remember(market, market_key)

    async def alive(
        self, connection: Connection, *, partition: int, partitions: int
    ) -> dict[Market, Any]:
        """Return the rows of the partition's markets that are tracked, open, in a job or in progress."""
        found: dict[Market, Any] = {}
        for row in await connection.fetch(_ALIVE):
            market = self._market(row)
            if market and partition_for(market.key.encode(), partitions) == partition:
                found[market] = row
        return found

    async def rows(self, connection: Connection, markets: Sequence[Market]) -> dict[Market, Any]:
        """Return the rows of markets met before."""
        keys = [self._keys[market] for market in markets]
        rows = await connection.fetch(_BY_KEY, keys)
        return {self._markets[row["market_key"]]: row for row in rows}

    async def rows_of(self, connection: Connection, market_keys: Iterable[int]) -> Sequence[Any]:
        """Return the rows of markets by their numbers."""
        return await connection.fetch(_BY_KEY, list(market_keys))

    def named(self, rows: Iterable[Any]) -> dict[int, Market]:
        """Return the markets of rows by their numbers, without those that no record can name."""
        named = {row["market_key"]: self._market(row) for row in rows}
        return {market_key: market for market_key, market in named.items() if market is not None}

    def _market(self, row: Any) -> Market | None:
        known = self._markets.get(row["market_key"])
        if known is not None:
            return known
        try:
            market = Market(row["exchange"], row["symbol"])
        except ValueError:
            return None  # reference data may have symbols that no record can name
        self._remember(market, row["market_key"])
        return market

    def _remember(self, market: Market, market_key: int) -> None:
        self._keys[market] = market_key
        self._markets[market_key] = market


def description(row: Any) -> tuple[Contract | None, Micros | None]:
    """Return a market's contract terms and start of tracking, as a `MarketState` has them."""
    return contract_of(row), optional_micros(row["history_from"])


def describe(state: MarketState, row: Any) -> None:
    """Give a market in memory what its row says now."""
    state.contract, state.history_from = description(row)
