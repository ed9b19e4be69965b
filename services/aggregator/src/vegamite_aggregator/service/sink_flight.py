"""Records on their way into InfluxDB, some together as a flight: placed, then written, however often that takes.

While one flight is written the next one is placed. They land in their order, so what is behind a flight that was given up
is given up with it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from vegamite_aggregator.core.point import Point
from vegamite_aggregator.metrics import SINK_POINTS, SINK_QUARANTINED, SINK_WRITE_SECONDS
from vegamite_aggregator.ports import PointStore, Rejected, SinkError
from vegamite_aggregator.service.sink_condition import Condition
from vegamite_aggregator.service.sink_mapping import Placed, TopicMapping
from vegamite_common.bus.port import Message
from vegamite_common.runtime.backoff import Backoff

FLIGHTS = 2
"""How many flights there are at the same time: one is placed while the other is written."""

LINE_SHOWN = 500

log = structlog.get_logger(__name__)
AnswerT = TypeVar("AnswerT")


class _Flight:
    """Records on their way together, by partition."""

    def __init__(self, taken: Mapping[int, Sequence[Message]]) -> None:
        self.taken = taken
        self.placed = asyncio.Event()
        self.task: asyncio.Task[None]


class Flights:
    """The flights of one topic, oldest first."""

    def __init__(
        self,
        name: str,
        *,
        mapping: TopicMapping,
        store: PointStore,
        condition: Condition,
        backoff_limit: float,
        landed: Callable[[Mapping[int, Sequence[Message]]], None],
    ) -> None:
        """`landed` is called with a flight's records once InfluxDB has them all; `backoff_limit` is in seconds."""
        self._name = name
        self._mapping = mapping
        self._store = store
        self._condition = condition
        self._backoff_limit = backoff_limit
        self._landed = landed
        self._flights: deque[_Flight] = deque()

    @property
    def room(self) -> bool:
        """Whether another flight may start."""
        return len(self._flights) < FLIGHTS

    def start(self, taken: Mapping[int, Sequence[Message]]) -> None:
        """Send some records off, by partition; none of them before those that are under way."""
        behind = self._flights[-1] if self._flights else None
        flight = _Flight(taken)
        flight.task = asyncio.create_task(self._carry(flight, behind), name=f"{self._name}-flight")
        self._flights.append(flight)

    def first(self) -> list[asyncio.Task[None]]:
        """Return the oldest flight's task, if there is a flight: it ends once the flight has."""
        return [flight.task for flight in list(self._flights)[:1]]

    async def first_ended(self) -> None:
        """Return once the oldest flight, of which there has to be one, has ended."""
        await asyncio.wait(self.first())

    async def land(self) -> frozenset[int]:
        """See to the flights that have ended; raises where one met a bug.

        Where one was given up, all are; then return the partitions that they had records of.
        """
        while self._flights and self._flights[0].task.done():
            if self._flights[0].task.cancelled():
                return await self._give_up()
            self._flights.popleft().task.result()
        return frozenset()

    def give_up_with(self, partitions: frozenset[int]) -> None:
        """Give all flights up if one has records of these partitions; `land` tells."""
        if any(partitions & flight.taken.keys() for flight in self._flights):
            for flight in self._flights:
                flight.task.cancel()

    async def end(self, *, patiently: bool) -> None:
        """Give up what is under way; `patiently`, only what hasn't landed when this is cancelled."""
        tasks = {flight.task for flight in self._flights}
        if not tasks:
            return
        try:
            if patiently:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _give_up(self) -> frozenset[int]:
        flights = list(self._flights)
        self._flights.clear()
        for flight in flights:
            flight.task.cancel()
        await asyncio.wait({flight.task for flight in flights})
        return frozenset(partition for flight in flights for partition in flight.taken)

    async def _carry(self, flight: _Flight, behind: _Flight | None) -> None:
        """Place and write some records, however often it takes, and count them as done; in the order of the flights."""
        taken = flight.taken
        try:
            if behind is not None:
                await behind.placed.wait()
            placed: Placed = await self._insist(lambda: self._mapping.place(taken))
        finally:
            flight.placed.set()
        if behind is not None:
            await asyncio.wait({behind.task})
            if behind.task.cancelled() or behind.task.exception() is not None:
                raise asyncio.CancelledError
        points = placed.placement.points
        rejected: Sequence[Rejected] = ()
        if points:
            rejected = await self._insist(lambda: self._write(points))
        self._condition.went_well(self._name)
        self._landed(taken)
        self._count(placed, rejected)

    async def _write(self, points: Sequence[Point]) -> Sequence[Rejected]:
        begun = time.monotonic()
        rejected = await self._store.write(points)
        SINK_WRITE_SECONDS.observe(time.monotonic() - begun)
        return rejected

    async def _insist(self, action: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """Do it until it is done, with waits between that grow; the state tells why it isn't."""
        backoff = Backoff(first_seconds=0.5, limit_seconds=self._backoff_limit)
        missing = False
        while True:
            try:
                if missing:
                    await self._store.prepare()
                return await action()
            except SinkError as error:
                self._condition.failed(self._name, error)
                missing = missing or error.state == "missing"
            await asyncio.sleep(backoff.next_delay())

    def _count(self, placed: Placed, rejected: Sequence[Rejected]) -> None:
        placement = placed.placement
        expired = sum(one.expired for one in rejected)
        for outcome, count in (
            ("written", len(placement.points) - len(rejected)),
            ("held", placement.held),
            ("expired", placement.expired + expired),
            ("rejected", placement.impossible + len(rejected) - expired),
        ):
            if count:
                SINK_POINTS.labels(self._name, outcome).inc(count)
        for refused in placed.refused:
            SINK_QUARANTINED.labels(refused.reason).inc()
        wrong = [one for one in rejected if not one.expired]
        if wrong:
            log.warning(
                "InfluxDB rejected points",
                stream=self._name,
                count=len(wrong),
                reason=wrong[0].reason,
                line=wrong[0].line[:LINE_SHOWN].decode(errors="replace"),
            )
