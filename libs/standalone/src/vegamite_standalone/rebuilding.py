"""`vegamite rebuild`: control records that the owner of the market's partition carries out, waited for one by one."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from vegamite_aggregator.adapters.stored_series import PostgresStoredSeries
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.core.storable import MAX_REBUILD
from vegamite_aggregator.ports import StoreError
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, BusError, Message, Reader
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros, format_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.status import Revised, decode_status
from vegamite_common.messages.trades import Rebuild, encode_trades
from vegamite_common.runtime.lifecycle import Resources, StartError, Stop
from vegamite_common.runtime.logging import escape
from vegamite_common.runtime.postgres import POSTGRES_FAULTS, describe
from vegamite_standalone.adapters.postgres_rebuild import (
    count_trades,
    find_fence,
    newest_waiting,
    still_waiting,
)
from vegamite_standalone.cluster_system import open_cluster
from vegamite_standalone.local_system import (
    hold_used_directory,
    open_local_system,
    run_aggregator,
)
from vegamite_standalone.settings import ProcessSettings

TRADES_A_RECORD: Final = 200_000
"""About so many trades one record has computed again: live trades of the same partition wait meanwhile."""

POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class RebuildRequest:
    """Which market's days, those touched by [from_time, to_time), to compute again.

    `idle_seconds`: how long nothing may move before nobody is taken to be there who carries it out.
    """

    market: Market
    from_time: Micros
    to_time: Micros
    idle_seconds: float = 30.0


@dataclass
class RebuildOutcome:
    """What was published because of it: candles by timeframe, and ranges to be read again. `done`: to the end."""

    days: tuple[Micros, Micros] | None = None
    trades: int = 0
    corrected: dict[Timeframe, set[Micros]] = field(default_factory=dict)
    finals: dict[Timeframe, set[Micros]] = field(default_factory=dict)
    ranges: dict[Timeframe, tuple[Micros, Micros]] = field(default_factory=dict)
    done: bool = False


async def rebuild(
    target: ProcessSettings | AggregatorSettings,
    request: RebuildRequest,
    outcome: RebuildOutcome,
    stop: Stop,
) -> None:
    """Have the days computed again and return once that is stored and published; `StartError` where it can't be."""
    async with _open_system(target) as resources:
        try:
            await _rebuild_days(resources, request, outcome, stop)
        except (StoreError, BusError) as error:
            raise StartError(f"{error}; {_AGAIN}") from None
        except POSTGRES_FAULTS as error:
            raise StartError(f"the database gave up: {describe(error)}; {_AGAIN}") from None
    outcome.done = True


_AGAIN = "rebuild again, a part that is done already is done again without harm"


@asynccontextmanager
async def _open_system(
    target: ProcessSettings | AggregatorSettings,
) -> AsyncIterator[Resources]:
    """Open a deployed system, or an instance that isn't running, with an aggregator in this process."""
    if isinstance(target, AggregatorSettings):
        async with open_cluster(target, name="vegamite-rebuild") as resources:
            yield resources
        return
    async with (
        hold_used_directory(target.standalone.standalone) as directory,
        open_local_system(target.standalone, directory=directory) as system,
        run_aggregator(target.aggregator, system.resources),
    ):
        yield system.resources


