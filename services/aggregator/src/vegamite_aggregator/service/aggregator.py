"""The process's loop: one poll for all partitions, a worker for each that the group assigns."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from vegamite_aggregator.config import AggregatorSection
from vegamite_aggregator.core.timing import Timing
from vegamite_aggregator.core.trade_block import COMPILED
from vegamite_aggregator.metrics import OUTBOX_AGE, PARTITIONS, WAITING_PARTITIONS
from vegamite_aggregator.ports import CandleStore, LogMismatchError, Outbox, StoreError, UpkeepView
from vegamite_aggregator.service.condition import Conditions
from vegamite_aggregator.service.measure import export_measures, export_upkeep
from vegamite_aggregator.service.publisher import Publisher
from vegamite_aggregator.service.report import Reporter
from vegamite_aggregator.service.worker import Worker, WorkerOptions
from vegamite_common.bus.port import (
    TOPICS,
    TRADES,
    Bus,
    BusError,
    Member,
    OffsetOutOfRangeError,
)
from vegamite_common.domain.time import DAY
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import StartError, Stop
from vegamite_common.runtime.logging import RepeatedFault
from vegamite_common.runtime.metrics import tell_build

log = structlog.get_logger(__name__)

POLL_RECORDS = 500
"""Most records of one poll: to unpack them takes some milliseconds, in which nothing else is done."""

POLL_SECONDS = 0.5
"""How long a poll waits for records; well below the age at which a look at the log's end is too old."""

SETTLE_SECONDS = 5.0
"""After so long without a failure the log can be read again: other partitions' records come between those of one that can't."""

LAG_COMMIT_SECONDS = 5.0
MEASURE_SECONDS = 2.0
HEALTH_SECONDS = 0.5
OUTBOX_SECONDS = 5.0
UPKEEP_SECONDS = 30.0
AHEAD_SECONDS = 3600.0
AHEAD_DAYS = 2
UNASSIGNED_SECONDS = 10.0
"""How long a group may be without assignments before its partitions are taken for somebody else's."""

WORKER_STOP_SECONDS = 10.0


def timing_of(clock: Clock) -> Timing:
    """Return the lengths of time that decide, in the clock's microseconds."""
    return Timing(
        grace=clock.span(30),
        job_silence=clock.span(60),
        restore_silence=clock.span(3600),
        span_silence=clock.span(600),
        future=clock.span(5),
        letter_window=clock.span(3600),
        fetch_age=clock.span(1),
    )


