"""Hand-written fakes behind the collector's ports: a clock that is set, a log that can fail, an exchange that follows a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from vegamite_collector.config import CollectorSection
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.core.repair import Page, PageRequest
from vegamite_collector.ports import (
    MarketState,
    OpenGap,
    ReferenceMarket,
    SourceError,
    SourceEvent,
    TrackedMarket,
)
from vegamite_collector.service.writer import PartitionWriter
from vegamite_common.bus.port import STATUS, Ack, BusError, Record
from vegamite_common.domain.time import SECOND
from vegamite_common.messages.status import StatusRecord, decode_status
from vegamite_common.messages.trades import TradesTopicRecord, decode_trades
from vegamite_common.testing.eventually import eventually


class ManualClock:
    """Shows what it is told to; sleeping passes real time, but little."""

    speed = 1.0
    simulated = True

    def __init__(self) -> None:
        self.instant = 1_700_000_000 * SECOND

    def now(self) -> int:
        return self.instant

    def span(self, seconds: float) -> int:
        return round(seconds * SECOND)

    def from_wall(self, wall: int) -> int:
        return wall

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))  # the clock itself


class FakeProducer:
    """Keeps what is published; can be told to fail, to wait, and to be on another clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.records: list[TradesTopicRecord] = []
        self.statuses: list[StatusRecord] = []
        self.attempts = 0
        self.failing = False
        self.skew = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        self.attempts += 1
        await self.gate.wait()
        if self.failing:
            raise BusError("away")
        base = len(self.records)
        if topic == STATUS:
            self.statuses += [decode_status(value) for _, value in records]
        else:
            self.records += [decode_trades(value) for _, value in records]
        return Ack(partition, base, len(records), self.clock.now() + self.skew)

    def kinds(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]


@asynccontextmanager
async def running(
    *, queue_records: int = 100, skew: int = 0
) -> AsyncIterator[tuple[PartitionWriter, FakeProducer, ManualClock]]:
    clock = ManualClock()
    producer = FakeProducer(clock)
    producer.skew = skew
    section = CollectorSection(heartbeat_ms=100, queue_records=queue_records)
    writer = PartitionWriter(3, producer=producer, clock=clock, section=section)
    task = asyncio.create_task(writer.run())
    try:
        yield writer, producer, clock
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class ScriptedSource:
    """An exchange that plays one script a connection: events, pauses until an `Event` is set, then an error, or silence; and pages of history, waiting where there is none yet."""

    def __init__(self, profile: ExchangeProfile) -> None:
        self.profile = profile
        self.scripts: list[list[SourceEvent | SourceError | asyncio.Event]] = []
        self.pages: list[Page | SourceError] = []
        self.requests: list[PageRequest] = []
        self.connections = 0

    @asynccontextmanager
    async def stream(self, symbol: str) -> AsyncIterator[AsyncIterator[SourceEvent]]:
        assert symbol
        self.connections += 1
        yield self._play(self.scripts.pop(0) if self.scripts else [])

    async def _play(
        self, script: list[SourceEvent | SourceError | asyncio.Event]
    ) -> AsyncIterator[SourceEvent]:
        for step in script:
            if isinstance(step, SourceError):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step
        await asyncio.Event().wait()

    async def fetch(self, symbol: str, request: PageRequest) -> Page:
        assert symbol
        self.requests.append(request)
        await eventually(lambda: bool(self.pages))
        answer = self.pages.pop(0)
        if isinstance(answer, SourceError):
            raise answer
        return answer

    async def markets(self, *, reload: bool = False) -> Sequence[ReferenceMarket]:
        assert reload in (True, False)
        return []

    async def close(self) -> None:
        pass


class MemoryStore:
    """A store in memory; only what sessions and repairs use."""

    def __init__(self) -> None:
        self.gaps: list[OpenGap] = []
        self.states: list[tuple[int, MarketState]] = []
        self.ended: set[str] = set()
        self.scans = 0

    async def open_gaps(self, market_keys: Sequence[int], *, before: int) -> Sequence[OpenGap]:
        self.scans += 1
        return [
            gap for gap in self.gaps if gap.market_key in market_keys and gap.span.to_time < before
        ]

    async def ended_jobs(self, jobs: Any) -> frozenset[str]:
        return frozenset(job for job in jobs if job in self.ended)

    async def save_state(self, market_key: int, state: MarketState) -> None:
        self.states.append((market_key, state))

    async def tracked_markets(self) -> Sequence[TrackedMarket]:
        return []


@pytest.fixture
def running_writer() -> Callable[..., Any]:
    """`async with running_writer() as (writer, producer, clock)`."""
    return running


@pytest.fixture
def scripted() -> Callable[[ExchangeProfile], ScriptedSource]:
    return ScriptedSource


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()
