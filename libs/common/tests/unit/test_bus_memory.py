import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.offset_store import FileOffsetStore
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, Bus, BusError, OffsetOutOfRangeError
from vegamite_common.runtime.clock import SimulatedClock, SystemClock
from vegamite_common.testing.bus_contract import BusContract, numbered, numbers, read, spec_of
from vegamite_common.testing.bus_rebalances import RebalanceContract


class TestMemoryBus(BusContract, RebalanceContract):
    @pytest.fixture
    async def bus(self, clock: SimulatedClock) -> AsyncIterator[Bus]:
        bus = MemoryBus(clock=clock)
        await bus.start()
        yield bus
        await bus.close()


class TestBackPressure:
    """A partition holds what its groups have not read; publishing waits for them, not for plain readers."""

    @pytest.fixture
    async def bus(self) -> AsyncIterator[MemoryBus]:
        bus = MemoryBus(clock=SystemClock(), retained_bytes=100_000, publish_seconds=0.2)
        await bus.start()
        yield bus
        await bus.close()

    async def fill(self, bus: MemoryBus) -> int:
        """Publish records of 1 kB until one is refused; return how many were taken."""
        producer = bus.producer()
        for count in range(1000):
            try:
                await producer.publish(TRADES, 0, [(b"k", b"%d" % count + b" " * 1000)])
            except BusError as error:
                if "its readers did not read" not in str(error):
                    raise
                return count
        raise AssertionError("nobody held the publisher back")

    async def test_publishing_waits_for_a_group_that_does_not_read(self, bus: MemoryBus) -> None:
        member = await bus.join(TRADES, "group")
        await member.seek({0: 0})
        taken = await self.fill(bus)
        assert 50 < taken < 100
        waiting = asyncio.create_task(bus.producer().publish(TRADES, 0, [(b"k", b"x" * 1000)]))
        messages = await read(member, taken)
        assert numbers(messages) == list(range(taken))
        assert (await waiting).base_offset == taken

    async def test_nothing_is_dropped_before_the_group_says_where_it_begins(
        self, bus: MemoryBus
    ) -> None:
        member = await bus.join(TRADES, "group")
        taken = await self.fill(bus)
        await member.seek(await member.begin_offsets([0]))
        assert numbers(await read(member, taken)) == list(range(taken))

    async def test_the_slowest_group_counts(self, bus: MemoryBus) -> None:
        fast, slow = [await bus.join(TRADES, name) for name in ("fast", "slow")]
        for member in (fast, slow):
            await member.seek({0: 0})
        taken = await self.fill(bus)
        await read(fast, taken)
        assert await self.fill(bus) == 0
        await read(slow, taken)
        assert await self.fill(bus) > 50

    async def test_a_group_that_left_and_membership_alone_hold_nobody_up(
        self, bus: MemoryBus
    ) -> None:
        member = await bus.join(TRADES, "group")
        await member.seek({0: 0})
        await bus.join(TRADES, "alone", fetch=False)
        await self.fill(bus)
        await member.close()
        for number in range(500):
            await bus.producer().publish(TRADES, 0, numbered(number, 1))

    async def test_a_plain_reader_that_is_too_slow_loses_the_oldest_records_and_is_told(
        self, bus: MemoryBus
    ) -> None:
        reader = await bus.reader(TRADES)
        await reader.seek({0: 0})
        for _ in range(300):
            await bus.producer().publish(TRADES, 0, [(b"k", b"x" * 1000)])
        with pytest.raises(OffsetOutOfRangeError) as caught:
            await reader.poll(max_records=10, timeout=0)
        assert 0 < caught.value.begin < caught.value.end == 300
        await reader.seek({0: caught.value.begin})
        assert len(await read(reader, 300 - caught.value.begin)) == 300 - caught.value.begin

    async def test_what_was_read_last_can_be_read_again(self, bus: MemoryBus) -> None:
        """A member whose transaction failed goes back a little, however full the partition is."""
        member = await bus.join(TRADES, "group")
        await member.seek({0: 0})
        taken = await self.fill(bus)
        await read(member, taken)
        await self.fill(bus)
        await member.seek({0: taken - 10})
        assert (await read(member, 1))[0].offset == taken - 10

    async def test_a_batch_larger_than_the_room_goes_in_when_all_is_read(
        self, bus: MemoryBus
    ) -> None:
        member = await bus.join(TRADES, "group")
        await member.seek({0: 0})
        ack = await bus.producer().publish(TRADES, 0, [(b"k", b"x" * 1000)] * 300)
        assert ack.count == 300
        with pytest.raises(BusError):
            await bus.producer().publish(TRADES, 0, [(b"k", b"x")])
        assert len(await read(member, 300)) == 300
        await bus.producer().publish(TRADES, 0, [(b"k", b"x")])

    async def test_the_end_of_the_bus_frees_who_waits(self, bus: MemoryBus) -> None:
        patient = MemoryBus(clock=SystemClock(), retained_bytes=1000, publish_seconds=60)
        await patient.start()
        await patient.join(TRADES, "group")
        await patient.producer().publish(TRADES, 0, [(b"k", b"x" * 2000)])
        waiting = asyncio.create_task(patient.producer().publish(TRADES, 0, [(b"k", b"x")]))
        await asyncio.sleep(0)
        await patient.close()
        with pytest.raises(BusError, match="not running"):
            await waiting


