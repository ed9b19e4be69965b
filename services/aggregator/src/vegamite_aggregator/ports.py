"""What the aggregator needs of the world besides the bus: a store with one writer a partition, and its outbox."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, TypeAlias

import msgspec

from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.core.demand import Loaded, Wants
from vegamite_aggregator.core.facts import TradeBatch, TradeKey
from vegamite_aggregator.core.horizon import Horizon
from vegamite_aggregator.core.manifest import ArchivedTrade
from vegamite_aggregator.core.point import Point
from vegamite_aggregator.core.retention import Retention
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.core.verification import Scope, StoredState
from vegamite_aggregator.core.written import Series, Slots, Window
from vegamite_common.domain.candle import Candle, StateOrder
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade

SinkTrouble: TypeAlias = Literal["away", "refused", "missing", "rejecting", "unread"]
"""What keeps the sink from writing."""


class StoreError(Exception):
    """The store can't be reached, or gave up waiting; a commit that was under way may or may not have happened."""


class FenceLostError(StoreError):
    """Somebody else wrote the partition since its state was loaded; nothing was written, and the state is worthless."""


class LogMismatchError(Exception):
    """The log isn't the one that the store knows (other partitions, or shorter than what was read); the text says how."""


class Inserted(msgspec.Struct, frozen=True):
    """What became of trades to be inserted: `stored` were there already, `contradicting` of them with other content."""

    stored: Set[TradeKey] = frozenset()
    contradicting: int = 0


class OutboxRow(msgspec.Struct, frozen=True):
    """A committed record that waits for the log; ids grow in the order in which a partition's rows were written."""

    row_id: int
    topic: str
    key: bytes | None
    value: bytes


class Step(Protocol):
    """One open transaction of one partition, whose fence it holds. Each method raises `StoreError`."""

    async def markets(self, markets: Sequence[Market]) -> Mapping[Market, MarketState]:
        """Return what the store has of markets of this partition; `prepare` was called with them."""
        ...

    async def insert_trades(self, batches: Sequence[TradeBatch]) -> Inserted:
        """Insert those trades that aren't stored yet; `prepare` was called with them."""
        ...

    async def load(self, wants: Wants) -> Loaded:
        """Read what is wanted."""
        ...

    async def write(self, changes: Changes) -> None:
        """Write all changes, the outbox and the fence with its next version; the block's end then commits."""
        ...


class CandleStore(Protocol):
    """The system of record, seen by one aggregator. Each method raises `StoreError`."""

    async def open_log(self, *, partitions: int, new_epoch: bool) -> int:
        """Return the log's epoch; raise `LogMismatchError` where the store knows another number of partitions.

        With `new_epoch` the log is declared a new one: an epoch more, every fence and open span of the last one ended.
        """
        ...

    async def load(self, partition: int, *, begin_offset: int) -> PartitionState:
        """Return the partition's committed state, of one instant; one never seen starts at `begin_offset`."""
        ...

    def step(self, state: PartitionState) -> AbstractAsyncContextManager[Step]:
        """Open a transaction that holds the partition's fence; commits at the block's end if `write` was called.

        Raise `FenceLostError` unless the fence still has the state's version.
        """
        ...

    async def prepare(self, markets: Iterable[Market], event_times: Iterable[Micros]) -> None:
        """Make the rows of these markets, and the time partitions for trades of these times and all their candles.

        Outside any step: what is made stays, whatever becomes of the step.
        """
        ...

    async def job_owners(self, jobs: Iterable[str]) -> Mapping[str, str]:
        """Return the keys of the markets that the stored jobs of these names belong to, by name."""
        ...

    async def refresh(self, state: PartitionState) -> None:
        """Read reference data (contract terms, start of tracking) again and describe the state's markets with it."""
        ...


class Outbox(Protocol):
    """Committed records on their way to the log. Each method raises `StoreError`."""

    async def waiting(
        self, partition: int, topic: str, *, limit: int, max_bytes: int
    ) -> Sequence[OutboxRow]:
        """Return the oldest rows of partition and topic, in order: at most `limit`, and none behind `max_bytes` of values."""
        ...

    async def age(self, partitions: Sequence[int]) -> float:
        """Return for how many real seconds the oldest row of these partitions has waited; 0 where none does."""
        ...

    async def delete(self, row_ids: Sequence[int]) -> None:
        """Forget rows that the log has."""
        ...


class SinkError(Exception):
    """InfluxDB didn't do what it was asked; `state` says what kind of trouble that is, and trying again may help.

    `away`: not reached, too slow, overloaded or failing. `refused`: the token isn't good for it. `missing`: no such bucket
    or organisation. `rejecting`: it calls everything wrong that it is given. `unread`: what is to be written can't be read
    from the system of record.
    """

    def __init__(self, state: SinkTrouble, text: str) -> None:
        super().__init__(text)
        self.state: SinkTrouble = state


