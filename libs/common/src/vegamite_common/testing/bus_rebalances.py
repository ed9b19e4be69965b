# ruff: noqa: D102 -- a test's name says its behaviour
"""Members that come and go at random while records are published: the bus's contract about hand-over, as one suite.

Mix it in beside `BusContract`, whose fixtures it uses.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from vegamite_common.bus.port import Bus, Member
from vegamite_common.testing.bus_contract import ALL, PARTITIONS, WAIT, numbered
from vegamite_common.testing.eventually import eventually

ROUNDS = 6
MOST_MEMBERS = 3


class Shared:
    """What a database would hold: how far each partition is done, and how often each record was read."""

    def __init__(self) -> None:
        self.done = dict.fromkeys(ALL, 0)
        self.reads = Counter[tuple[int, int]]()


class Owner:
    """Reads whatever its member is assigned, from where the partition is done, and checks that nothing is left out."""

    def __init__(self, member: Member, shared: Shared) -> None:
        self.member = member
        self._shared = shared
        self._positions: dict[int, int] = {}
        self._task = asyncio.create_task(self._read())

    async def leave(self) -> None:
        """Stop reading, then leave the group; a failure of the reading comes out here."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()
        await self.member.close()

    def check(self) -> None:
        """Raise what ended the reading, if anything did."""
        if self._task.done():
            self._task.result()

    async def _read(self) -> None:
        while True:
            assignment = self.member.assignment
            if assignment is not None:
                fresh = {at: self._shared.done[at] for at in assignment - self._positions.keys()}
                self._positions = {
                    at: offset for at, offset in self._positions.items() if at in assignment
                } | fresh
                if fresh:
                    await self.member.seek(fresh)
            for fetched in await self.member.poll(max_records=20, timeout=WAIT):
                for message in fetched.messages:
                    self._take(message.partition, message.offset, int(message.value))

    def _take(self, partition: int, offset: int, number: int) -> None:
        expected = self._positions.get(partition)
        assert expected is not None, f"partition {partition} delivered and not asked for"
        assert offset == expected == number, (
            f"partition {partition}: {expected} was next, came {offset}"
        )
        self._positions[partition] = offset + 1
        self._shared.reads[partition, offset] += 1
        self._shared.done[partition] = max(self._shared.done[partition], offset + 1)


def goes_on(owners: Sequence[Owner], shared: Shared, goal: int) -> bool:
    """True once so many records are done; raises what ended anybody's reading."""
    for owner in owners:
        owner.check()
    return sum(shared.done.values()) >= goal


def all_assigned(owners: Sequence[Owner]) -> bool:
    """True while everybody has partitions, and together all of them."""
    shares = [owner.member.assignment or frozenset() for owner in owners]
    return all(shares) and frozenset[int]().union(*shares) == ALL


class RebalanceContract:
    """The suite; `bus` and `topic` are those of `BusContract`."""

    @pytest.mark.parametrize("seed", [1, 2, 3])
    async def test_through_any_rebalances_every_record_is_read_in_order_and_without_a_hole(
        self, bus: Bus, topic: str, seed: int
    ) -> None:
        chance = random.Random(seed)
        shared = Shared()
        owners: list[Owner] = []
        published = dict.fromkeys(ALL, 0)

        async def publish() -> None:
            producer = bus.producer()
            while True:
                partition = chance.randrange(PARTITIONS)
                count = chance.randrange(1, 10)
                await producer.publish(topic, partition, numbered(published[partition], count))
                published[partition] += count
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        for _ in range(ROUNDS):
            if owners and (len(owners) == MOST_MEMBERS or chance.random() < 0.4):
                await owners.pop(chance.randrange(len(owners))).leave()
            if not owners or chance.random() < 0.7:
                owners.append(Owner(await bus.join(topic, f"group-{topic}"), shared))
            if chance.random() < 0.5:
                # Else the next change comes in the middle of this one.
                await eventually(
                    partial(all_assigned, owners), timeout_s=60, message="every partition assigned"
                )
            goal = sum(shared.done.values()) + chance.randrange(1, 200)
            await eventually(
                partial(goes_on, owners, shared, goal), timeout_s=60, message="reading goes on"
            )
        publishing.cancel()
        await asyncio.wait({publishing})
        ends = await owners[0].member.end_offsets(sorted(ALL))
        all_read = partial(goes_on, owners, shared, sum(ends.values()))
        await eventually(all_read, timeout_s=60, message="all is read")
        for owner in owners:
            await owner.leave()
        unread = [
            (p, at) for p, end in ends.items() for at in range(end) if not shared.reads[p, at]
        ]
        assert unread == []
