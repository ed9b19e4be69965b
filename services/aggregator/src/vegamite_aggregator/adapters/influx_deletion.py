"""Deleting candles: by the API of InfluxDB 2, or by a statement where that is missing, as in InfluxDB 1.8."""

from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from vegamite_aggregator.adapters.influx_client import words_of
from vegamite_aggregator.adapters.influx_statement import ask_statement, database_of, literal
from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.point import HOMES
from vegamite_aggregator.ports import SinkError
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, format_time
from vegamite_common.domain.timeframe import Timeframe

_NO_SUCH_API = frozenset({404, 405, 501})


def delete_candles(
    client: InfluxDBClient,
    section: InfluxSection,
    market: Market,
    timeframe: Timeframe,
    *,
    url: str,
    token: str,
    bucket: str,
    first: Micros,
    last: Micros,
) -> bool:
    """Delete the candles that open from `first` to `last`; False where the server knows neither way.

    Raises `SinkError`, or what the client raises.
    """
    api: Any = client.delete_api()
    tags = {
        "exchange": market.exchange,
        "symbol": market.symbol,
        "timeframe": timeframe.value,
    }
    predicate = " AND ".join(
        f"{name}={_quoted(value)}" for name, value in {"_measurement": "candle", **tags}.items()
    )
    try:
        # Nobody's word on whether the end belongs to it is needed: nothing opens a microsecond later.
        api.delete(
            format_time(first), format_time(last + 1), predicate, bucket=bucket, org=section.org
        )
    except ApiException as error:
        if error.status not in _NO_SUCH_API or "bucket" in words_of(error):
            raise
    else:
        return True
    database, _ = database_of(bucket)
    which = " AND ".join(f'"{name}" = {literal(value)}' for name, value in tags.items())
    which += f" AND time >= {first * HOMES} AND time <= {last * HOMES}"
    try:
        ask_statement(section, url, token, f'DELETE FROM "candle" WHERE {which}', database=database)
    except SinkError as error:
        if error.state == "missing":
            return False
        raise
    return True


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
