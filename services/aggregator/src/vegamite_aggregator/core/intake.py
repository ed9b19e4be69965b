"""From records to facts: decode, refuse, clamp; the first step of a batch."""

from typing import TypeAlias

import msgspec

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Origin, Trade

TradeKey: TypeAlias = tuple[Market, Micros, str]
"""(market, event_time, trade_id): a trade's identity as stored."""


class TradeBatch(msgspec.Struct, frozen=True):
    """Trades of one market from one record, each identity once in the whole intake; `offset` is the record's.

    The rows to insert into `trade` are `trades` with `received_time`, `origin` and `job` of the record.
    """

    market: Market
    received_time: Micros
    origin: Origin
    job: str | None
    offset: int
    trades: tuple[Trade, ...]


class Quarantined(msgspec.Struct, frozen=True):
    """What was refused: a record (`trade_id` None) or one trade of it; `reason` is a short word for counters."""

    offset: int
    market: Market | None
    reason: str
    detail: str
    trade_id: str | None = None


class Claim(msgspec.Struct, frozen=True):
    """Coverage proved by a trades record, its end already cut at the append time."""

    market: Market
    from_time: Micros
    to_time: Micros
    origin: Origin


class Intake(msgspec.Struct, frozen=True):
    """A batch, read: `events` in log order (spans, heartbeats, jobs, claims), `trades` to be inserted, and what was refused.

    `next_offset` and `last_append_time` are those after the batch. `repeated` counts trades that occur twice in the batch
    itself, `contradicting` those of them whose content differs from the first. `skipped` counts records before the
    expected offset (delivered again); reading stops before one that leaves a hole (`hole` is then its offset).
    """

    next_offset: int
    last_append_time: Micros | None
    trades: tuple[TradeBatch, ...]
    quarantined: tuple[Quarantined, ...]
    markets: frozenset[Market]
    repeated: int = 0
    contradicting: int = 0
    skipped: int = 0
    hole: int | None = None
