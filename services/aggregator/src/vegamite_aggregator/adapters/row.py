"""Rows of the tables as values of the core and back: instants, numbers and enums are converted here and nowhere else."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg

from vegamite_aggregator.core.rows import GapRow, Job, OpenSpan, SpanRow, StoredCandle
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin

Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)
Row: TypeAlias = Mapping[str, Any]

CANDLE_COLUMNS = (
    "market_key",
    "timeframe",
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "buy_volume",
    "buy_quote_volume",
    "trade_count",
    "first_event_time",
    "first_sequence",
    "first_trade_id",
    "last_event_time",
    "last_sequence",
    "last_trade_id",
    "final",
    "complete",
    "revision",
    "epoch",
    "as_of",
    "updated_at",
    "held_by",
    "pending_reason",
)

HELD_SEPARATOR = "\x1f"
"""Joins the jobs that hold a candle into one text where arrays of arrays can't be sent; no job's name has it."""

_TIMEFRAMES = {timeframe.value: timeframe for timeframe in Timeframe}


def optional_datetime(instant: Micros | None) -> datetime | None:
    """Return the `datetime` of an instant that may be absent."""
    return None if instant is None else to_datetime(instant)


def optional_micros(instant: datetime | None) -> Micros | None:
    """Return the microseconds of a `datetime` that may be absent."""
    return None if instant is None else from_datetime(instant)


def stored_candle(row: Row) -> StoredCandle:
    """Return the candle of a row of `candle`; raise `ValueError` for one that no trades can give."""
    candle = Candle(
        timeframe=_TIMEFRAMES[row["timeframe"]],
        open_time=from_datetime(row["open_time"]),
        open=row["open"],
        high=row["high"],
        low=row["low"],
        close=row["close"],
        volume=row["volume"],
        quote_volume=row["quote_volume"],
        buy_volume=row["buy_volume"],
        buy_quote_volume=row["buy_quote_volume"],
        trade_count=row["trade_count"],
        first_event_time=from_datetime(row["first_event_time"]),
        first_sequence=row["first_sequence"],
        first_trade_id=row["first_trade_id"],
        last_event_time=from_datetime(row["last_event_time"]),
        last_sequence=row["last_sequence"],
        last_trade_id=row["last_trade_id"],
        epoch=row["epoch"],
        as_of=row["as_of"],
        updated_at=from_datetime(row["updated_at"]),
        final=row["final"],
        complete=row["complete"],
        revision=row["revision"],
    )
    return StoredCandle(
        candle=candle, held_by=tuple(row["held_by"] or ()), pending=row["pending_reason"]
    )


def stand_in(row: Row) -> StoredCandle:
    """Return, for a row that no trades can give, a candle where it stands, with the standing that it has.

    Its content is nobody's: a trade without an id, so it equals no fold of trades. Raise `ValueError` where none can open.
    """
    open_time = from_datetime(row["open_time"])
    one = Decimal(1)
    final = bool(row["final"])
    candle = Candle(
        timeframe=_TIMEFRAMES[row["timeframe"]],
        open_time=open_time,
        open=one,
        high=one,
        low=one,
        close=one,
        volume=one,
        quote_volume=one,
        buy_volume=one,
        buy_quote_volume=one,
        trade_count=1,
        first_event_time=open_time,
        first_sequence=0,
        first_trade_id="",
        last_event_time=open_time,
        last_sequence=0,
        last_trade_id="",
        epoch=max(0, row["epoch"]),
        as_of=row["as_of"],
        updated_at=from_datetime(row["updated_at"]),
        final=final,
        complete=bool(row["complete"]),
        revision=max(0, row["revision"]) if final else 0,
    )
    return StoredCandle(
        candle=candle, held_by=tuple(row["held_by"] or ()), pending=row["pending_reason"]
    )


def candle_values(market_key: int, stored: StoredCandle) -> tuple[Any, ...]:
    """Return the values of `CANDLE_COLUMNS`; `held_by` is joined by `HELD_SEPARATOR`, or None."""
    candle = stored.candle
    return (
        market_key,
        candle.timeframe.value,
        to_datetime(candle.open_time),
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.quote_volume,
        candle.buy_volume,
        candle.buy_quote_volume,
        candle.trade_count,
        to_datetime(candle.first_event_time),
        candle.first_sequence,
        candle.first_trade_id,
        to_datetime(candle.last_event_time),
        candle.last_sequence,
        candle.last_trade_id,
        candle.final,
        candle.complete,
        candle.revision,
        candle.epoch,
        candle.as_of,
        to_datetime(candle.updated_at),
        HELD_SEPARATOR.join(stored.held_by) if stored.held_by else None,
        stored.pending,
    )


def span_row(row: Row) -> SpanRow:
    """Return the span of a row of `coverage_span`."""
    return SpanRow(
        from_time=from_datetime(row["from_time"]),
        to_time=from_datetime(row["to_time"]),
        end_cause=row["end_cause"],
    )


def open_span(row: Row, market: Market) -> OpenSpan:
    """Return the span of a row of `open_span`."""
    return OpenSpan(
        writer=row["writer"],
        market=market,
        from_time=from_datetime(row["from_time"]),
        to_time=from_datetime(row["to_time"]),
    )


def gap_row(row: Row) -> GapRow:
    """Return the gap of a row of `gap`."""
    return GapRow(
        from_time=from_datetime(row["from_time"]),
        to_time=from_datetime(row["to_time"]),
        cause=row["cause"],
        state=GapState(row["state"]),
        opened_time=from_datetime(row["opened_time"]),
        reason=row["reason"],
        recovered=row["recovered"],
        closed_time=optional_micros(row["closed_time"]),
    )


def job_row(row: Row, market: Market) -> Job:
    """Return the job of a row of `job`."""
    return Job(
        job=row["job"],
        market=market,
        origin=Origin(row["origin"]),
        state=row["state"],
        opened_time=from_datetime(row["opened_time"]),
        last_append_time=from_datetime(row["last_append_time"]),
        ended_time=optional_micros(row["ended_time"]),
        trades=row["trades"],
        expired=row["expired"],
        restores=None
        if row["restores_from"] is None
        else (from_datetime(row["restores_from"]), from_datetime(row["restores_to"])),
    )


def contract_of(row: Row) -> Contract | None:
    """Return a derivative's terms from a row of `market`; None for spot, and while they aren't known."""
    if row["contract_size"] is None:
        return None
    return Contract(size=row["contract_size"], inverse=bool(row["inverse"]))
