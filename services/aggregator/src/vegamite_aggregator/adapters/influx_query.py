"""Asking InfluxDB, in Flux, what it holds already."""

from collections.abc import Iterator, Sequence
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient

from vegamite_aggregator.core.point import HOMES, LATEST_POINT
from vegamite_aggregator.core.written import Series, Slots, Window
from vegamite_common.domain.candle import StateOrder
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, from_datetime
from vegamite_common.domain.timeframe import Timeframe

_STATE = ("epoch", "as_of", "final", "revision")


def newest_trades(
    client: InfluxDBClient, bucket: str, markets: Sequence[Market], since: Micros
) -> dict[Market, Micros]:
    """Return the event time of each market's newest trade from `since` on."""
    newest: dict[Market, Micros] = {}
    flux = _from(bucket, since, LATEST_POINT) + _where("trade", ("sequence",), markets)
    flux += ' |> last() |> keep(columns: ["_time", "exchange", "symbol", "slot"])'
    for row in _rows(client, flux):
        market = Market(row["exchange"], row["symbol"])
        newest[market] = max(newest.get(market, 0), from_datetime(row["_time"]))
    return newest


def newest_candles(
    client: InfluxDBClient, bucket: str, markets: Sequence[Market], since: Micros
) -> dict[Market, dict[Timeframe, Micros]]:
    """Return the open time of each market's newest candle of each timeframe from `since` on."""
    newest: dict[Market, dict[Timeframe, Micros]] = {}
    flux = _from(bucket, since, LATEST_POINT) + _where("candle", ("as_of",), markets)
    flux += ' |> last() |> keep(columns: ["_time", "exchange", "symbol", "timeframe"])'
    for row in _rows(client, flux):
        times = newest.setdefault(Market(row["exchange"], row["symbol"]), {})
        times[Timeframe(row["timeframe"])] = from_datetime(row["_time"])
    return newest


def stored_trades(
    client: InfluxDBClient, bucket: str, window: Window
) -> dict[Series, dict[Micros, Slots]]:
    """Return the slots of the trades in a window, by event time."""
    found: dict[Series, dict[Micros, Slots]] = {}
    flux = _from(bucket, window.first, window.last) + _where("trade", ("trade_id",), window.markets)
    flux += ' |> keep(columns: ["_time", "_value", "exchange", "symbol", "slot"])'
    for row in _rows(client, flux):
        series: Series = (Market(row["exchange"], row["symbol"]), None)
        slots = found.setdefault(series, {}).setdefault(from_datetime(row["_time"]), Slots())
        slots[row["_value"]] = int(row["slot"])
    return found


def stored_candles(
    client: InfluxDBClient, bucket: str, window: Window
) -> dict[Series, dict[Micros, StateOrder]]:
    """Return the states of the candles in a window, by open time."""
    parts: dict[tuple[Market, Micros], dict[str, Any]] = {}
    if window.timeframe is None:
        raise ValueError("a window of candles has a timeframe")
    flux = _from(bucket, window.first, window.last) + _where("candle", _STATE, window.markets)
    flux += f" |> filter(fn: (r) => r.timeframe == {_text(window.timeframe.value)})"
    flux += ' |> keep(columns: ["_time", "_value", "_field", "exchange", "symbol"])'
    for row in _rows(client, flux):
        key = (Market(row["exchange"], row["symbol"]), from_datetime(row["_time"]))
        parts.setdefault(key, {})[row["_field"]] = row["_value"]
    found: dict[Series, dict[Micros, StateOrder]] = {}
    for (market, time), fields in parts.items():
        epoch, as_of, final, revision = (fields.get(name, 0) for name in _STATE)
        states = found.setdefault((market, window.timeframe), {})
        states[time] = (int(epoch), int(as_of), bool(final), int(revision))
    return found


def candle_times(
    client: InfluxDBClient,
    bucket: str,
    market: Market,
    timeframe: Timeframe,
    *,
    first: Micros,
    last: Micros,
    limit: int,
) -> list[Micros]:
    """Return the first open times, at most `limit`, of the candles that open from `first` to `last`, in order."""
    flux = _from(bucket, first, last) + _where("candle", ("as_of",), (market,))
    flux += f" |> filter(fn: (r) => r.timeframe == {_text(timeframe.value)})"
    flux += f' |> keep(columns: ["_time"]) |> limit(n: {limit})'
    return [from_datetime(row["_time"]) for row in _rows(client, flux)]


def _rows(client: InfluxDBClient, flux: str) -> Iterator[dict[str, Any]]:
    for record in client.query_api().query_stream(flux):
        yield record.values


def _from(bucket: str, first: Micros, last: Micros) -> str:
    """From the first microsecond to the last, with every nanosecond of it."""
    start, stop = first * HOMES, min((last + 1) * HOMES, 2**63 - 1)
    return f"from(bucket: {_text(bucket)}) |> range(start: time(v: {start}), stop: time(v: {stop}))"


def _where(measurement: str, fields: Sequence[str], markets: Sequence[Market]) -> str:
    named = " or ".join(f"r._field == {_text(field)}" for field in fields)
    ours = " or ".join(
        f"(r.exchange == {_text(market.exchange)} and r.symbol == {_text(market.symbol)})"
        for market in markets
    )
    return (
        f" |> filter(fn: (r) => r._measurement == {_text(measurement)} and ({named}) and ({ours}))"
    )


def _text(value: str) -> str:
    """A string of Flux; a dollar sign would begin an expression where a brace follows."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\x24")
    return f'"{escaped}"'
