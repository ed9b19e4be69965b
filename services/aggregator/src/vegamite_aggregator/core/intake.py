"""From records to facts: decode, refuse, clamp; the first step of a batch.

What is refused never stops the partition: it is set apart with a reason, and whatever it could have proved is not
believed. A refused trade voids its record's claim; a refused live trade, or a record that can't be read, also ends the open
spans of its market where they stand, since the heartbeats to come would cover it. Each record that was refused, or of which
a trade was, becomes one dead letter.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from vegamite_aggregator.core.job_name import JobNames
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.core.storable import require_storable
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    Unfillable,
    decode_trades,
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
    trades: tuple[Trade, ...]
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


def read_batch(
    state: PartitionState,
    records: Iterable[LogRecord],
    *,
    partition_of: Callable[[bytes], int],
    timing: Timing,
    letters_left: int | None = None,
    job_owners: Mapping[str, str] = {},
) -> Intake:
    """Return what the records from `state.next_offset` on say; never raises for what is in them.

    `partition_of` gives the partition of a market's key: a record in another partition than its market's is refused. At
    most `letters_left` records are set apart (None: any number). `job_owners` tells by job the key of the market whose job
    has that name: the same name from another market is a job of its own (`JobNames`). Reading ends after a `Rebuild`: what
    it loads has no bound but its own length, so a step has one at most, and whoever calls goes on at `next_offset`.
    """
    reading = _Reading(state, partition_of, timing, letters_left, job_owners)
    next_offset, last_append_time = state.next_offset, state.last_append_time
    skipped, hole = 0, None
    for record in records:
        if record.offset < next_offset:
            skipped += 1
            continue
        if record.offset > next_offset:
            hole = record.offset
            break
        reading.take(record)
        if reading.held is not None:
            break
        next_offset = record.offset + 1
        last_append_time = record.append_time
        if reading.full:
            break
    return Intake(
        next_offset=next_offset,
        last_append_time=last_append_time,
        events=tuple(reading.events),
        trades=tuple(reading.batches),
        quarantined=tuple(reading.quarantined),
        markets=frozenset(reading.markets),
        refused=tuple(reading.refused),
        repeated=reading.repeated,
        contradicting=reading.contradicting,
        expired=reading.expired,
        skipped=skipped,
        hole=hole,
        held=reading.held,
        jobs=reading.names.assumed,
    )


def without_stored(
    batches: Sequence[TradeBatch], stored: Collection[TradeKey]
) -> tuple[TradeBatch, ...]:
    """Return the batches without the trades whose keys the store had already; batches left empty are left out."""
    if not stored:
        return tuple(batches)
    kept = (
        msgspec.structs.replace(
            batch,
            trades=tuple(
                trade
                for trade in batch.trades
                if (batch.market, trade.event_time, trade.trade_id) not in stored
            ),
        )
        for batch in batches
    )
    return tuple(batch for batch in kept if batch.trades)


class _Reading:
    """One batch being read."""

    def __init__(
        self,
        state: PartitionState,
        partition_of: Callable[[bytes], int],
        timing: Timing,
        letters_left: int | None,
        job_owners: Mapping[str, str],
    ) -> None:
        self.events: list[Event] = []
        self.batches: list[TradeBatch] = []
        self.quarantined: list[Quarantined] = []
        self.refused: list[RefusedRecord] = []
        self.markets: set[Market] = set()
        self.repeated = 0
        self.contradicting = 0
        self.expired: Counter[Market] = Counter()
        self.names = JobNames(state.jobs.values(), job_owners)
        self._restores = {job.job: job.restores for job in state.jobs.values()}
        self.held: RefusedRecord | None = None
        self.full = False
        self._letters_left = letters_left
        self._state = state
        self._partition_of = partition_of
        self._future = timing.future
        self._keys: dict[bytes, Market] = {}
        # By market: the ids and trades met so far; and, from the first id met twice on, the trades by identity.
        self._ids: dict[Market, set[str]] = {}
        self._offered: dict[Market, list[Sequence[Trade]]] = {}
        self._first: dict[Market, dict[tuple[Micros, str], Trade]] = {}

    def take(self, record: LogRecord) -> None:
        """Add what one record says; nothing of it where it is refused and has to be `held`."""
        said: Market | None = None
        try:
            decoded = decode_trades(record.value)
            said = None if isinstance(decoded, Heartbeat) else decoded.market
            require_storable(decoded)
        except MessageError as error:
            self._refuse(record, "undecodable", str(error), said)
            return
        if isinstance(decoded, Heartbeat):
            self.events.append(
                msgspec.structs.replace(decoded, to_time=min(decoded.to_time, record.append_time))
            )
            return
        market = self._market(record, decoded)
        if market is None:
            return
        self.markets.add(market)
        if isinstance(decoded, TradesRecord | JobStarted | JobEnded) and decoded.job is not None:
            name = self.names.name_of(decoded.job, market)
            if name != decoded.job:
                decoded = msgspec.structs.replace(decoded, job=name)
        if isinstance(decoded, TradesRecord):
            self._take_trades(record, market, decoded)
        elif isinstance(decoded, SpanClosed):
            self.events.append(
                msgspec.structs.replace(decoded, to_time=min(decoded.to_time, record.append_time))
            )
        elif isinstance(decoded, JobStarted):
            self._restores[decoded.job] = decoded.restores
            self.events.append(
                JobSeen(
                    decoded.job,
                    market,
                    decoded.origin,
                    record.append_time,
                    restores=decoded.restores,
                )
            )
        elif isinstance(decoded, JobEnded):
            self.events.append(JobOver(decoded.job, market, record.append_time, decoded.unfillable))
        else:
            self.events.append(decoded)
            self.full = isinstance(decoded, Rebuild)

    def _market(
        self,
        record: LogRecord,
        decoded: TradesRecord | SpanOpened | SpanClosed | JobStarted | JobEnded | Rebuild,
    ) -> Market | None:
        """Return the record's market; refuse a record that isn't under its market's key, in that key's partition."""
        market = decoded.market
        key = market.key.encode()
        if record.key != key:
            detail = f"a record of {market.key} under the key {record.key!r}"
            self._refuse(record, "key", detail, market)
            return None
        known = self._keys.get(key)
        if known is not None:
            return known
        if self._partition_of(key) != self._state.partition:
            self._refuse(record, "partition", f"{market.key} belongs to another partition")
            return None
        self._keys[key] = market
        return market

    def _refuse(
        self, record: LogRecord, reason: str, detail: str, said: Market | None = None
    ) -> None:
        """Set the record apart and break the spans of the market of its key, and of the one that it names itself, `said`."""
        market = None
        with contextlib.suppress(ValueError):
            market = None if record.key is None else Market.parse(record.key.decode())
        detail = detail[:500]
        if not self._set_apart(RefusedRecord(record, reason, detail)):
            return
        self.quarantined.append(Quarantined(record.offset, market, reason, detail))
        for broken in dict.fromkeys((market, said)):
            if broken is not None and (broken in self._state.markets or broken in self.markets):
                self.markets.add(broken)
                self.events.append(SpanBroken(broken))

    def _set_apart(self, refused: RefusedRecord) -> bool:
        """Take a record for the dead letters; False, and it is held, where there may be no more of them."""
        if self._letters_left is not None and len(self.refused) >= self._letters_left:
            self.held = refused
            return False
        self.refused.append(refused)
        return True

    def _take_trades(self, record: LogRecord, market: Market, decoded: TradesRecord) -> None:
        trades = decoded.trades
        latest = decoded.received_time + self._future
        refused: list[Trade] = []
        if max([trade.event_time for trade in trades], default=latest) > latest:
            refused = [trade for trade in trades if trade.event_time > latest]
            trades = tuple(trade for trade in trades if trade.event_time <= latest)
        if refused and not self._refuse_trades(record, market, refused):
            return  # and nothing after it is read
        self._keep(record, market, decoded, self._without_repeated(market, trades))
        if refused:
            if decoded.job is None:
                self.events.append(SpanBroken(market))
        elif decoded.covered is not None:
            self._claim(record, market, decoded.covered)

    def _claim(self, record: LogRecord, market: Market, covered: tuple[Micros, Micros]) -> None:
        """Believe a claim of the time that hasn't expired: of what has, only a `Rebuild` folds trades, and says what it covers."""
        from_time = max(covered[0], self._state.horizon(market).trades)
        to_time = min(covered[1], record.append_time)
        if from_time < to_time:
            self.events.append(Claim(market, from_time, to_time))

    def _without_repeated(self, market: Market, trades: Sequence[Trade]) -> Sequence[Trade]:
        """Return the trades whose identity the market didn't have before, in this batch; count the others."""
        first = self._first.get(market)
        if first is None:
            ids = self._ids.setdefault(market, set())
            count = len(ids)
            ids.update([trade.trade_id for trade in trades])
            offered = self._offered.setdefault(market, [])
            if len(ids) == count + len(trades):
                offered.append(trades)
                return trades  # no id twice, so no identity
            first = self._first[market] = {
                (trade.event_time, trade.trade_id): trade for some in offered for trade in some
            }
        good: list[Trade] = []
        for trade in trades:
            known = first.setdefault((trade.event_time, trade.trade_id), trade)
            if known is trade:
                good.append(trade)
            else:
                self.repeated += 1
                self.contradicting += known != trade
        return good

    def _keep(
        self, record: LogRecord, market: Market, decoded: TradesRecord, trades: Sequence[Trade]
    ) -> None:
        """Add the record's trades as batches, those that expired aside."""
        good, restored, expired = self._sort_out_expired(market, decoded.job, trades)
        if decoded.job is not None:
            self.events.append(
                JobSeen(decoded.job, market, decoded.origin, record.append_time, expired)
            )
        for kept, again in ((good, False), (restored, True)):
            if kept:
                self.batches.append(
                    TradeBatch(
                        market=market,
                        received_time=decoded.received_time,
                        origin=decoded.origin,
                        job=decoded.job,
                        offset=record.offset,
                        trades=tuple(kept),
                        restored=again,
                    )
                )
                self.events.append(TradesArrived(record.offset, again))

    def _sort_out_expired(
        self, market: Market, job: str | None, trades: Sequence[Trade]
    ) -> tuple[Sequence[Trade], Sequence[Trade], int]:
        """Return the trades that are to be folded, those that are stored again, and how many are too old for either."""
        if not self._state.horizons:
            return trades, [], 0
        horizon = self._state.horizon(market).trades
        old = [trade for trade in trades if trade.event_time < horizon]
        if not old:
            return trades, [], 0
        # Of whole days only: no rebuild would fold the others.
        asked = (None if job is None else self._restores.get(job)) or (0, 0)
        begin, end = self._state.horizon(market).expired_days(*asked)
        restored = [trade for trade in old if begin <= trade.event_time < end]
        expired = len(old) - len(restored)
        if expired:
            self.expired[market] += expired
        return [trade for trade in trades if trade.event_time >= horizon], restored, expired

    def _refuse_trades(self, record: LogRecord, market: Market, trades: Sequence[Trade]) -> bool:
        details = [repr(trade)[:500] for trade in trades]
        named = tuple(trade.trade_id for trade in trades)
        if not self._set_apart(RefusedRecord(record, FUTURE, details[0], named)):
            return False
        self.quarantined += [
            Quarantined(record.offset, market, FUTURE, detail, trade.trade_id)
            for trade, detail in zip(trades, details, strict=True)
        ]
        return True
