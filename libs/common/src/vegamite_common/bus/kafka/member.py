"""Membership in a consumer group, apart from reading.

One client of Kafka is in the group and reads nothing: its partitions are paused and it is polled all the time, for a
member that doesn't poll is expelled in silence. What is assigned is read by a second client, from where the owner said
and never before it said so. A client that reads by assignment itself would begin at the committed offset before anyone
could stop it. An owner that doesn't poll for `max_poll_interval_ms` is stuck: then the member isn't polled either, and
the group gives its partitions away.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from vegamite_common.bus.kafka.connection import OPERATIONAL, KafkaConnection, describe, faults
from vegamite_common.bus.kafka.log_ends import stop_consumer
from vegamite_common.bus.kafka.reader import KafkaReader
from vegamite_common.bus.port import BusError, Fetched
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.logging import RepeatedFault

_POLL_MS = 500


class KafkaMember(KafkaReader):
    """A reader whose partitions the group assigns; with `fetch=False` membership alone."""

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        partitions: int,
        *,
        group: str,
        fetch: bool,
    ) -> None:
        super().__init__(connection, topic, partitions, fetch=fetch)
        self._group = group
        self._assignment: frozenset[int] | None = None
        self._changed = asyncio.Event()
        self._membership: asyncio.Task[None] | None = None
        self._in_group: AIOKafkaConsumer | None = None
        self._last_poll = time.monotonic()
        self._group_fault = RepeatedFault(
            "no place in the consumer group", over="in the consumer group again", group=group
        )

    async def start(self) -> None:
        """Connect and begin to join; the assignment comes later. Raises `BusError`."""
        await super().start()
        self._membership = asyncio.create_task(self._stay_in_group(), name=f"group {self._group}")

    @property
    def assignment(self) -> frozenset[int] | None:
        """The partitions that are this member's; None before the first assignment and during a rebalance."""
        return self._assignment

    async def assignment_changed(self) -> frozenset[int] | None:
        """Wait for a change since the last call, and return the assignment."""
        self._require_open()
        await self._changed.wait()
        self._require_open()
        self._changed.clear()
        return self._assignment

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Begin to read assigned partitions; one that isn't this member's any more is left out."""
        mine = self._assignment or frozenset()
        await super().seek({at: offset for at, offset in positions.items() if at in mine})

    async def poll(
        self,
        *,
        max_records: int,
        timeout: float,  # noqa: ASYNC109 -- how long to wait is part of what a poll is asked
    ) -> Sequence[Fetched]:
        """As a reader's; nothing comes during a rebalance."""
        self._last_poll = time.monotonic()
        return await super().poll(max_records=max_records, timeout=timeout)

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group how far each partition is done; raises `BusError` where it can't be told."""
        self._require_open()
        mine = self._assignment or frozenset()
        offsets = {self._at(at): offset for at, offset in positions.items() if at in mine}
        if self._in_group is None or len(offsets) < len(positions):
            raise BusError(f"group {self._group}: not a member for these partitions now")
        if offsets:
            with faults(f"committing to group {self._group}"):
                async with asyncio.timeout(self._connection.request_seconds):
                    await self._in_group.commit(offsets)

    async def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """Ask the group how far these partitions are done; those never committed are left out. Raises `BusError`."""
        self._require_open()
        if self._in_group is None:
            raise BusError(f"group {self._group}: not a member now")
        told: dict[int, int] = {}
        with faults(f"asking group {self._group} for what it committed"):
            async with asyncio.timeout(self._connection.request_seconds):
                for partition in partitions:
                    offset = await self._in_group.committed(self._at(partition))
                    if offset is not None:
                        told[partition] = offset
        return told

    async def close(self) -> None:
        """Leave the group and disconnect."""
        if self._closed:
            return
        if self._membership is not None:
            self._membership.cancel()
            await asyncio.wait({self._membership})
        await super().close()
        self._changed.set()

    def take(self, partitions: Iterable[int] | None) -> None:
        """The group's decision: None during a rebalance, then the partitions; those lost are no longer read."""
        assignment = None if partitions is None else frozenset(partitions)
        if assignment is not None:
            self._drop(set(self._positions) - assignment)
            self._group_fault.went_well(partitions=len(assignment))
        if assignment != self._assignment:
            self._assignment = assignment
            self._changed.set()
            self._moved.set()

    def _readable(self) -> bool:
        return self._fetch and self._assignment is not None and super()._readable()

    async def _stay_in_group(self) -> None:
        """Be a member, for ever: a client that gave up is replaced."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
        while True:
            consumer = self._new_group_client()
            try:
                self._in_group = consumer
                await consumer.start()
                backoff.reset()
                while True:
                    if self._owner_moves():
                        await consumer.getmany(timeout_ms=_POLL_MS)
                    else:
                        await asyncio.sleep(_POLL_MS / 1000)
            except OPERATIONAL as error:
                self._group_fault.failed(describe(error))
            finally:
                self._in_group = None
                self.take(None)
                await stop_consumer(consumer)
            await asyncio.sleep(backoff.next_delay())

    def _owner_moves(self) -> bool:
        limit = self._connection.section.max_poll_interval_ms / 1000
        return not self._fetch or time.monotonic() - self._last_poll <= limit

    def _new_group_client(self) -> AIOKafkaConsumer:
        section = self._connection.section
        # The assignor keeps its state in its class, so each member has a class of its own.
        sticky = type("Sticky", (StickyPartitionAssignor,), {})
        consumer = AIOKafkaConsumer(
            **self._connection.arguments(),
            group_id=self._group,
            auto_offset_reset="latest",
            enable_auto_commit=False,
            partition_assignment_strategy=(sticky,),
            session_timeout_ms=section.session_timeout_ms,
            heartbeat_interval_ms=max(section.session_timeout_ms // 5, 100),
            max_poll_interval_ms=section.max_poll_interval_ms,
            max_partition_fetch_bytes=1024,
        )
        consumer.subscribe([self._topic], listener=_Listener(self, consumer))
        return consumer


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands the assignment over and does nothing else: an exception in here would be swallowed by the client."""

    def __init__(self, member: KafkaMember, consumer: AIOKafkaConsumer) -> None:
        self._member = member
        self._consumer = consumer

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002
        self._member.take(None)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        assigned = list(assigned)
        self._consumer.pause(*assigned)
        self._member.take(at.partition for at in assigned)
