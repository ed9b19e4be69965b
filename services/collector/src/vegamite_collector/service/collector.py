"""`CollectorService`: which partitions are held, which markets are in them, and a session for each; start, life and drain."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from vegamite_collector import metrics
from vegamite_collector.config import CollectorSection
from vegamite_collector.core.demo import DEMO_MARKET
from vegamite_collector.core.ownership import Ownership
from vegamite_collector.ports import ExchangeRow, MarketStore, SourceFactory, TrackedMarket
from vegamite_collector.service.reference import ReferenceData
from vegamite_collector.service.repairer import Held, Repairer
from vegamite_collector.service.session import MarketSession
from vegamite_collector.service.sources import Sources
from vegamite_collector.service.states import SourceStates
from vegamite_collector.service.tracking import TrackedMarkets
from vegamite_collector.service.writer import PartitionWriter
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import STATUS, TRADES, Bus, BusError, Member
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.runtime.metrics import replace_values, tell_build

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
FLUSH_SECONDS = 10.0
SKEW_LEAVE_SECONDS = 60.0
UNREADY_SECONDS = 10.0
"""For so long (real seconds) the log may acknowledge nothing, not even heartbeats, before the process isn't ready."""


@dataclass
class _Partition:
    writer: PartitionWriter
    task: asyncio.Task[None]
    sessions: dict[Market, tuple[MarketSession, asyncio.Task[None]]] = field(default_factory=dict)


