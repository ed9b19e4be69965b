"""The client of InfluxDB as we use it: opened from the settings, and its errors in our words."""

import json
import logging
from typing import Any

from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client import InfluxDBClient
from urllib3.exceptions import HTTPError

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.ports import SinkError, SinkTrouble

FAULTS = (InfluxDBError, HTTPError, OSError)
"""What asking InfluxDB for something may raise, besides our own."""

WRONG_POINTS = frozenset({400, 413, 422})
"""Statuses of a write that say that something is wrong with its points."""

_MISSING = ("database not found", "no database", "retention policy not found", "bucket not found")
_TROUBLES: dict[int, SinkTrouble] = {401: "refused", 403: "refused", 404: "missing"}


def open_client(section: InfluxSection, *, url: str, token: str) -> InfluxDBClient:
    """Return a client; nothing is asked of the server yet."""
    client = InfluxDBClient(
        url=url,
        token=token,
        org=section.org,
        timeout=section.timeout_ms,
        enable_gzip=False,
        ssl_ca_cert=str(section.ssl_ca_file) if section.ssl_ca_file else None,
    )
    # It sets the level of each of its loggers itself. What it says of every try, we say once.
    for logger in client.conf.loggers.values():
        logger.setLevel(logging.CRITICAL)
    return client


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error is about, if any."""
    status: Any = getattr(error, "status", None) or getattr(
        getattr(error, "response", None), "status", None
    )
    return status if isinstance(status, int) and status > 0 else None


def words_of(error: BaseException) -> str:
    """Return what the server said, or the error, in one line."""
    body: Any = getattr(error, "body", None) or getattr(
        getattr(error, "response", None), "data", None
    )
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    if isinstance(text, str) and text:
        try:
            told = json.loads(text)
            text = str(told.get("message") or told.get("error") or text)
        except (ValueError, AttributeError):
            pass
        return " ".join(text.split())[:300]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def as_sink_error(error: BaseException) -> SinkError:
    """Return what an error of the client means for the sink."""
    status, words = status_of(error), words_of(error)
    if any(phrase in words for phrase in _MISSING):
        return SinkError("missing", words)
    if status is None:
        return SinkError("away", words)
    return SinkError(_TROUBLES.get(status, "away"), f"HTTP status {status}: {words}")