class TestOffsets:
    """No offset is used twice, whatever happened to the process."""

    async def test_each_start_begins_after_every_offset_that_was_used(self, tmp_path: Path) -> None:
        used: dict[str, set[int]] = {TRADES: set(), CANDLES: set(), STATUS: set()}
        for _ in range(4):
            # Never closed: as after a kill.
            bus = MemoryBus(
                clock=SystemClock(), offsets=FileOffsetStore(tmp_path / "offsets"), offset_block=10
            )
            await bus.start()
            for topic, count in ((TRADES, 25), (CANDLES, 3)):
                reader = await bus.reader(topic)
                begin = await reader.begin_offsets([0])
                assert begin == await reader.end_offsets([0])
                for number in range(count):
                    ack = await bus.producer().publish(topic, 0, numbered(number, 1))
                    assert ack.base_offset not in used[topic]
                    used[topic].add(ack.base_offset)
                assert min(used[topic]) >= 0
                assert max(used[topic]) == begin[0] + count - 1
        assert len(used[TRADES]) == 100
        assert len(used[CANDLES]) == 12

    async def test_a_block_is_reserved_before_the_first_of_it_is_used(self, tmp_path: Path) -> None:
        file = tmp_path / "offsets"
        bus = MemoryBus(clock=SystemClock(), offsets=FileOffsetStore(file), offset_block=10)
        await bus.start()
        for number in range(50):
            ack = await bus.producer().publish(TRADES, 0, numbered(number, 1))
            assert (await FileOffsetStore(file).load())[TRADES][0] > ack.base_offset

    async def test_nothing_is_appended_where_the_reservation_fails(self, tmp_path: Path) -> None:
        folder = tmp_path / "gone"
        folder.mkdir()
        bus = MemoryBus(clock=SystemClock(), offsets=FileOffsetStore(folder / "offsets"))
        await bus.start()
        folder.rmdir()
        with pytest.raises(BusError, match="can't be written"):
            await bus.producer().publish(TRADES, 0, numbered(0, 1))
        reader = await bus.reader(TRADES)
        assert await reader.end_offsets([0]) == {0: 0}

    async def test_a_stored_position_from_before_the_start_is_out_of_range(
        self, tmp_path: Path
    ) -> None:
        for attempt in range(2):
            bus = MemoryBus(clock=SystemClock(), offsets=FileOffsetStore(tmp_path / "offsets"))
            await bus.start()
            await bus.producer().publish(TRADES, 0, numbered(0, 5))
            member = await bus.join(TRADES, "group")
            await member.seek({0: 2})
            if attempt == 0:
                assert len(await read(member, 3)) == 3
            else:
                with pytest.raises(OffsetOutOfRangeError):
                    await member.poll(max_records=1, timeout=0)


async def test_the_three_topics_are_there_from_the_start_and_the_check_knows_their_partitions() -> (
    None
):
    bus = MemoryBus(clock=SystemClock(), partitions=1)
    await bus.start()
    for topic in (TRADES, CANDLES, STATUS):
        assert await bus.partition_count(topic) == 1
        await bus.check_topics([spec_of(topic, partitions=1)])
        with pytest.raises(BusError, match="12 are needed"):
            await bus.check_topics([spec_of(topic, partitions=12)])


async def test_a_bus_that_was_not_started_is_not_running() -> None:
    bus = MemoryBus(clock=SystemClock())
    with pytest.raises(BusError, match="not running"):
        await bus.producer().publish(TRADES, 0, numbered(0, 1))
    with pytest.raises(BusError, match="not running"):
        await bus.reader(TRADES)