class Rejected(msgspec.Struct, frozen=True):
    """A point that InfluxDB won't have, and its words; `expired` where it is older than the bucket keeps."""

    line: bytes
    reason: str
    expired: bool


class PointStore(Protocol):
    """Where points are written. Each method raises `SinkError`."""

    async def prepare(self) -> None:
        """Make the buckets, or check that writing is allowed; afterwards they can be written."""
        ...

    async def newest_trades(self, markets: Sequence[Market], since: Micros) -> dict[Market, Micros]:
        """Return the event time of each market's newest trade from `since` on; one without any is left out."""
        ...

    async def newest_candles(
        self, markets: Sequence[Market], since: Micros
    ) -> dict[Market, dict[Timeframe, Micros]]:
        """Return the open times of each market's newest candles from `since` on, by timeframe."""
        ...

    async def trades(self, window: Window) -> dict[Series, dict[Micros, Slots]]:
        """Return the slots of the trades in a window, by event time."""
        ...

    async def candles(self, window: Window) -> dict[Series, dict[Micros, StateOrder]]:
        """Return the states of the candles in a window, by open time."""
        ...

    async def candle_times(
        self,
        market: Market,
        timeframe: Timeframe,
        *,
        from_time: Micros,
        to_time: Micros,
        limit: int,
    ) -> Sequence[Micros]:
        """Return the first at most `limit` open times in [from_time, to_time) at which there are candles, in order."""
        ...

    async def delete_candles(
        self, market: Market, timeframe: Timeframe, *, first: Micros, last: Micros
    ) -> bool:
        """Delete the candles that open from `first` to `last`, both included; False where the server deletes nothing for anybody."""
        ...

    async def write(self, points: Sequence[Point]) -> Sequence[Rejected]:
        """Write points that all differ in identity, and return once each is acknowledged or rejected.

        On `SinkError` any part may have been written: then all are written again.
        """
        ...

    async def close(self) -> None:
        """Give up what is under way, and disconnect."""


class CandlePage(msgspec.Struct, frozen=True):
    """Stored candles of a range in order of open time, all there are up to `to_time` (exclusive)."""

    candles: tuple[Candle, ...]
    to_time: Micros


class CandleReader(Protocol):
    """The candles of the system of record, seen by the sink."""

    async def page(
        self,
        market: Market,
        timeframe: Timeframe,
        *,
        from_time: Micros,
        to_time: Micros,
        limit: int,
    ) -> CandlePage:
        """Return the first at most `limit` candles with open times in [from_time, to_time); raises `StoreError`.

        A market that isn't known has none.
        """
        ...

    async def expired_before(self, market: Market, timeframe: Timeframe) -> Micros:
        """Return before which open time candles are missing because they have expired, if anything; raises `StoreError`."""
        ...


class ImpossibleTrade(msgspec.Struct, frozen=True):
    """A stored trade that none can be, and why."""

    event_time: Micros
    trade_id: str
    why: str


class TradePage(msgspec.Struct, frozen=True):
    """Stored trades that follow the ones of the page before, in order of event time; `rest`: there may be more."""

    trades: Sequence[Trade]
    impossible: Sequence[ImpossibleTrade]
    rest: bool


class MarketSeries(Protocol):
    """All that is stored of one market and scope, as of one instant, read once from its beginning to its end."""

    @property
    def scope(self) -> Scope:
        """What was asked for, with the horizons of that instant."""
        ...

    @property
    def contract(self) -> Contract | None:
        """The market's terms, None for spot."""
        ...

    @property
    def coverage(self) -> SpanSet:
        """Where nothing is known to be missing."""
        ...

    async def trades(self, limit: int) -> TradePage:
        """Return the next trades, at most `limit`."""
        ...

    async def candles(self, timeframe: Timeframe, limit: int) -> Sequence[StoredState]:
        """Return the timeframe's next candles in order of open time, `limit` unless there are no more."""
        ...


class StoredSeries(Protocol):
    """The system of record, seen by one who only reads. Each method raises `StoreError`."""

    async def markets(self) -> Sequence[Market]:
        """Return every market that anything is stored of, or is to be, by name."""
        ...

    async def known(self, market: Market) -> bool:
        """Return whether there is such a market."""
        ...

    async def extent(self, market: Market) -> tuple[Micros, Micros] | None:
        """Return the whole days [from, to) that hold all stored trades and candles; None where there are none."""
        ...

    def read(self, market: Market, scope: Scope) -> AbstractAsyncContextManager[MarketSeries]:
        """Open what is stored of a known market, all of one instant, until the block's end."""
        ...


class Upkeep(msgspec.Struct, frozen=True):
    """What the store says of its maintenance: times in microseconds, None where there is none; totals of all runs."""

    tables_until: Micros | None
    completed_time: Micros | None
    least_horizon: Micros | None
    archived_files: int
    archived_trades: int
    dropped_tables: int
    deleted_candles: int


