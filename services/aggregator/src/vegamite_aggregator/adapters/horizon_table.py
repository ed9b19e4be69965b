"""The table `horizon`: up to where each market's trades and candles have expired."""

from typing import Any

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.core.horizon import Horizon
from vegamite_common.domain.time import from_datetime
from vegamite_common.domain.timeframe import Timeframe

TRADES = "trade"
"""The series of trades; those of candles are named by their timeframe."""

_ALL = "SELECT market_key, series, horizon_time FROM horizon"


async def read_horizons(connection: Connection) -> dict[int, Horizon]:
    """Return every stored horizon by the market's number."""
    rows: dict[int, dict[str, Any]] = {}
    for row in await connection.fetch(_ALL):
        rows.setdefault(row["market_key"], {})[row["series"]] = row["horizon_time"]
    found: dict[int, Horizon] = {}
    for market_key, series in rows.items():
        trades = series.pop(TRADES, None)
        candles = {Timeframe(name): from_datetime(at) for name, at in series.items()}
        found[market_key] = (
            Horizon(candles=candles)
            if trades is None
            else Horizon(trades=from_datetime(trades), candles=candles)
        )
    return found
