"""From the records of one topic to the points that InfluxDB lacks: reads what has to be known, then places."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.facts import Intake, Quarantined, TradeBatch
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.placement import (
    MarketCandles,
    Placement,
    place_candles,
    place_trades,
    read_candles,
    times_of_candles,
    times_of_trades,
)
from vegamite_aggregator.core.point import BucketRole
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.core.timing import Timing
from vegamite_aggregator.core.written import Series, Slots, Window, Written, windows
from vegamite_aggregator.ports import PointStore
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import Message
from vegamite_common.domain.candle import StateOrder
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, MINUTE, Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.clock import Clock

MARKETS_IN_A_QUESTION = 50
GAP_CANDLES = 200
"""How many candles' length between two wanted ones makes two questions of one."""

EntryT = TypeVar("EntryT")


class Placed(msgspec.Struct, frozen=True):
    """What is to be written of some records, and which of them were refused."""

    placement: Placement
    refused: tuple[Quarantined, ...]


class TopicMapping(Protocol):
    """What a stream does with records of one topic."""

    async def place(self, taken: Mapping[int, Sequence[Message]]) -> Placed:
        """Return what is to be written, by partition's records; raises `SinkError` before anything is remembered as written."""
        ...

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget what was known of the markets of these partitions."""
        ...


class _Known(Generic[EntryT]):
    """The memory of one topic's points, and which partition each market is in."""

    def __init__(self, limit: int) -> None:
        self.written: Written[EntryT] = Written(limit=limit)
        self._markets: dict[int, set[Market]] = {}
        self._before = 0

    def shrink(self, touched: int) -> None:
        """Keep at least what this flight and the one before have put there, since they may be under way."""
        self.written.shrink(keep=touched + self._before)
        self._before = touched

    def meet(self, partition: int, markets: Iterable[Market]) -> None:
        self._markets.setdefault(partition, set()).update(markets)

    def forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.written.forget(self._markets.pop(partition, set()))


class TradeMapping:
    """Trades of `market.trades.v1`, by the same rules as the candles' role takes them."""

    def __init__(
        self,
        store: PointStore,
        section: InfluxSection,
        *,
        clock: Clock,
        timing: Timing,
        partitions: int,
    ) -> None:
        self._store = store
        self._section = section
        self._clock = clock
        self._timing = timing
        self._partition_of: Callable[[bytes], int] = lambda key: partition_for(key, partitions)
        self._known: _Known[Slots] = _Known(section.memory_points)

    async def place(self, taken: Mapping[int, Sequence[Message]]) -> Placed:
        """Return the points of the trades that aren't there yet."""
        batches: list[TradeBatch] = []
        refused: list[Quarantined] = []
        for partition, messages in taken.items():
            for intake in self._intakes(partition, messages):
                batches += intake.trades
                refused += intake.quarantined
                self._known.meet(partition, (batch.market for batch in intake.trades))
        read = await self._learn(batches)
        oldest = oldest_kept(self._section, self._clock).get("recent")
        placement = place_trades(self._known.written, batches, oldest=oldest)
        self._known.shrink(read + len(placement.points))
        return Placed(placement, tuple(refused))

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget what was known of these partitions' markets."""
        self._known.forget(partitions)

    def _intakes(self, partition: int, messages: Sequence[Message]) -> Iterator[Intake]:
        """Yield what the records say, one intake up to each rebuild; ValueError where one is missing between them."""
        position = messages[0].offset
        while position <= messages[-1].offset:
            intake = read_batch(
                _state_of(partition, position),
                messages,
                partition_of=self._partition_of,
                timing=self._timing,
            )
            if intake.hole is not None:
                raise ValueError(f"partition {partition}: no record {intake.next_offset}")
            yield intake
            position = intake.next_offset

    async def _learn(self, batches: Sequence[TradeBatch]) -> int:
        """Read what has to be known; returns how many times it was read of."""
        written = self._known.written
        wanted = times_of_trades(batches)
        since = min((min(times) for times in wanted.values()), default=0)
        for some in _portions(written.strangers(market for market, _ in wanted)):
            newest: Mapping[Market, Micros] = {}
            if self._section.read_back:
                newest = await self._store.newest_trades(some, since)
            for market in some:
                known: dict[Timeframe | None, Micros] = {}
                if market in newest:
                    known[None] = newest[market]
                written.introduce(market, known, asked_from=since)
        if not self._section.read_back:
            return 0
        unknown = written.unknown(wanted)
        for window in windows(unknown, gap={None: MINUTE}, most=MARKETS_IN_A_QUESTION):
            found = await self._store.trades(window)
            for series, asked in _inside(unknown, window):
                there = found.get(series, {})
                for time in asked:
                    written.put(series, time, there.get(time, Slots()))
        return sum(map(len, unknown.values()))


