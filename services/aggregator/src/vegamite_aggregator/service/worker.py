"""The owner of one partition: takes its records through the core into the store, one fenced transaction after the other.

Whatever goes wrong on the way — the fence lost, the store away, a commit of unknown outcome — the state in memory is
dropped and loaded again, and reading starts at the stored offset. So there is one way to recover, and it is in use
each time that a partition changes hands.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import msgspec
import structlog

from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.core.decision import decide
from vegamite_aggregator.core.demand import Loaded
from vegamite_aggregator.core.discontinuity import discontinuity
from vegamite_aggregator.core.facts import Intake, RefusedRecord, without_stored
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.job_name import mistaken
from vegamite_aggregator.core.packed_trades import earliest, event_times, latest, unpacked
from vegamite_aggregator.core.plan import prepare
from vegamite_aggregator.core.state import PartitionState, due
from vegamite_aggregator.core.timing import Timing, log_time
from vegamite_aggregator.core.trade_block import COMPILED
from vegamite_aggregator.metrics import (
    DISCONTINUITIES,
    EVICTIONS,
    LOADED_CANDLES,
    STEP_SECONDS,
    STEP_TRADES,
    STEPS,
)
from vegamite_aggregator.ports import CandleStore, FenceLostError, LogMismatchError, StoreError
from vegamite_aggregator.service.condition import Cause, Conditions
from vegamite_aggregator.service.inbox import Inbox
from vegamite_aggregator.service.measure import PartitionMeasure
from vegamite_aggregator.service.publisher import Publisher
from vegamite_aggregator.service.report import Reporter
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import BusError, Fetched, Message, Reader
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, SECOND, Micros
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 60.0
"""How often reference data is read again."""

REFRESH_SOON_SECONDS = 2.0
"""How often at most, while a market with records lacks something that its row may tell by now."""

LAST_PUBLISH_SECONDS = 2.0

# What keeps the core busy for some milliseconds. It isn't less on purpose: two threads take turns under the interpreter's
# lock, so that whoever feeds the database waits for it at each turn.
HEAVY_BYTES = 4_000_000 if COMPILED else 50_000
HEAVY_PARTS = 1_000
"""Of seconds to fold, and of trades that have to be taken one by one."""
HEAVY_CANDLES = 1_000
"""Of candles that change, or were read back."""

T = TypeVar("T")


class WorkerOptions(msgspec.Struct, frozen=True):
    """How much a step and a queue take, and how often a silent partition looks at the clock (real seconds).

    `resident_candles` is asked after each step for how many candles may stay in memory.
    """

    batch_records: int
    batch_bytes: int
    queue_bytes: int
    tick_seconds: float
    letter_limit: int
    """How many records may be set apart in a window (`SetApart`)."""
    resident_candles: Callable[[], int]


class _HeldError(Exception):
    """The next record was refused, and may not be set apart any more."""

    def __init__(self, held: RefusedRecord, limit: int) -> None:
        super().__init__(
            f"record {held.record.offset} would be one more than the {limit} that dead_letter_limit allows in an hour; "
            f"{held.reason}: {held.detail}"
        )
        self.offset = held.record.offset


class _HoleError(Exception):
    """What was fetched doesn't follow what is stored; reading starts anew at the stored offset."""