async def _rebuild_days(
    resources: Resources, request: RebuildRequest, outcome: RebuildOutcome, stop: Stop
) -> None:
    market = request.market
    store = PostgresStoredSeries(resources.pool)
    if not await store.known(market):
        raise StartError(f"there is no market {market.key} in this database")
    extent = await store.extent(market)
    if extent is None:
        return
    begin = max(extent[0], request.from_time // DAY * DAY)
    end = min(extent[1], -(-request.to_time // DAY) * DAY)
    if begin >= end:
        return
    counts = await count_trades(resources.pool, market, from_time=begin, to_time=end)
    outcome.days, outcome.trades = (begin, end), sum(counts.values())
    partition = partition_for(market.key.encode(), await resources.bus.partition_count(TRADES))
    owner = _Owner(resources, partition, idle_seconds=request.idle_seconds, stop=stop)
    listener = _Listener(resources, market, partition, outcome)
    with _bar() as progress:
        task = progress.add_task(escape(market.key), total=end - begin)
        await listener.open()
        try:
            for first, after in portions(begin, end, counts):
                record = Rebuild(
                    exchange=market.exchange, symbol=market.symbol, from_time=first, to_time=after
                )
                ack = await resources.bus.producer().publish(
                    TRADES, partition, [(market.key.encode(), encode_trades(record))]
                )
                await owner.commits(ack.base_offset)
                progress.advance(task, after - first)
            await owner.publishes()
            await listener.listen()
        finally:
            await listener.close()


def portions(
    begin: Micros, end: Micros, counts: Mapping[Micros, int]
) -> Iterator[tuple[Micros, Micros]]:
    """Yield the days [begin, end) in portions of at most 31, and of not many more trades than `TRADES_A_RECORD`.

    `counts` has the trades of each day by its first instant.
    """
    first, trades = begin, 0
    for day in range(begin, end, DAY):
        more = counts.get(day, 0)
        full = trades + more > TRADES_A_RECORD or day + DAY - first > MAX_REBUILD
        if full and day > first:
            yield first, day
            first, trades = day, 0
        trades += more
    if first < end:
        yield first, end


def _bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=False,
        transient=True,
    )


class _Owner:
    """Whoever owns the partition, seen by what it commits."""

    def __init__(
        self, resources: Resources, partition: int, *, idle_seconds: float, stop: Stop
    ) -> None:
        self._idle_seconds = idle_seconds
        self._pool = resources.pool
        self._partition = partition
        self._stop = stop

    async def commits(self, offset: int) -> None:
        """Return once the record at `offset` is carried out; `StartError` where nothing moves."""
        seen: int | None = None
        moved = time.monotonic()
        while True:
            fence = await find_fence(self._pool, self._partition)
            if fence is not None and fence.next_offset > offset:
                return
            now = None if fence is None else fence.next_offset
            if now != seen or (fence is not None and fence.locked):
                seen, moved = now, time.monotonic()
            if time.monotonic() - moved > self._idle_seconds:
                raise StartError(
                    f"no aggregator has taken the record within {self._idle_seconds:g} s; is one running?"
                    " It is carried out as soon as one does"
                )
            await self._wait()

    async def publishes(self) -> None:
        """Return once all that is committed now is published; `StartError` where nothing moves."""
        newest = await newest_waiting(self._pool, self._partition)
        begun = time.monotonic()
        while await still_waiting(self._pool, self._partition, newest):
            if time.monotonic() - begun > self._idle_seconds:
                raise StartError(
                    "everything is computed and stored, but not all of it published yet; it will be"
                )
            await self._wait()

    async def _wait(self) -> None:
        if await self._stop.wait_for(POLL_SECONDS):
            raise StartError(f"stopped before the end; {_AGAIN}")


class _Listener:
    """Hears what is published of the market from now on."""

    def __init__(
        self, resources: Resources, market: Market, partition: int, outcome: RebuildOutcome
    ) -> None:
        self._bus = resources.bus
        self._market = market
        self._partition = partition
        self._outcome = outcome
        self._readers: dict[str, Reader] = {}
        self._positions: dict[str, int] = {}

    async def open(self) -> None:
        """Begin to hear."""
        for topic in (CANDLES, STATUS):
            reader = self._readers[topic] = await self._bus.reader(topic)
            ends = await reader.end_offsets([self._partition])
            await reader.seek(ends)
            self._positions[topic] = ends[self._partition]

    async def close(self) -> None:
        """Hear no more."""
        for reader in self._readers.values():
            await reader.close()

    async def listen(self) -> None:
        """Note in the outcome all that was published until now."""
        for topic, reader in self._readers.items():
            end = (await reader.end_offsets([self._partition]))[self._partition]
            while self._positions[topic] < end:
                for fetched in await reader.poll(max_records=1000, timeout=1.0):
                    for message in fetched.messages:
                        self._positions[topic] = message.offset + 1
                        if message.key == self._market.key.encode():
                            self._note(topic, message)

    def _note(self, topic: str, message: Message) -> None:
        if topic == STATUS:
            status = decode_status(message.value)
            if isinstance(status, Revised) and status.reason == "correction":
                known = self._outcome.ranges.get(
                    status.timeframe, (status.from_time, status.to_time)
                )
                self._outcome.ranges[status.timeframe] = (
                    min(known[0], status.from_time),
                    max(known[1], status.to_time),
                )
            return
        record = decode_candles(message.value)
        if record.type == "update" or record.reason not in (None, "correction"):
            return
        noted = self._outcome.finals if record.type == "final" else self._outcome.corrected
        for candle in record.candles:
            noted.setdefault(candle.timeframe, set()).add(candle.open_time)


def describe_rebuild(request: RebuildRequest, outcome: RebuildOutcome) -> list[str]:
    """Return what a rebuild came to, in plain lines: first what was computed, then what that changed."""
    market = request.market.key
    if outcome.days is None:
        return [f"{market}: nothing is stored of that time"]
    begin, end = map(_day, outcome.days)
    lines = [f"{market}: computed from {begin} to {end} again, from {outcome.trades} trades"]
    # A final candle of long ago was missing, or not final, before.
    first, after = outcome.days
    finals = {
        timeframe: [at for at in opens if first <= at < after]
        for timeframe, opens in outcome.finals.items()
    }
    for what, candles in (("corrected", outcome.corrected), ("made final", finals)):
        counts = Counter({timeframe: len(opens) for timeframe, opens in candles.items()})
        if counts.total():
            each = ", ".join(f"{counts[tf]} of {tf.value}" for tf in Timeframe if counts[tf])
            plural = "" if counts.total() == 1 else "s"
            lines.append(f"{counts.total()} candle{plural} {what}: {each}")
    for timeframe in Timeframe:
        if timeframe in outcome.ranges:
            begin, end = map(format_time, outcome.ranges[timeframe])
            lines.append(f"{timeframe.value} corrected from {begin} to {end}, not one by one")
    if len(lines) == 1:
        lines.append("nothing had to be corrected")
    return lines


def _day(instant: Micros) -> str:
    return format_time(instant)[:10]
