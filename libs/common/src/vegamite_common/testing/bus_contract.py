# ruff: noqa: D102 -- a test's name says its behaviour
"""What every adapter of the bus has to keep, as one suite: subclass it and give it a `bus` fixture.

The bus under test is started, on the clock of the fixture `clock`. Each test makes a topic of its own.
"""

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from vegamite_common.bus.port import (
    Bus,
    BusError,
    Fetched,
    Member,
    Message,
    OffsetOutOfRangeError,
    Reader,
    Record,
    TopicSpec,
)
from vegamite_common.domain.time import SECOND
from vegamite_common.runtime.clock import SimulatedClock, wall_now
from vegamite_common.testing.eventually import eventually

PARTITIONS = 4
ALL = frozenset(range(PARTITIONS))
WAIT = 0.2


def spec_of(topic: str, *, partitions: int = PARTITIONS) -> TopicSpec:
    """A topic with an hour's retention and one replica."""
    return TopicSpec(topic=topic, partitions=partitions, replication=1, retention_ms=3_600_000)


def numbered(first: int, count: int, *, key: bytes | None = b"k") -> list[Record]:
    """Records whose values are the numbers from `first` on."""
    return [(key, b"%d" % number) for number in range(first, first + count)]


def numbers(messages: Sequence[Message]) -> list[int]:
    """The numbers that were published."""
    return [int(message.value) for message in messages]


async def read(reader: Reader, count: int) -> list[Message]:
    """Poll until `count` messages have come, and return all that came."""
    got: list[Message] = []

    async def enough() -> bool:
        for fetched in await reader.poll(max_records=1000, timeout=WAIT):
            got.extend(fetched.messages)
        return len(got) >= count

    await eventually(enough, message=f"{count} messages")
    return got


async def read_nothing(reader: Reader, *, polls: int = 3) -> None:
    """Poll a few times and fail on any message."""
    for _ in range(polls):
        fetched = await reader.poll(max_records=1000, timeout=WAIT)
        came = [message for item in fetched for message in item.messages]
        assert came == [], f"expected nothing, got {came[:3]}"


async def assigned(member: Member, expected: frozenset[int] | None = None) -> frozenset[int]:
    """Wait until the member has an assignment, or exactly the expected one."""

    async def settled() -> bool:
        now = member.assignment
        return now is not None and (expected is None or now == expected)

    await eventually(settled, timeout_s=30, message=f"the assignment {expected}")
    return member.assignment or frozenset()