class Worker:
    """Owns one partition from `run` on until `stop`, or until it isn't its owner any more."""

    def __init__(
        self,
        partition: int,
        *,
        store: CandleStore,
        reader: Reader,
        publisher: Publisher,
        reporter: Reporter,
        conditions: Conditions,
        clock: Clock,
        timing: Timing,
        partitions: int,
        options: WorkerOptions,
        thread: Executor,
    ) -> None:
        """`thread` is where heavy work is done: one for all partitions, since two would only take turns."""
        self._partition = partition
        self._store = store
        self._reader = reader
        self._publisher = publisher
        self._reporter = reporter
        self._conditions = conditions
        self._clock = clock
        self._timing = timing
        self._partitions = partitions
        self._options = options
        self._thread = thread
        self._inbox = Inbox(max_bytes=options.queue_bytes)
        self._stopping = False
        self._stop_asked = asyncio.Event()
        self._held_offset: int | None = None
        self._answered: float | None = None
        self._interrupted = False
        self._seek_due = False
        self._refreshed = 0.0
        self._measure = PartitionMeasure()
        self.committed_offset: int | None = None

    def offer(self, fetched: Fetched) -> bool:
        """Take what the poll brought; False where there is no room: then the partition isn't to be read for now."""
        self._answered = time.monotonic()
        return self._inbox.put(fetched)

    @property
    def silent_seconds(self) -> float:
        """How long the log hasn't answered, where it is asked: not while there is enough to do, or no position."""
        if self._answered is None or self._inbox.overflowed or self._inbox:
            return 0.0
        return time.monotonic() - self._answered

    def measured(self) -> PartitionMeasure:
        """Return the partition's figures, as of now."""
        inbox = self._inbox
        self._measure.look(end_offset=inbox.end_offset, fetched_time=inbox.fetched_time)
        return self._measure

    def interrupt(self) -> None:
        """Drop the state and load it again: the log says that the position is none of it."""
        self._interrupted = True
        self._inbox.wake()

    def read_again(self) -> None:
        """Seek anew, the state being what it is: whoever reads may have missed it while the group was changing."""
        self._seek_due = True
        self._inbox.wake()

    def stop(self) -> None:
        """End `run` after the transaction that is under way."""
        self._stopping = True
        self._stop_asked.set()
        self._inbox.wake()

    async def run(self) -> None:
        """Work until `stop`; raises `LogMismatchError` where the log isn't the one that the store knows, and on bugs."""
        publishing = asyncio.create_task(self._publisher.run(), name=f"publish-{self._partition}")
        try:
            await self._work_with_patience(publishing)
            await self._publish_rest()
        finally:
            publishing.cancel()
            await asyncio.wait({publishing})
            self._conditions.forget(self._partition)

    async def _publish_rest(self) -> None:
        """Try to leave nothing for the next owner; what stays is published by that one first."""
        with contextlib.suppress(StoreError, BusError, TimeoutError):
            async with asyncio.timeout(LAST_PUBLISH_SECONDS):
                await self._publisher.publish()

    async def _work_with_patience(self, publishing: "asyncio.Task[None]") -> None:
        backoff = Backoff(first_seconds=0.1, limit_seconds=5.0)
        held_backoff = Backoff(first_seconds=0.5, limit_seconds=15.0)

        def succeeded() -> None:
            self._conditions.went_well(Cause.FAILING, self._partition)
            backoff.reset()

        while not self._stopping:
            delay = 0.0
            try:
                await self._own(succeeded, publishing)
            except _HeldError as held:
                succeeded()
                if held.offset != self._held_offset:
                    self._held_offset = held.offset
                    held_backoff.reset()
                self._conditions.failed(Cause.HELD, self._partition, held)
                delay = held_backoff.next_delay()
            except (FenceLostError, _HoleError) as error:
                STEPS.labels("fence_lost").inc()
                log.info("partition's state is loaded again", reason=str(error))
            except (StoreError, BusError) as error:
                STEPS.labels("failed").inc()
                self._conditions.failed(Cause.FAILING, self._partition, error)
            finally:
                self._inbox.clear()
            await self._pause(delay or backoff.next_delay())

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop_asked.wait()

    async def _own(self, succeeded: Callable[[], None], publishing: "asyncio.Task[None]") -> None:
        """Load, read from where the store says, and take steps until something breaks or a stop is asked for."""
        self._interrupted = False
        state = await self._load()
        self._seek_due = True
        try:
            while not self._stopping and not self._interrupted:
                if self._seek_due or (self._inbox.overflowed and not self._inbox):
                    self._seek_due = False
                    self._inbox.clear()
                    await self._reader.seek({self._partition: state.next_offset})
                    self._answered = time.monotonic()
                await self._inbox.wait(self._options.tick_seconds)
                messages = self._inbox.take(
                    max_records=self._options.batch_records, max_bytes=self._options.batch_bytes
                )
                if await self._step(state, messages):
                    succeeded()
                if publishing.done():
                    publishing.result()
        finally:
            self._answered = None
            await self._reader.forget([self._partition])

    async def _load(self) -> PartitionState:
        """Return the committed state, at a position that the log has."""
        partition = self._partition
        begin = (await self._reader.begin_offsets([partition]))[partition]
        state = await self._store.load(partition, begin_offset=begin)
        end = (await self._reader.end_offsets([partition]))[partition]
        if state.next_offset > end:
            raise LogMismatchError(
                f"partition {partition}: {state.next_offset} records were read, but the log has only {end}; "
                "start once with --new-log-epoch if the log was replaced on purpose"
            )
        if state.next_offset < begin:
            await self._skip(state, begin)
        self._refreshed = time.monotonic()
        self.committed_offset = state.next_offset
        self._measure.loaded(state)
        self._publisher.look()
        return state

    async def _skip(self, state: PartitionState, begin: int) -> None:
        """The log lost what was next: end the open spans where they are stored, and go on at its start."""
        lost_from = state.next_offset
        async with self._store.step(state) as step:
            changes = discontinuity(state, next_offset=begin)
            await step.write(changes)
        self._applied(state, changes)
        DISCONTINUITIES.inc()
        log.warning(
            "the log starts later than what was read; what is missing is no longer covered",
            partition=self._partition,
            stored_offset=lost_from,
            log_start=begin,
        )

    async def _step(self, state: PartitionState, messages: Sequence[Message]) -> bool:
        """Take one step; return whether it proved that store and fence work, or that they have nothing to do."""
        heavy = sum(len(message.value) for message in messages) > HEAVY_BYTES
        intake = await self._read(state, messages, heavy=heavy)
        if intake.held is not None and intake.next_offset == state.next_offset:
            raise _HeldError(intake.held, self._options.letter_limit)
        past = self._log_time(intake)
        if not messages and not due(state, log_time=past, timing=self._timing):
            return bool(self._inbox.fetched_time) and state.next_offset >= self._inbox.end_offset
        await self._make_ready(state, intake)
        started = time.perf_counter()
        async with self._store.step(state) as step:
            if missing := [market for market in intake.markets if market not in state.markets]:
                state.markets.update(await step.markets(missing))
            inserted = await step.insert_trades(intake.trades)
            plan = await self._computed(
                lambda: prepare(
                    state,
                    intake,
                    without_stored(intake.trades, inserted.stored),
                    log_time=past,
                    timing=self._timing,
                ),
                heavy=_parts(state, intake) > HEAVY_PARTS,
            )
            loaded = Loaded() if plan.wants.empty else await step.load(plan.wants)
            state.admit(plan.wants, loaded)
            now = self._clock.now()
            changes = await self._computed(
                lambda: decide(state, plan, loaded, now=now),
                heavy=loaded.count + sum(map(len, plan.deltas.values())) > HEAVY_CANDLES,
            )
            if changes.changed:
                await step.write(changes)
        if changes.changed:
            self._applied(state, changes)
            STEP_SECONDS.observe(time.perf_counter() - started)
            if messages:
                STEP_TRADES.observe(sum(len(batch.trades) for batch in intake.trades))
        LOADED_CANDLES.inc(loaded.count)
        EVICTIONS.inc(state.evict(self._options.resident_candles()))
        STEPS.labels("committed" if changes.changed else "idle").inc()
        self._reporter.intake(intake)
        self._reporter.step(changes.statistics, contradicting=inserted.contradicting)
        if intake.held is not None:
            raise _HeldError(intake.held, self._options.letter_limit)
        if intake.hole is not None:
            raise _HoleError(
                f"partition {self._partition}: record {intake.hole} came, {intake.next_offset} was expected"
            )
        # An intake may end early; nothing else is due before its rest is read.
        self._inbox.put_back([each for each in messages if each.offset >= intake.next_offset])
        return True

    async def _read(
        self, state: PartitionState, messages: Sequence[Message], *, heavy: bool
    ) -> Intake:
        """Return what the records say; again where one names a job that the store has of another market."""
        owners: dict[str, str] = {}
        while True:
            intake = await self._read_knowing(owners, state, messages, heavy=heavy)
            found = await self._store.job_owners(intake.jobs) if intake.jobs else {}
            if not mistaken(intake.jobs, found):
                return intake
            owners.update(found)

    async def _read_knowing(
        self,
        job_owners: Mapping[str, str],
        state: PartitionState,
        messages: Sequence[Message],
        *,
        heavy: bool,
    ) -> Intake:
        letters_left = state.set_apart.left(
            self._options.letter_limit, now=self._clock.now(), window=self._timing.letter_window
        )
        return await self._computed(
            lambda: read_batch(
                state,
                messages,
                partition_of=self._partition_of,
                timing=self._timing,
                letters_left=letters_left,
                job_owners=job_owners,
            ),
            heavy=heavy,
        )

    def _applied(self, state: PartitionState, changes: Changes) -> None:
        """After the commit, and only then: memory follows, and what was written goes out."""
        state.apply(changes)
        self._publisher.committed(changes)
        self._measure.committed(changes)
        self.committed_offset = state.next_offset
        if self._held_offset is not None and state.next_offset > self._held_offset:
            self._held_offset = None
            self._conditions.went_well(Cause.HELD, self._partition)

    async def _computed(self, work: Callable[[], T], *, heavy: bool) -> T:
        """Return what the core makes of it; heavy work in the thread for it, so that whoever shares the loop isn't held up.

        That is safe: the state belongs to this worker, which waits meanwhile.
        """
        if not heavy:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _partition_of(self, key: bytes) -> int:
        return partition_for(key, self._partitions)

    def _log_time(self, intake: Intake) -> Micros | None:
        return log_time(
            next_offset=intake.next_offset,
            last_append_time=intake.last_append_time,
            end_offset=self._inbox.end_offset,
            fetched_time=self._inbox.fetched_time,
            now=self._clock.now(),
            timing=self._timing,
        )

    async def _make_ready(self, state: PartitionState, intake: Intake) -> None:
        """Outside the transaction: rows of new markets, time partitions, and what reference data says by now."""
        await self._store.prepare(intake.markets, _instants(intake))
        age = time.monotonic() - self._refreshed
        lacking = any(
            market in state.markets and _lacks(state, market) for market in intake.markets
        )
        if age > (REFRESH_SOON_SECONDS if lacking else REFRESH_SECONDS):
            await self._store.refresh(state)
            self._refreshed = time.monotonic()


def _instants(intake: Intake) -> Iterator[Micros]:
    """Yield one event time of each day on which the batch has trades, or some more."""
    for batch in intake.trades:
        first, last = earliest(batch.trades), latest(batch.trades)
        yield first
        if first // DAY != last // DAY:
            yield from event_times(batch.trades)


def _parts(state: PartitionState, intake: Intake) -> int:
    """Return about how many seconds and single trades a fold has to do with; an inverse contract rounds trade by trade."""
    parts = 0
    for batch in intake.trades:
        contract = state.markets[batch.market].contract
        if unpacked(batch.trades) or (contract is not None and contract.inverse):
            parts += len(batch.trades)
        else:
            seconds = (latest(batch.trades) - earliest(batch.trades)) // SECOND + 1
            parts += min(seconds, len(batch.trades))
    return parts


def _lacks(state: PartitionState, market: Market) -> bool:
    """Whether reference data may yet tell when the market's tracking started, or what its contract is."""
    known = state.markets[market]
    return known.history_from is None or (known.contract is None and market.parts.type != "spot")
