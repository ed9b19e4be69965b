"""The role `influx`: trades and candles, as the topics have them, into InfluxDB.

Nothing of PostgreSQL is needed for that. Candles that were revised in bulk are in no topic: they alone come from there,
and are counted where it isn't asked, as far as the topic that tells of them can be read: nothing else waits for that.
"""

import asyncio
from collections.abc import Mapping

import structlog

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.metrics import SINK_LAG, SINK_LAG_SECONDS
from vegamite_aggregator.ports import CandleReader, PointStore, SinkError
from vegamite_aggregator.service.aggregator import timing_of
from vegamite_aggregator.service.sink_condition import Condition
from vegamite_aggregator.service.sink_mapping import CandleMapping, TopicMapping, TradeMapping
from vegamite_aggregator.service.sink_revision import (
    STREAM,
    UNREAD_STREAM,
    RevisionMapping,
    UnreadMapping,
)
from vegamite_aggregator.service.sink_stream import SinkStream
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, Bus, BusError
from vegamite_common.domain.time import SECOND
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.runtime.logging import RepeatedFault
from vegamite_common.runtime.metrics import replace_values, tell_build

MEASURE_SECONDS = 2.0
STREAMS = {"trades": TRADES, "candles": CANDLES}
"""What the sink reads, each in a group of its own."""

REVISED_STREAMS = {**STREAMS, STREAM: STATUS}
"""What it reads where it may ask PostgreSQL, too."""

log = structlog.get_logger(__name__)


class SinkService:
    """Writes to InfluxDB until it is stopped; `Service` of the lifecycle."""

    name = "aggregator"

    def __init__(
        self,
        *,
        bus: Bus,
        stores: Mapping[str, PointStore],
        clock: Clock,
        section: InfluxSection,
        reader: CandleReader | None = None,
    ) -> None:
        """Take a store for each of `STREAMS`, with `reader` of `REVISED_STREAMS`: each has its own flight under way."""
        self._reader = reader
        self._topics = STREAMS if reader is None else REVISED_STREAMS
        self.health = Health("sink")
        self._bus = bus
        self._stores = stores
        self._clock = clock
        self._section = section
        self._condition = Condition(self.health, (*self._topics, UNREAD_STREAM))
        self._streams: list[SinkStream] = []

    async def run(self, stop: Stop) -> None:
        """Make the buckets, join both groups, and write; InfluxDB or the log may be away as long as they like."""
        tell_build(self.name, component="sink")
        if not await self._prepare(stop):
            return
        try:
            for name, topic in self._topics.items():
                if not await self._open_stream(name, topic, stop):
                    return
            log.info(
                "sink joined", groups=[f"{self._section.group}.{name}" for name in self._topics]
            )
            async with asyncio.TaskGroup() as group:
                measuring = group.create_task(self._keep_measuring(), name="sink-measures")
                running = [group.create_task(stream.run(stop)) for stream in self._streams]
                if self._reader is None:
                    running.append(group.create_task(self._count_unread(stop)))
                await asyncio.wait(running)
                measuring.cancel()
        finally:
            self.health.set_ready(ready=False, reason="stopping")
            for stream in self._streams:
                await stream.close()

    async def _prepare(self, stop: Stop) -> bool:
        """Have the buckets; False where a stop came first."""
        backoff = Backoff(first_seconds=0.5, limit_seconds=self._backoff_limit)
        while not stop.requested:
            self.health.beat()
            try:
                await self._stores["trades"].prepare()
            except SinkError as error:
                for name in self._topics:
                    self._condition.failed(name, error)
                await stop.wait_for(backoff.next_delay())
                continue
            for name in (*self._topics, UNREAD_STREAM):
                self._condition.went_well(name)
            return True
        return False

    async def _count_unread(self, stop: Stop) -> None:
        """Count what isn't read, in a group of its own: whoever reads it one day begins where that one's group is."""
        if await self._open_stream(UNREAD_STREAM, STATUS, stop):
            await self._streams[-1].run(stop)

    async def _open_stream(self, name: str, topic: str, stop: Stop) -> bool:
        """Join the topic's group; False where a stop came first."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
        fault = RepeatedFault("the sink waits for the log", over="the log is there")
        while not stop.requested:
            self.health.beat()
            try:
                partitions = await self._bus.partition_count(topic)
                member = await self._bus.join(topic, f"{self._section.group}.{name}", fetch=True)
            except BusError as error:
                fault.failed(error)
                await stop.wait_for(backoff.next_delay())
                continue
            fault.went_well()
            self._streams.append(
                SinkStream(
                    name,
                    member=member,
                    mapping=self._mapping(name, partitions),
                    store=self._stores.get(name, self._stores["candles"]),
                    condition=self._condition,
                    health=self.health,
                    backoff_limit=self._backoff_limit,
                )
            )
            return True
        return False

    def _mapping(self, name: str, partitions: int) -> TopicMapping:
        if name == UNREAD_STREAM:
            return UnreadMapping(partitions=partitions)
        store = self._stores[name]
        if name == "candles":
            return CandleMapping(store, self._section, clock=self._clock, partitions=partitions)
        if self._reader is not None and name == STREAM:
            candles = next(stream for stream in self._streams if stream.name == "candles")
            return RevisionMapping(
                store,
                self._reader,
                self._section,
                clock=self._clock,
                partitions=partitions,
                candles_written=candles.all_written,
            )
        return TradeMapping(
            store,
            self._section,
            clock=self._clock,
            timing=timing_of(self._clock),
            partitions=partitions,
        )

    @property
    def _backoff_limit(self) -> float:
        return self._section.max_retry_interval_ms / 1000

    async def _keep_measuring(self) -> None:
        """Let the lag follow the partitions: also while InfluxDB takes nothing."""
        while True:
            lag: dict[tuple[str, int], float] = {}
            seconds: dict[tuple[str, int], float] = {}
            now = self._clock.now()
            for stream in self._streams:
                for partition, progress in stream.partitions.items():
                    at = (stream.name, partition)
                    lag[at] = max(0, progress.inbox.end_offset - progress.position)
                    behind = progress.append_time is not None and lag[at] > 0
                    age = now - (progress.append_time or now)
                    seconds[at] = max(0.0, age / SECOND) if behind else 0.0
            replace_values(SINK_LAG, lag)
            replace_values(SINK_LAG_SECONDS, seconds)
            await asyncio.sleep(MEASURE_SECONDS)
