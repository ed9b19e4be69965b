"""A stream of the sink whose member brings records with holes: none that the log has is left out."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from vegamite_aggregator.core.placement import Placement
from vegamite_aggregator.core.point import Point
from vegamite_aggregator.ports import Rejected
from vegamite_aggregator.service.sink_condition import Condition
from vegamite_aggregator.service.sink_mapping import Placed
from vegamite_aggregator.service.sink_stream import SinkStream
from vegamite_common.bus.port import Fetched, Message, MissingRecordsError
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.testing.eventually import eventually

BEGIN = 10


class HoledMember:
    """Has partition 0 of a log that lacks offsets; loses what its first poll fetched."""

    def __init__(self, offsets: Iterable[int], *, loses: int = 0) -> None:
        self.log = list(offsets)
        self.loses = loses
        self.position: int | None = None
        self.told: dict[int, int] = {}
        self._assigned = asyncio.Event()
        self._assigned.set()

    @property
    def assignment(self) -> frozenset[int]:
        return frozenset({0})

    async def assignment_changed(self) -> frozenset[int]:
        await self._assigned.wait()
        self._assigned.clear()
        return self.assignment

    async def seek(self, positions: Mapping[int, int]) -> None:
        self.position = positions.get(0, self.position)

    async def forget(self, partitions: Sequence[int]) -> None:
        if 0 in partitions:
            self.position = None

    async def poll(self, *, max_records: int, timeout: float) -> Sequence[Fetched]:  # noqa: ASYNC109
        await asyncio.sleep(0.001)  # how long this log has nothing new; the loop goes on meanwhile
        position = self.position
        ahead = [offset for offset in self.log if position is not None and offset >= position]
        if position is None or not ahead:
            return []
        if ahead[0] != position:
            raise MissingRecordsError("t", partition=0, offset=position, next_offset=ahead[0])
        whole = [offset for at, offset in enumerate(ahead) if offset == position + at]
        self.position = whole[-1] + 1
        lost, self.loses = self.loses, 0
        messages = [Message(0, offset, 1, None, b"x") for offset in whole[lost:]]
        return [Fetched(0, messages, self.log[-1] + 1, 1)]

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, BEGIN)

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, self.log[-1] + 1)

    async def commit(self, positions: Mapping[int, int]) -> None:
        self.told.update(positions)

    async def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        return {}

    async def close(self) -> None:
        """There is nothing to leave."""


class NotedOffsets:
    """A mapping without points that notes what it is asked to place."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def place(self, taken: Mapping[int, Sequence[Message]]) -> Placed:
        self.offsets += [message.offset for message in taken[0]]
        return Placed(Placement(()), ())

    def forget(self, partitions: Iterable[int]) -> None:
        """Nothing is known."""


class NoPoints:
    """A store that nobody needs."""

    async def write(self, points: Sequence[Point]) -> Sequence[Rejected]:
        raise AssertionError(points)


@asynccontextmanager
async def streaming(member: HoledMember, mapping: NotedOffsets) -> AsyncIterator[None]:
    health = Health("sink")
    stream = SinkStream(
        "trades",
        member=member,
        mapping=mapping,
        store=NoPoints(),  # type: ignore[arg-type]
        condition=Condition(health, ("trades",)),
        health=health,
        backoff_limit=0.1,
    )
    stop = Stop()
    running = asyncio.create_task(stream.run(stop))
    yield
    stop.request()
    await running


def lost() -> float:
    name = "vegamite_aggregator_sink_lost_records_total"
    return REGISTRY.get_sample_value(name, {"topic": "trades"}) or 0.0


async def test_what_a_poll_lost_is_read_again_before_anything_behind_it_is_done() -> None:
    member, mapping = HoledMember(range(BEGIN, 20), loses=3), NotedOffsets()
    before = lost()
    async with streaming(member, mapping):
        await eventually(lambda: len(mapping.offsets) >= 10)
    assert mapping.offsets == list(range(BEGIN, 20))
    assert member.told == {0: 20}
    assert lost() == before


async def test_offsets_that_the_log_does_not_have_are_passed_over_and_counted() -> None:
    member, mapping = HoledMember([10, 11, 12, 15, 16]), NotedOffsets()
    before = lost()
    async with streaming(member, mapping):
        await eventually(lambda: len(mapping.offsets) >= 5)
    assert mapping.offsets == [10, 11, 12, 15, 16]
    assert member.told == {0: 17}
    assert lost() == before + 2
