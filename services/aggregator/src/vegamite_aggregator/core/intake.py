"""From records to facts: decode, refuse, clamp; the first step of a batch.

What is refused never stops the partition: it is set apart with a reason, and whatever it could have proved is not
believed. A refused trade voids its record's claim; a refused live trade, or a record that can't be read, also ends the open
spans of its market where they stand, since the heartbeats to come would cover it. Each record that was refused, or of which
a trade was, becomes one dead letter.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from vegamite_aggregator.core.block_reader import read_block
from vegamite_aggregator.core.facts import (
    FUTURE,
    Claim,
    Event,
    Intake,
    JobOver,
    JobSeen,
    LogRecord,
    Quarantined,
    RefusedRecord,
    SpanBroken,
    TradeBatch,
    TradesArrived,
)
from vegamite_aggregator.core.job_name import JobNames
from vegamite_aggregator.core.met_trades import MetTrades
from vegamite_aggregator.core.packed_trades import (
    PackedTrades,
    earliest,
    latest,
)
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.core.storable import require_storable
from vegamite_aggregator.core.text_record import read_text
from vegamite_aggregator.core.timing import Timing
from vegamite_aggregator.core.trade_block import COMPILED
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
    decode_trades,
)


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
        repeated=sum(met.repeated for met in reading.met),
        contradicting=sum(met.contradicting for met in reading.met),
        expired=reading.expired,
        skipped=skipped,
        hole=hole,
        held=reading.held,
        jobs=reading.names.assumed,
    )


class _Arrived(NamedTuple):
    """What a trades record says, however it was read."""

    received_time: Micros
    origin: Origin
    job: str | None
    covered: tuple[Micros, Micros] | None
    trades: Sequence[Trade]


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
        self._met: dict[Market, MetTrades] = {}

    @property
    def met(self) -> Iterable[MetTrades]:
        """What was met, market by market."""
        return self._met.values()

    def take(self, record: LogRecord) -> None:
        """Add what one record says; nothing of it where it is refused and has to be `held`."""
        if COMPILED and self._take_packed(record):
            return
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
        market = self._market(record, decoded.market)
        if market is None:
            return
        self.markets.add(market)
        if isinstance(decoded, TradesRecord | JobStarted | JobEnded) and decoded.job is not None:
            name = self.names.name_of(decoded.job, market)
            if name != decoded.job:
                decoded = msgspec.structs.replace(decoded, job=name)
        if isinstance(decoded, TradesRecord):
            arrived = _Arrived(
                decoded.received_time,
                decoded.origin,
                decoded.job,
                decoded.covered,
                decoded.trades,
            )
            self._take_trades(record, market, arrived)
        else:
            self._take_control(record, market, decoded)

    def _take_control(
        self,
        record: LogRecord,
        market: Market,
        decoded: SpanOpened | SpanClosed | JobStarted | JobEnded | Rebuild,
    ) -> None:
        if isinstance(decoded, SpanClosed):
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

    def _take_packed(self, record: LogRecord) -> bool:
        """Take a trades record whose trades are written in the plainest way; else False, and nothing is done."""
        packed = read_block(record.value) or read_text(record.value)
        if packed is None:
            return False
        known = None if record.key is None else self._keys.get(record.key)
        if known is None or packed.symbol != known.symbol or packed.exchange != known.exchange:
            try:
                said = Market(packed.exchange, packed.symbol)
            except ValueError:
                return False
            known = self._market(record, said)
            if known is None:
                return True
        self.markets.add(known)
        self._take_trades(
            record,
            known,
            _Arrived(
                packed.received_time,
                Origin(packed.origin),
                None if packed.job is None else self.names.name_of(packed.job, known),
                packed.covered,
                PackedTrades(packed.trades),
            ),
        )
        return True

    def _market(self, record: LogRecord, market: Market) -> Market | None:
        """Return the record's market; refuse a record that isn't under its market's key, in that key's partition."""
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

    def _take_trades(self, record: LogRecord, market: Market, decoded: _Arrived) -> None:
        trades = decoded.trades
        limit = decoded.received_time + self._future
        refused: list[Trade] = []
        if trades and latest(trades) > limit:
            refused = [trade for trade in trades if trade.event_time > limit]
            trades = tuple(trade for trade in trades if trade.event_time <= limit)
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
        if not trades:
            return trades
        met = self._met.get(market)
        if met is None:
            met = self._met[market] = MetTrades()
        return met.new(trades)

    def _keep(
        self, record: LogRecord, market: Market, decoded: _Arrived, trades: Sequence[Trade]
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
                        trades=kept,
                        restored=again,
                    )
                )
                self.events.append(TradesArrived(record.offset, again))

    def _sort_out_expired(
        self, market: Market, job: str | None, trades: Sequence[Trade]
    ) -> tuple[Sequence[Trade], Sequence[Trade], int]:
        """Return the trades that are to be folded, those that are stored again, and how many are too old for either."""
        if not (self._state.horizons and trades):
            return trades, [], 0
        horizon = self._state.horizon(market).trades
        if earliest(trades) >= horizon:
            return trades, [], 0
        old = [trade for trade in trades if trade.event_time < horizon]
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