class UpkeepView(Protocol):
    """The store's maintenance, seen by those who watch it."""

    async def upkeep(self) -> Upkeep:
        """Return what is known of it now; raise `StoreError`."""
        ...


class Move(msgspec.Struct, frozen=True):
    """A market's horizon before and after a maintenance."""

    market: Market
    before: Horizon
    after: Horizon


class HeldDay(msgspec.Struct, frozen=True):
    """A stored day of trades, from `from_time` until before `to_time`, the table it is in, and the markets that have trades there."""

    name: str
    from_time: Micros
    to_time: Micros
    markets: tuple[Market, ...]


class MaintenanceStore(Protocol):
    """The system of record, seen by maintenance. Each method raises `StoreError`, and is one or more whole transactions."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """Give whether no other maintenance is running; none begins until the block's end."""
        ...

    async def make_ahead(self, event_times: Iterable[Micros]) -> int:
        """Make the time partitions for trades of these times and their candles; return how many were missing."""
        ...

    async def missing_ahead(self, event_times: Iterable[Micros]) -> Sequence[str]:
        """Return the names of the time partitions that `make_ahead` would make; nothing is changed."""
        ...

    async def plan_moves(
        self, retention: Retention, *, now: Micros
    ) -> Mapping[int, Sequence[Move]]:
        """Return, by partition of the log, the horizons that may move at `now`; nothing is changed."""
        ...

    async def move(self, partition: int, retention: Retention, *, now: Micros) -> Sequence[Move]:
        """Move what may move of the partition's horizons, under its fence, whose version is raised: its owner loads anew.

        Gaps below them are given up. All or nothing.
        """
        ...

    async def horizons(self) -> Mapping[Market, Horizon]:
        """Return every stored horizon."""
        ...

    async def days_before(self, cutoff: Micros) -> Sequence[HeldDay]:
        """Return the stored days of trades that end at or before `cutoff`, oldest first."""
        ...

    async def restoring(self) -> Mapping[Market, Sequence[tuple[Micros, Micros]]]:
        """Return what open jobs bring back."""
        ...

    def trades(
        self, market: Market, *, from_time: Micros, to_time: Micros
    ) -> AsyncIterator[Sequence[ArchivedTrade]]:
        """Yield the stored trades of [from_time, to_time) in the order of (event time, id), page by page."""
        ...

    async def covered(
        self, market: Market, *, from_time: Micros, to_time: Micros
    ) -> Sequence[tuple[Micros, Micros]]:
        """Return the parts of [from_time, to_time) in which every trade is claimed to be there."""
        ...

    async def drop_day(self, day: HeldDay) -> bool:
        """Drop the day's table, unless it holds something that hasn't expired by now; return whether it is gone."""
        ...

    async def drop_candles(self, timeframe: Timeframe, *, cutoff: Micros) -> int:
        """Drop the timeframe's tables that hold nothing but candles opening before `cutoff` and expired; return how many."""
        ...

    def delete_candles(self, timeframe: Timeframe, *, cutoff: Micros) -> AsyncIterator[int]:
        """Delete the expired candles that open before `cutoff`, portion by portion; yield how many each had."""
        ...

    async def expired_candles(
        self, timeframe: Timeframe, *, cutoff: Micros, horizons: Mapping[Market, Horizon]
    ) -> "ExpiredCandles":
        """Return what `drop_candles` and `delete_candles` would take away under these horizons; nothing is changed."""
        ...

    async def note_completed(self, done: "MaintenanceTotals", *, now: Micros) -> None:
        """Remember that a maintenance did all it had to, and add up what it did."""
        ...


class ExpiredCandles(msgspec.Struct, frozen=True):
    """Candles of one timeframe that have expired: tables that hold nothing else, and the number of rows in others."""

    tables: tuple[str, ...]
    rows: int


class MaintenanceTotals(msgspec.Struct):
    """What a maintenance did."""

    partitions_made: int = 0
    horizons_moved: int = 0
    archived_files: int = 0
    archived_trades: int = 0
    dropped_partitions: int = 0
    deleted_candles: int = 0


class ArchiveError(Exception):
    """A day can't be archived, or its archive isn't what its manifest says; the text names the file."""


class TradeArchive(Protocol):
    """Where days of trades are kept for good."""

    async def store(
        self,
        market: Market,
        day: Micros,
        *,
        trades: AsyncIterator[Sequence[ArchivedTrade]],
        covered: Sequence[tuple[Micros, Micros]],
    ) -> int:
        """Have every one of the day's trades in the archive, read back and found equal; return how many it holds now.

        What is there of the day stays; 0 where nothing had to be written. Raise `ArchiveError`; then what was there is whole.
        """
        ...