class AggregatorService:
    """Consumes trades, keeps trades and candles, and publishes changed candles; `Service` of the lifecycle."""

    name = "aggregator"

    def __init__(
        self,
        *,
        bus: Bus,
        store: CandleStore,
        outbox: Outbox,
        clock: Clock,
        section: AggregatorSection,
        new_log_epoch: bool = False,
        upkeep: UpkeepView | None = None,
    ) -> None:
        self._upkeep = upkeep
        self.health = Health("aggregator")
        self._bus = bus
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._section = section
        self._new_log_epoch = new_log_epoch
        self._timing = timing_of(clock)
        self._reporter = Reporter(clock)
        self._conditions = Conditions(patience_seconds=section.unready_seconds)
        self._partitions = 0
        self._workers: dict[int, Worker] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fold")

    async def run(self, stop: Stop) -> None:
        """Work until `stop`, then end each partition's transaction, and leave the group.

        Raises `StartError` where the log isn't the one that the store knows.
        """
        tell_build(self.name)
        member = await self._join(stop)
        if member is None:
            return
        try:
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(self._poll(member), name="poll"),
                    group.create_task(self._follow_assignment(member, group), name="assignment"),
                    group.create_task(self._commit_for_lag(member), name="lag"),
                    group.create_task(self._make_partitions_ahead(), name="ahead"),
                    group.create_task(self._keep_measuring(), name="measures"),
                    group.create_task(self._measure_outbox(), name="outbox"),
                    group.create_task(self._watch_upkeep(), name="upkeep"),
                    group.create_task(self._tell_health(), name="health"),
                ]
                self.health.set_ready(ready=True)
                await stop.wait()
                self.health.set_ready(ready=False, reason="stopping")
                for loop in loops:
                    loop.cancel()
                await self._stop_workers(frozenset(self._workers))
        except BaseExceptionGroup as group:
            raise _as_refusal(group) from None
        finally:
            self._thread.shutdown(wait=False)
            await member.close()

    async def _join(self, stop: Stop) -> Member | None:
        """Check that log and store belong together, and join the group; None where a stop came first."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
        fault = RepeatedFault("waiting for log and database", over="log and database are there")
        while not stop.requested:
            self.health.beat()
            try:
                self._partitions = await self._count_partitions()
                epoch = await self._store.open_log(
                    partitions=self._partitions, new_epoch=self._new_log_epoch
                )
                member = await self._bus.join(TRADES, self._section.group, fetch=True)
            except LogMismatchError as mismatch:
                raise StartError(str(mismatch)) from None
            except (BusError, StoreError) as error:
                fault.failed(error)
                self.health.set_ready(ready=False, reason=f"waiting for log and database: {error}")
                await stop.wait_for(backoff.next_delay())
                continue
            fault.went_well()
            log.info(
                "aggregator joined",
                partitions=self._partitions,
                log_epoch=epoch,
                compiled_core=COMPILED,
            )
            return member
        return None

    async def _count_partitions(self) -> int:
        """Return how many partitions the topics have; raise `BusError` unless all are there, with the same number."""
        counts = {topic: await self._bus.partition_count(topic) for topic in TOPICS}
        for topic, count in counts.items():
            if count != counts[TRADES]:
                raise BusError(f"topic {topic} has {count} partitions, {TRADES} {counts[TRADES]}")
        return counts[TRADES]

    async def _poll(self, member: Member) -> None:
        """Hand what the log has to the workers; one that is full is left out until it asks again."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
        fault = RepeatedFault(
            "the log can't be read",
            over="the log can be read again",
            settle_seconds=SETTLE_SECONDS,
        )
        while True:
            self.health.beat()
            try:
                fetched = await member.poll(
                    max_records=min(POLL_RECORDS, self._section.batch_max_records),
                    timeout=POLL_SECONDS,
                )
            except OffsetOutOfRangeError as error:
                await member.forget([error.partition])
                if error.partition in self._workers:
                    self._workers[error.partition].interrupt()
                continue
            except BusError as error:
                fault.failed(error)
                await asyncio.sleep(backoff.next_delay())
                continue
            fault.went_well()
            backoff.reset()
            for item in fetched:
                worker = self._workers.get(item.partition)
                if worker is not None and not worker.offer(item):
                    await member.forget([item.partition])
            # What is buffered already comes without a pause, and whoever feeds the database needs one.
            await asyncio.sleep(0)

    async def _follow_assignment(self, member: Member, group: asyncio.TaskGroup) -> None:
        """Have a worker for each assigned partition; while the group is changing, those there are go on."""
        assigned = member.assignment
        known: frozenset[int] | None = None
        while True:
            if assigned is None:
                try:
                    async with asyncio.timeout(UNASSIGNED_SECONDS):
                        assigned = await member.assignment_changed()
                    continue
                except TimeoutError:
                    assigned = frozenset()
            await self._stop_workers(frozenset(self._workers) - assigned)
            for worker in self._workers.values():
                worker.read_again()
            for partition in sorted(assigned - frozenset(self._workers)):
                self._start_worker(partition, member, group)
            if assigned != known:
                log.info("partitions assigned", partitions=sorted(assigned))
                PARTITIONS.set(len(assigned))
            known = assigned
            assigned = await member.assignment_changed()

    def _start_worker(self, partition: int, member: Member, group: asyncio.TaskGroup) -> None:
        section = self._section
        worker = Worker(
            partition,
            store=self._store,
            reader=member,
            publisher=Publisher(
                partition,
                outbox=self._outbox,
                producer=self._bus.producer(),
                interval=section.update_interval_ms / 1000,
                conditions=self._conditions,
            ),
            reporter=self._reporter,
            conditions=self._conditions,
            clock=self._clock,
            timing=self._timing,
            partitions=self._partitions,
            options=WorkerOptions(
                batch_records=section.batch_max_records,
                batch_bytes=section.batch_max_bytes,
                queue_bytes=section.queue_max_bytes,
                tick_seconds=section.tick_interval_ms / 1000,
                letter_limit=section.dead_letter_limit,
                resident_candles=lambda: section.resident_candles // max(1, len(self._workers)),
            ),
            thread=self._thread,
        )
        self._workers[partition] = worker
        self._tasks[partition] = group.create_task(worker.run(), name=f"partition-{partition}")

    async def _stop_workers(self, partitions: frozenset[int]) -> None:
        """Let the workers end their transactions; one that doesn't in time is cancelled, and its transaction with it."""
        tasks = {self._tasks.pop(partition) for partition in partitions}
        for partition in partitions:
            self._workers.pop(partition).stop()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=WORKER_STOP_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _commit_for_lag(self, member: Member) -> None:
        """Tell the group now and then how far the store is: for lag metrics and scaling alone, nobody reads it."""
        told: dict[int, int] = {}
        while True:
            await asyncio.sleep(LAG_COMMIT_SECONDS)
            positions = {
                partition: worker.committed_offset
                for partition, worker in self._workers.items()
                if worker.committed_offset is not None
                and worker.committed_offset != told.get(partition)
            }
            if not positions:
                continue
            try:
                await member.commit(positions)
            except BusError:
                continue  # the next one says it again
            told.update(positions)

    async def _keep_measuring(self) -> None:
        """Let the metrics follow the partitions: also while none of them gets anywhere."""
        while True:
            export_measures(
                {partition: worker.measured() for partition, worker in self._workers.items()},
                self._clock,
            )
            await asyncio.sleep(MEASURE_SECONDS)

    async def _measure_outbox(self) -> None:
        """Let a metric tell how long the oldest committed record has waited; while nobody can say, it grows."""
        age, asked = 0.0, time.monotonic()
        while True:
            now = time.monotonic()
            try:
                age = await self._outbox.age(list(self._workers))
            except StoreError:
                age += now - asked if age else 0.0
            asked = now
            OUTBOX_AGE.set(age)
            await asyncio.sleep(OUTBOX_SECONDS)

    async def _tell_health(self) -> None:
        """Be ready while nothing that this process has to do has failed for long."""
        while True:
            for partition, worker in self._workers.items():
                self._conditions.watch_log(partition, silent_seconds=worker.silent_seconds)
            for cause, count in self._conditions.counts().items():
                WAITING_PARTITIONS.labels(cause).set(count)
            reason = self._conditions.reason()
            self.health.set_ready(ready=reason is None, reason=reason or "")
            await asyncio.sleep(HEALTH_SECONDS)

    async def _watch_upkeep(self) -> None:
        """Let the metrics follow what maintenance does, whoever runs it."""
        while self._upkeep is not None:
            try:
                export_upkeep(await self._upkeep.upkeep(), self._clock)
            except StoreError as error:
                log.debug("the state of maintenance can't be read", error=str(error))
            await asyncio.sleep(UPKEEP_SECONDS)

    async def _make_partitions_ahead(self) -> None:
        """Make the time partitions of the coming days before their first trade needs them."""
        while True:
            now = self._clock.now()
            try:
                await self._store.prepare((), [now + day * DAY for day in range(AHEAD_DAYS + 1)])
            except StoreError as error:
                log.warning("time partitions can't be made ahead", error=str(error))
            await asyncio.sleep(max(1.0, AHEAD_SECONDS / self._clock.speed))


def _as_refusal(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the refusal to work with this log, where the group is nothing else; else the group, which holds a bug."""
    mismatches, others = group.split(LogMismatchError)
    if mismatches is None or others is not None:
        return group
    first: BaseException = mismatches
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return StartError(str(first))
