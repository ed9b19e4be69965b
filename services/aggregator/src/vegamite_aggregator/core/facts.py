"""What a batch of records says: the facts, in order, the trades, and what was refused."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from vegamite_aggregator.core.packed_trades import identities, selected
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    Rebuild,
    SpanClosed,
    SpanOpened,
    Unfillable,
)

TradeKey: TypeAlias = tuple[Market, Micros, str]
"""(market, event_time, trade_id): a trade's identity as stored."""

FUTURE = "future"
"""The reason of a trade whose event time is too far ahead of its received time."""

QUARANTINED = "quarantined"
"""The cause of a gap that a refused record or trade left."""


class LogRecord(Protocol):
    """A record as the log gives it; `append_time` in microseconds of the clock in use."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def append_time(self) -> Micros:
        """When the log appended it."""
        ...

    @property
    def key(self) -> bytes | None:
        """The market's key; None for records of the partition itself."""
        ...

    @property
    def value(self) -> bytes:
        """The encoded record."""
        ...


class TradeBatch(msgspec.Struct, frozen=True):
    """Trades of one market from one record, each identity once in the whole intake; `offset` is the record's.

    The rows to insert into `trade` are `trades` with `received_time`, `origin` and `job` of the record. `restored`: they
    have expired and are stored again, to be folded by a rebuild; a record across the horizon gives two batches.
    """

    market: Market
    received_time: Micros
    origin: Origin
    job: str | None
    offset: int
    trades: Sequence[Trade]
    restored: bool = False


class Quarantined(msgspec.Struct, frozen=True):
    """What was refused: a record (`trade_id` None) or one trade of it; `reason` is a short word for counters."""

    offset: int
    market: Market | None
    reason: str
    detail: str
    trade_id: str | None = None


class RefusedRecord(msgspec.Struct, frozen=True):
    """A record for the dead letters: refused as a whole, or the one whose trades `trade_ids` were refused."""

    record: LogRecord
    reason: str
    detail: str
    trade_ids: tuple[str, ...] = ()


class Claim(msgspec.Struct, frozen=True):
    """Coverage [from_time, to_time) that a trades record proves, its end cut at the append time."""

    market: Market
    from_time: Micros
    to_time: Micros


class SpanBroken(msgspec.Struct, frozen=True):
    """Something of the market was refused: its open spans end where they stand."""

    market: Market


class JobSeen(msgspec.Struct, frozen=True):
    """A record of a job, not its end: the job is open, and was heard of at `append_time`.

    `expired` counts trades of the record that were too old to be stored; `restores` is what its start said.
    """

    job: str
    market: Market
    origin: Origin
    append_time: Micros
    expired: int = 0
    restores: tuple[Micros, Micros] | None = None


class JobOver(msgspec.Struct, frozen=True):
    """A job's last record, and what it found to be gone."""

    job: str
    market: Market
    append_time: Micros
    unfillable: Unfillable | None


class TradesArrived(msgspec.Struct, frozen=True):
    """The place among the events of the `TradeBatch` with this offset, `restored` or not."""

    offset: int
    restored: bool = False


Event: TypeAlias = (
    TradesArrived
    | Claim
    | SpanOpened
    | Heartbeat
    | SpanClosed
    | SpanBroken
    | JobSeen
    | JobOver
    | Rebuild
)


class Intake(msgspec.Struct, frozen=True):
    """A batch, read: `events` in log order, ends cut at their records' append times; `trades` to be inserted; the refused.

    `quarantined` has each refused record and trade, `refused` each record that was refused in whole or in part. `next_offset` and `last_append_time` are those after the batch. `repeated` counts trades that occur twice in the batch
    itself, `contradicting` those of them whose content differs from the first, `expired` those too old to be stored, by
    market. `skipped` counts records before the expected offset; reading stops before a record beyond it, whose offset is then
    `hole`, and before one that was refused and may not be set apart any more, which is then `held`, and after a `Rebuild`.
    `jobs` are names of jobs whose owner nobody told, with the key of the market that they were taken to be of.
    """

    next_offset: int
    last_append_time: Micros | None
    events: tuple[Event, ...]
    trades: tuple[TradeBatch, ...]
    quarantined: tuple[Quarantined, ...]
    markets: frozenset[Market]
    refused: tuple[RefusedRecord, ...] = ()
    repeated: int = 0
    contradicting: int = 0
    expired: Mapping[Market, int] = {}
    skipped: int = 0
    hole: int | None = None
    held: RefusedRecord | None = None
    jobs: Mapping[str, str] = {}


def without_stored(
    batches: Sequence[TradeBatch], stored: Collection[TradeKey]
) -> tuple[TradeBatch, ...]:
    """Return the batches without the trades whose keys the store had already; batches left empty are left out."""
    if not stored:
        return tuple(batches)
    known: dict[Market, set[tuple[Micros, str]]] = {}
    for market, event_time, trade_id in stored:
        known.setdefault(market, set()).add((event_time, trade_id))
    kept: list[TradeBatch] = []
    for batch in batches:
        there = known.get(batch.market)
        if there is not None:
            places = [
                place
                for place, identity in enumerate(identities(batch.trades))
                if identity not in there
            ]
            if not places:
                continue
            if len(places) < len(batch.trades):
                batch = msgspec.structs.replace(batch, trades=selected(batch.trades, places))
        kept.append(batch)
    return tuple(kept)
