"""The table `horizon`: up to where each market's trades and candles have expired."""

from collections.abc import Mapping
from typing import Any

from vegamite_aggregator.adapters.row import Connection
from vegamite_aggregator.core.horizon import Horizon
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe

TRADES = "trade"
"""The series of trades; those of candles are named by their timeframe."""

_ALL = "SELECT market_key, series, horizon_time FROM horizon"
_WRITE = """
    INSERT INTO horizon (market_key, series, horizon_time, moved_time)
    SELECT *, $4::timestamptz FROM unnest($1::int[], $2::text[], $3::timestamptz[])
    ON CONFLICT (market_key, series) DO UPDATE SET
        horizon_time = excluded.horizon_time, moved_time = excluded.moved_time
    WHERE horizon.horizon_time < excluded.horizon_time
"""


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


async def write_horizons(
    connection: Connection, horizons: Mapping[int, Horizon], *, moved: Micros
) -> None:
    """Write whole horizons by the market's number; none goes back. To be done under the fence of the markets' partition."""
    rows = [
        (market_key, series, to_datetime(at))
        for market_key, horizon in horizons.items()
        for series, at in (
            (TRADES, horizon.trades),
            *((timeframe.value, at) for timeframe, at in horizon.candles.items()),
        )
    ]
    if rows:
        columns = zip(*rows, strict=True)
        await connection.execute(_WRITE, *columns, to_datetime(moved))