class BusContract:
    """The suite. A subclass gives `bus`: started, and closed by the fixture."""

    @pytest.fixture
    def clock(self) -> SimulatedClock:
        """A clock in 2019 that runs ten times as fast as the machine's, so that the two can't be mixed up."""
        return SimulatedClock(origin=1_570_000_000 * SECOND, wall_origin=wall_now(), speed=10.0)

    @pytest.fixture
    async def topic(self, bus: Bus) -> str:
        """A fresh topic."""
        name = f"contract-{uuid.uuid4().hex}"
        await bus.create_topics([spec_of(name)])
        return name

    @pytest.fixture
    async def reader(self, bus: Bus, topic: str) -> Reader:
        """A reader of the topic, from its first record on."""
        reader = await bus.reader(topic)
        await reader.seek(dict.fromkeys(ALL, 0))
        return reader

    async def test_a_partition_keeps_the_order_of_what_was_published(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        producer = bus.producer()
        for first in range(0, 100, 10):
            await producer.publish(topic, 2, numbered(first, 10))
        messages = await read(reader, 100)
        assert numbers(messages) == list(range(100))
        assert [message.offset for message in messages] == list(range(100))
        assert {message.partition for message in messages} == {2}

    async def test_calls_that_overlap_keep_their_order_too(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        producer = bus.producer()
        await asyncio.gather(
            *(producer.publish(topic, 1, numbered(first, 5)) for first in range(0, 300, 5))
        )
        assert numbers(await read(reader, 300)) == list(range(300))

    async def test_records_go_to_the_partition_that_was_named_whatever_their_key(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        producer = bus.producer()
        for partition in ALL:
            await producer.publish(topic, partition, [(b"the same key", b"%d" % partition)])
        messages = await read(reader, PARTITIONS)
        assert {message.partition: int(message.value) for message in messages} == {
            partition: partition for partition in ALL
        }

    async def test_keys_and_values_come_back_as_they_were(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        records: list[Record] = [
            (None, b"no key"),
            (b"", b"empty key"),
            (b"\x00\xff", b""),
            (b"k", b"v" * 5000),
        ]
        await bus.producer().publish(topic, 0, records)
        assert [(item.key, item.value) for item in await read(reader, 4)] == records

    async def test_an_ack_says_where_and_when_the_log_appended(
        self, bus: Bus, topic: str, reader: Reader, clock: SimulatedClock
    ) -> None:
        producer = bus.producer()
        # A broker's append times are whole milliseconds of its own clock, which runs `speed` times slower.
        slack = clock.span(0.005)
        before = clock.now()
        acks = [await producer.publish(topic, 3, numbered(first, 3)) for first in (0, 3, 6)]
        after = clock.now()
        assert [(ack.partition, ack.base_offset, ack.count) for ack in acks] == [
            (3, 0, 3),
            (3, 3, 3),
            (3, 6, 3),
        ]
        messages = await read(reader, 9)
        for ack in acks:
            assert before - slack <= ack.append_time <= after + slack
            own = messages[ack.base_offset : ack.base_offset + ack.count]
            assert {message.append_time for message in own} == {ack.append_time}

    async def test_append_times_of_a_partition_never_go_back(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        producer = bus.producer()
        for first in range(30):
            await producer.publish(topic, 0, numbered(first, 1))
        times = [message.append_time for message in await read(reader, 30)]
        assert times == sorted(times)

    async def test_more_than_a_batch_holds_is_appended_in_order(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        records: list[Record] = [(b"k", b"%06d" % number + b"x" * 2000) for number in range(1500)]
        ack = await bus.producer().publish(topic, 0, records)
        assert (ack.base_offset, ack.count) == (0, 1500)
        messages = await read(reader, 1500)
        assert [int(message.value[:6]) for message in messages] == list(range(1500))

    async def test_a_reader_replays_from_any_offset(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        await bus.producer().publish(topic, 0, numbered(0, 50))
        await read(reader, 50)
        for offset in (20, 0, 49):
            await reader.seek({0: offset})
            assert numbers(await read(reader, 50 - offset)) == list(range(offset, 50))

    async def test_partitions_that_are_added_or_forgotten_leave_the_others_alone(
        self, bus: Bus, topic: str
    ) -> None:
        producer = bus.producer()
        reader = await bus.reader(topic)
        for partition in (0, 1):
            await producer.publish(topic, partition, numbered(0, 10))
        await reader.seek({0: 5})
        assert numbers(await read(reader, 5)) == [5, 6, 7, 8, 9]
        await reader.seek({1: 8})
        assert numbers(await read(reader, 2)) == [8, 9]
        await reader.forget([0])
        for partition in (0, 1):
            await producer.publish(topic, partition, numbered(10, 3))
        messages = await read(reader, 3)
        assert [(item.partition, item.offset) for item in messages] == [(1, 10), (1, 11), (1, 12)]
        await read_nothing(reader)

    async def test_one_poll_brings_no_more_than_was_asked_for(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        await bus.producer().publish(topic, 0, numbered(0, 40))
        got: list[int] = []

        async def all_came() -> bool:
            fetched = await reader.poll(max_records=7, timeout=WAIT)
            came = [number for item in fetched for number in numbers(item.messages)]
            assert len(came) <= 7
            got.extend(came)
            return len(got) >= 40

        await eventually(all_came)
        assert got == list(range(40))

    async def test_begin_and_end_say_what_the_log_holds(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        assert await reader.begin_offsets([0, 1]) == {0: 0, 1: 0}
        assert await reader.end_offsets([0, 1]) == {0: 0, 1: 0}
        await bus.producer().publish(topic, 1, numbered(0, 4))
        assert await reader.begin_offsets([0, 1]) == {0: 0, 1: 0}
        assert await reader.end_offsets([0, 1]) == {0: 0, 1: 4}

    async def test_polls_confirm_the_end_of_the_log_with_and_without_records(
        self, bus: Bus, topic: str, clock: SimulatedClock
    ) -> None:
        reader = await bus.reader(topic)
        await reader.seek({0: 0})
        started = clock.now()
        producer = bus.producer()
        for end in (0, 3, 6):
            asked = clock.now()

            async def confirmed(end: int = end, asked: int = asked) -> list[Fetched]:
                fetched = await reader.poll(max_records=10, timeout=WAIT)
                assert all(started <= item.fetched_time <= clock.now() for item in fetched)
                return [
                    item
                    for item in fetched
                    if item.fetched_time >= asked and item.end_offset == end
                ]

            await eventually(confirmed, message=f"the end {end} confirmed after it was asked for")
            await producer.publish(topic, 0, numbered(end, 3))

    async def test_a_position_outside_the_log_is_refused_until_another_is_named(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        await bus.producer().publish(topic, 0, numbered(0, 5))
        await reader.seek({0: 99})
        with pytest.raises(OffsetOutOfRangeError) as caught:
            await read(reader, 1)
        error = caught.value
        assert (error.partition, error.offset, error.begin, error.end) == (0, 99, 0, 5)
        await reader.seek({0: 3})
        assert numbers(await read(reader, 2)) == [3, 4]

    async def test_a_topic_or_partition_that_is_not_there_is_an_error(
        self, bus: Bus, topic: str
    ) -> None:
        assert await bus.partition_count(topic) == PARTITIONS
        with pytest.raises(BusError, match="nowhere"):
            await bus.partition_count("nowhere")
        with pytest.raises(BusError):
            await bus.reader("nowhere")
        with pytest.raises(BusError, match="partition 4"):
            await bus.producer().publish(topic, PARTITIONS, numbered(0, 1))
        reader = await bus.reader(topic)
        with pytest.raises(BusError, match="partition 4"):
            await reader.seek({PARTITIONS: 0})

    async def test_publishing_and_polling_in_a_loop_let_others_run(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        for number in range(10):
            await bus.producer().publish(topic, 0, numbered(number, 1))
        assert turns >= 10
        turns = 0
        for _ in range(10):
            await reader.poll(max_records=1, timeout=1.0)
        assert turns >= 10
        running.cancel()

    async def test_topics_are_made_once_and_checked(self, bus: Bus, topic: str) -> None:
        await bus.producer().publish(topic, 0, numbered(0, 3))
        await bus.create_topics([spec_of(topic)])
        await bus.check_topics([spec_of(topic)])
        reader = await bus.reader(topic)
        assert await reader.end_offsets([0]) == {0: 3}
        with pytest.raises(BusError, match=f"{topic}: partitions is 4, 5 are needed"):
            await bus.check_topics([spec_of(topic, partitions=5)])
        with pytest.raises(BusError, match="does not exist"):
            await bus.check_topics([spec_of("nowhere")])

    async def test_nothing_published_is_a_bug_of_the_caller(self, bus: Bus, topic: str) -> None:
        with pytest.raises(ValueError, match="nothing"):
            await bus.producer().publish(topic, 0, [])

    async def test_a_member_alone_is_assigned_everything(self, bus: Bus, topic: str) -> None:
        member = await bus.join(topic, f"group-{topic}")
        assert await assigned(member) == ALL

    async def test_nothing_is_delivered_before_the_owner_names_a_position(
        self, bus: Bus, topic: str
    ) -> None:
        producer = bus.producer()
        for partition in ALL:
            await producer.publish(topic, partition, numbered(0, 10))
        member = await bus.join(topic, f"group-{topic}")
        await assigned(member, ALL)
        await read_nothing(member)
        await member.seek({1: 4})
        messages = await read(member, 6)
        assert [(item.partition, item.offset) for item in messages] == [
            (1, offset) for offset in range(4, 10)
        ]
        await read_nothing(member)

    async def test_what_was_committed_is_never_where_reading_begins(
        self, bus: Bus, topic: str
    ) -> None:
        group = f"group-{topic}"
        await bus.producer().publish(topic, 0, numbered(0, 10))
        first = await bus.join(topic, group)
        await assigned(first, ALL)
        await first.commit({0: 7})
        await first.close()
        second = await bus.join(topic, group)
        await assigned(second, ALL)
        await read_nothing(second)
        await second.seek({0: 2})
        assert numbers(await read(second, 8)) == list(range(2, 10))

    async def test_the_next_owner_is_told_what_was_committed(self, bus: Bus, topic: str) -> None:
        group = f"group-{topic}"
        first = await bus.join(topic, group)
        await assigned(first, ALL)
        assert await first.committed(sorted(ALL)) == {}
        await first.commit({0: 7})
        await first.commit({0: 9, 1: 3})
        await first.close()
        second = await bus.join(topic, group)
        await assigned(second, ALL)
        assert await second.committed(sorted(ALL)) == {0: 9, 1: 3}
        stranger = await bus.join(topic, f"other-{topic}")
        await assigned(stranger, ALL)
        assert await stranger.committed([0]) == {}

    async def test_members_share_the_partitions_and_keep_what_they_may(
        self, bus: Bus, topic: str
    ) -> None:
        group = f"group-{topic}"
        first = await bus.join(topic, group)
        await assigned(first, ALL)
        second = await bus.join(topic, group)

        async def shared() -> bool:
            mine, theirs = first.assignment, second.assignment
            return bool(mine) and bool(theirs) and mine | theirs == ALL and not mine & theirs  # type: ignore[operator]

        await eventually(shared, timeout_s=30)
        assert len(first.assignment or ()) == len(second.assignment or ()) == 2
        held = (first.assignment or frozenset(), second.assignment or frozenset())
        third = await bus.join(topic, group)
        members = (first, second, third)

        async def shared_by_three() -> bool:
            shares = [member.assignment or frozenset() for member in members]
            return frozenset().union(*shares) == ALL and sorted(map(len, shares)) == [1, 1, 2]

        await eventually(shared_by_three, timeout_s=30)
        assert (first.assignment or ALL) <= held[0]
        assert (second.assignment or ALL) <= held[1]
        await first.close()
        await second.close()
        await assigned(third, ALL)

    async def test_a_partition_that_moved_is_delivered_to_its_new_owner_alone(
        self, bus: Bus, topic: str
    ) -> None:
        group = f"group-{topic}"
        producer = bus.producer()
        first = await bus.join(topic, group)
        await assigned(first, ALL)
        await first.seek(dict.fromkeys(ALL, 0))
        for partition in ALL:
            await producer.publish(topic, partition, numbered(0, 5))
        assert len(await read(first, 20)) == 20
        second = await bus.join(topic, group)
        await eventually(lambda: len(second.assignment or ()) == 2, timeout_s=30)
        await eventually(lambda: len(first.assignment or ()) == 2, timeout_s=30)
        moved = second.assignment or frozenset()
        await second.seek(dict.fromkeys(moved, 3))
        for partition in ALL:
            await producer.publish(topic, partition, numbered(5, 5))
        stayed = await read(first, 10)
        assert {item.partition for item in stayed} == ALL - moved
        assert sorted(numbers(stayed)) == sorted(list(range(5, 10)) * 2)
        taken = await read(second, 14)
        assert {item.partition for item in taken} == moved
        assert sorted(numbers(taken)) == sorted(list(range(3, 10)) * 2)
        await read_nothing(first)

    async def test_a_seek_to_a_partition_that_was_lost_reads_nothing(
        self, bus: Bus, topic: str
    ) -> None:
        group = f"group-{topic}"
        first = await bus.join(topic, group)
        await assigned(first, ALL)
        second = await bus.join(topic, group)
        await eventually(lambda: len(second.assignment or ()) == 2, timeout_s=30)
        await eventually(lambda: len(first.assignment or ()) == 2, timeout_s=30)
        lost = second.assignment or frozenset()
        await first.seek(dict.fromkeys(lost, 0))
        for partition in lost:
            await bus.producer().publish(topic, partition, numbered(0, 2))
        await read_nothing(first)
        with pytest.raises(BusError):
            await first.commit(dict.fromkeys(lost, 1))

    async def test_membership_alone_follows_the_assignment_and_reads_nothing(
        self, bus: Bus, topic: str
    ) -> None:
        member = await bus.join(topic, f"group-{topic}", fetch=False)
        async with asyncio.timeout(30):
            while await member.assignment_changed() != ALL:
                pass
        await bus.producer().publish(topic, 0, numbered(0, 5))
        await member.seek({0: 0})
        await read_nothing(member, polls=1)

    async def test_a_change_of_the_assignment_wakes_who_waits_for_it(
        self, bus: Bus, topic: str
    ) -> None:
        group = f"group-{topic}"
        first = await bus.join(topic, group, fetch=False)
        await assigned(first, ALL)
        async with asyncio.timeout(5):
            while await first.assignment_changed() != ALL:
                pass
        waiting = asyncio.ensure_future(first.assignment_changed())
        second = await bus.join(topic, group, fetch=False)
        async with asyncio.timeout(30):
            await waiting
        await eventually(lambda: len(first.assignment or ()) == 2, timeout_s=30)
        await eventually(lambda: len(second.assignment or ()) == 2, timeout_s=30)

    async def test_groups_and_readers_do_not_take_from_one_another(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        members = [await bus.join(topic, f"{name}-{topic}") for name in ("one", "two")]
        for member in members:
            await assigned(member, ALL)
            await member.seek(dict.fromkeys(ALL, 0))
        await bus.producer().publish(topic, 0, numbered(0, 10))
        for each in (*members, reader):
            assert numbers(await read(each, 10)) == list(range(10))

    async def test_after_the_end_everything_is_refused(
        self, bus: Bus, topic: str, reader: Reader
    ) -> None:
        producer = bus.producer()
        member = await bus.join(topic, f"group-{topic}")
        await assigned(member, ALL)
        await bus.close()
        with pytest.raises(BusError):
            await producer.publish(topic, 0, numbered(0, 1))
        with pytest.raises(BusError):
            await reader.poll(max_records=1, timeout=0)
        with pytest.raises(BusError):
            await member.poll(max_records=1, timeout=0)