class CandleMapping:
    """States of `market.candles.v1`."""

    def __init__(
        self, store: PointStore, section: InfluxSection, *, clock: Clock, partitions: int
    ) -> None:
        self._store = store
        self._section = section
        self._clock = clock
        self._partition_of: Callable[[bytes], int] = lambda key: partition_for(key, partitions)
        self._known: _Known[StateOrder] = _Known(section.memory_points)
        self._bucket_of = {timeframe: section.role_of(timeframe) for timeframe in Timeframe}
        self._gap: dict[Timeframe | None, Micros] = {
            timeframe: GAP_CANDLES * (timeframe.length or 30 * DAY) for timeframe in Timeframe
        }

    async def place(self, taken: Mapping[int, Sequence[Message]]) -> Placed:
        """Return the points of the states that are greater than what is there."""
        states: list[MarketCandles] = []
        refused: list[Quarantined] = []
        for partition, messages in taken.items():
            intake = read_candles(
                messages,
                partition=partition,
                partition_of=self._partition_of,
                updates=self._section.updates,
            )
            states += intake.states
            refused += intake.quarantined
            self._known.meet(partition, (part.market for part in intake.states))
        read = await self._learn(states)
        placement = place_candles(
            self._known.written,
            states,
            bucket_of=self._bucket_of,
            oldest=oldest_kept(self._section, self._clock),
        )
        self._known.shrink(read + len(placement.points))
        return Placed(placement, tuple(refused))

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget what was known of these partitions' markets."""
        self._known.forget(partitions)

    async def _learn(self, states: Sequence[MarketCandles]) -> int:
        """Read what has to be known; returns how many times it was read of."""
        written = self._known.written
        wanted = times_of_candles(states)
        since = min((min(times) for times in wanted.values()), default=0)
        for some in _portions(written.strangers(market for market, _ in wanted)):
            newest: Mapping[Market, Mapping[Timeframe, Micros]] = {}
            if self._section.read_back:
                newest = await self._store.newest_candles(some, since)
            for market in some:
                known: dict[Timeframe | None, Micros] = dict(newest.get(market, {}).items())
                written.introduce(market, known, asked_from=since)
        if not self._section.read_back:
            return 0
        unknown = written.unknown(wanted)
        for window in windows(unknown, gap=self._gap, most=MARKETS_IN_A_QUESTION):
            found = await self._store.candles(window)
            for series, there in found.items():
                for time, state in there.items():
                    if time in unknown.get(series, ()):
                        written.put(series, time, state)
        return sum(map(len, unknown.values()))


def _state_of(partition: int, offset: int) -> PartitionState:
    """The least that reading a batch needs: where it begins."""
    return PartitionState(
        partition=partition, epoch=0, version=0, next_offset=offset, last_append_time=None
    )


def _portions(markets: Iterable[Market]) -> list[tuple[Market, ...]]:
    ordered = sorted(markets)
    step = MARKETS_IN_A_QUESTION
    return [tuple(ordered[at : at + step]) for at in range(0, len(ordered), step)]


def _inside(
    unknown: Mapping[Series, set[Micros]], window: Window
) -> Iterable[tuple[Series, list[Micros]]]:
    """The wanted times that a window's answer tells of, by series."""
    for market in window.markets:
        series: Series = (market, window.timeframe)
        times = unknown.get(series, set())
        yield series, [time for time in times if window.first <= time <= window.last]


def oldest_kept(section: InfluxSection, clock: Clock) -> dict[BucketRole, Micros]:
    """Return the first instant that each bucket keeps, where it doesn't keep all."""
    days: dict[BucketRole, int] = {
        "recent": section.retention_days,
        "downsampled": section.downsampled_retention_days,
    }
    now = clock.now()
    return {role: now - kept * DAY for role, kept in days.items() if kept}