class CollectorService:
    """Collects the tracked markets of the partitions that the consumer group gives to this process."""

    name = "collector"

    def __init__(
        self,
        *,
        bus: Bus,
        store: MarketStore,
        sources: SourceFactory,
        clock: Clock,
        section: CollectorSection,
        list_exchanges: Callable[[], list[ExchangeRow]],
    ) -> None:
        self.health = Health("collector")
        self._bus = bus
        self._store = store
        self._clock = clock
        self._section = section
        self._list_exchanges = list_exchanges
        self._sources = Sources(sources)
        self._tracked = TrackedMarkets(
            store=store, clock=clock, refresh_seconds=section.refresh_seconds
        )
        self._reference = ReferenceData(
            store=store,
            sources=self._sources,
            clock=clock,
            refresh_seconds=section.reference_hours * 3600,
        )
        self._repairer = Repairer(
            store=store,
            sources=self._sources,
            clock=clock,
            section=section,
            held=self._held_markets,
        )
        self._ownership = Ownership(
            grace=clock.span(section.release_seconds),
            patience=clock.span(section.unassigned_seconds),
        )
        self._partitions: dict[int, _Partition] = {}
        self._partition_count = 0
        self._seen: tuple[frozenset[int], int] | None = None
        self._states: SourceStates | None = None

    async def run(self, stop: Stop) -> None:
        """Collect until `stop` is requested, then close every span, write what is queued, and leave the group."""
        tell_build(self.name)
        if not await self._connect(stop):
            return
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(loop, name=name)
                for name, loop in (
                    ("exchanges", self._list_all_exchanges()),
                    ("tracked markets", self._tracked.run_schedule()),
                    ("notifications", self._tracked.run_notifications()),
                    ("reference", self._reference.run()),
                    ("repairs", self._repairer.run()),
                    ("states", self._flush_states()),
                    ("tick", self._tick(group)),
                )
            ]
            membership = group.create_task(self._follow_group(), name="membership")
            await stop.wait()
            self.health.set_ready(ready=False, reason="stopping")
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._drain()
            # Last: the next owner begins where everything of this one is in the log.
            membership.cancel()

    async def _connect(self, stop: Stop) -> bool:
        """Learn how many partitions there are; False where a stop came first."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=10.0)
        while not stop.requested:
            self.health.beat()
            try:
                self._partition_count = await self._bus.partition_count(TRADES)
                status_partitions = await self._bus.partition_count(STATUS)
            except BusError as error:
                self.health.set_ready(ready=False, reason=f"the log can't be reached: {error}")
                await stop.wait_for(backoff.next_delay())
                continue
            self._states = SourceStates(
                store=self._store,
                producer=self._bus.producer(),
                status_partitions=status_partitions,
                clock=self._clock,
            )
            return True
        return False

    async def _list_all_exchanges(self) -> None:
        await self._reference.save_exchanges(await asyncio.to_thread(self._list_exchanges))

    async def _flush_states(self) -> None:
        assert self._states is not None
        while True:
            await self._states.flush()
            await self._clock.sleep(TICK_SECONDS)

    async def _follow_group(self) -> None:
        """Be a member of the group, and of none for a while where the clocks have differed for a minute."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=10.0)
        while True:
            try:
                member = await self._bus.join(TRADES, self._section.group, fetch=False)
            except BusError as error:
                log.warning("can't join the group", error=str(error))
                await self._clock.sleep(backoff.next_delay())
                continue
            backoff.reset()
            try:
                await self._follow(member)
            finally:
                await member.close()
            log.warning("left the group: the log's clock differs from ours")
            self._ownership.assign(frozenset(), self._clock.now())
            await self._clock.sleep(SKEW_LEAVE_SECONDS)

    async def _follow(self, member: Member) -> None:
        """Take over the assignment whenever it changes; returns once the clocks have differed for too long."""
        limit = self._clock.span(SKEW_LEAVE_SECONDS)
        self._ownership.assign(member.assignment, self._clock.now())
        changed = asyncio.ensure_future(member.assignment_changed())
        try:
            while not self._skewed_for(limit):
                await asyncio.wait({changed}, timeout=1.0)
                if changed.done():
                    assignment = changed.result()
                    log.info(
                        "assignment",
                        partitions=sorted(assignment) if assignment is not None else None,
                    )
                    self._ownership.assign(assignment, self._clock.now())
                    changed = asyncio.ensure_future(member.assignment_changed())
        finally:
            changed.cancel()

    def _skewed_for(self, limit: int) -> bool:
        now = self._clock.now()
        return any(part.writer.skew.exceeds(limit, now) for part in self._partitions.values())

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        while True:
            self.health.beat()
            await self._reconcile(group)
            self._measure()
            await self._clock.sleep(TICK_SECONDS)

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        """Make what runs match what is held and tracked."""
        held = self._ownership.held(self._clock.now())
        if not self._tracked.loaded:
            self.health.set_ready(ready=False, reason="the tracked markets are not loaded yet")
            # Heartbeats go to every partition held, markets or not.
            self._hold_partitions(group, held)
            return
        self._tell_health()
        seen = (held, self._tracked.version)
        if seen == self._seen:
            return
        self._hold_partitions(group, held)
        wanted: dict[int, dict[Market, TrackedMarket]] = {partition: {} for partition in held}
        for tracked in self._tracked.all():
            partition = partition_for(tracked.market.key.encode(), self._partition_count)
            if partition in wanted:
                wanted[partition][tracked.market] = tracked
        for partition, part in list(self._partitions.items()):
            markets = wanted.get(partition, {})
            gone = [market for market in part.sessions if market not in markets]
            cause = "untracked" if partition in held else "moved"
            await self._end_sessions(part, gone, cause=cause)
            if partition not in held:
                await self._release(partition)
                continue
            for market, tracked in markets.items():
                if market not in part.sessions:
                    self._begin_session(group, part, tracked)
        in_use = {market.exchange for part in self._partitions.values() for market in part.sessions}
        self._reference.exchanges = in_use
        self._count_tracked(in_use)
        await self._sources.keep_only(in_use)
        self._seen = seen

    def _tell_health(self) -> None:
        """Be ready unless the log has acknowledged nothing for a partition that is held, for too long."""
        limit = self._clock.now() - self._clock.span(UNREADY_SECONDS)
        silent = {
            partition: part.writer.fault
            for partition, part in sorted(self._partitions.items())
            if part.writer.acknowledged_time < limit
        }
        if not silent:
            self.health.set_ready(ready=True)
            return
        named = ", ".join(map(str, silent))
        fault = next((text for text in silent.values() if text), "no answer")
        self.health.set_ready(
            ready=False, reason=f"the log doesn't take records (partitions {named}): {fault}"
        )

    def _hold_partitions(self, group: asyncio.TaskGroup, held: frozenset[int]) -> None:
        for partition in sorted(held - self._partitions.keys()):
            writer = PartitionWriter(
                partition, producer=self._bus.producer(), clock=self._clock, section=self._section
            )
            task = group.create_task(writer.run(), name=f"partition {partition}")
            self._partitions[partition] = _Partition(writer, task)

    def _begin_session(
        self, group: asyncio.TaskGroup, part: _Partition, tracked: TrackedMarket
    ) -> None:
        assert self._states is not None
        session = MarketSession(
            tracked,
            sources=self._sources,
            writer=part.writer,
            states=self._states,
            clock=self._clock,
            on_hole=self._repairer.want,
        )
        task = group.create_task(session.run(), name=f"market {tracked.market.key}")
        part.sessions[tracked.market] = (session, task)

    async def _end_sessions(self, part: _Partition, markets: list[Market], *, cause: str) -> None:
        assert self._states is not None
        ending: list[Coroutine[Any, Any, Any] | asyncio.Task[None]] = []
        for market in markets:
            session, task = part.sessions.pop(market)
            session.cause_of_end = cause
            task.cancel()
            ending.append(task)
            self._repairer.stop(market)
            self._states.forget(market)
        await asyncio.gather(*ending, return_exceptions=True)

    async def _release(self, partition: int) -> None:
        """Write what is queued and stop writing the partition."""
        part = self._partitions.pop(partition)
        await self._flush([part])
        part.task.cancel()

    async def _drain(self) -> None:
        assert self._states is not None
        for part in self._partitions.values():
            stopped = [session.tracked for session, _ in part.sessions.values()]
            await self._end_sessions(part, [tracked.market for tracked in stopped], cause="stopped")
            for tracked in stopped:
                self._states.set(tracked, "pending", reason="the collector was stopped")
        await self._flush(list(self._partitions.values()))
        for part in self._partitions.values():
            part.task.cancel()
        self._partitions.clear()
        await self._states.flush()
        await self._sources.close()

    async def _flush(self, parts: list[_Partition]) -> None:
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await asyncio.gather(*(part.writer.flush() for part in parts))
        except TimeoutError:
            log.warning(
                "the log didn't take everything in time",
                records=sum(p.writer.queued for p in parts),
            )

    def _held_markets(self) -> dict[Market, Held]:
        return {
            market: Held(session.tracked, part.writer)
            for part in self._partitions.values()
            for market, (session, _) in part.sessions.items()
        }

    def _count_tracked(self, in_use: Iterable[str]) -> None:
        counts = Counter((tracked.market.exchange,) for tracked in self._tracked.all())
        replace_values(metrics.TRACKED_MARKETS, counts)
        for exchange in in_use:
            metrics.show_exchange(exchange, simulated=exchange == DEMO_MARKET.exchange)

    def _measure(self) -> None:
        writers = [part.writer for part in self._partitions.values()]
        metrics.PARTITIONS.set(len(writers))
        metrics.QUEUE_RECORDS.set(sum(writer.queued for writer in writers))
        now = self._clock.now()
        through = min((writer.claimed_through for writer in writers), default=now)
        metrics.COVERAGE_LAG.set(max(0.0, (now - through) / SECOND / self._clock.speed))
        newest: dict[tuple[str], Micros] = {}
        for part in self._partitions.values():
            for market, (session, _) in part.sessions.items():
                if session.newest_event_time is not None:
                    key = (market.exchange,)
                    newest[key] = max(session.newest_event_time, newest.get(key, 0))
        replace_values(
            metrics.NEWEST_TRADE,
            {key: (now - at) / SECOND / self._clock.speed for key, at in newest.items()},
        )
