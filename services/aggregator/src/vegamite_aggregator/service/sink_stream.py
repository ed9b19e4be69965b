"""One topic as the sink reads it: a membership, what waits for its flight, and the group's offsets behind what has landed.

What the group committed is this consumer's position, unlike that of the candles' role: it is told after InfluxDB
acknowledged, so a record is written at least once, and what was written already is seen before it is placed.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from vegamite_aggregator.metrics import SINK_LOST
from vegamite_aggregator.ports import PointStore
from vegamite_aggregator.service.inbox import Inbox
from vegamite_aggregator.service.sink_condition import Condition
from vegamite_aggregator.service.sink_flight import Flights
from vegamite_aggregator.service.sink_mapping import TopicMapping
from vegamite_common.bus.port import (
    BusError,
    Member,
    Message,
    MissingRecordsError,
    OffsetOutOfRangeError,
)
from vegamite_common.domain.time import Micros
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.runtime.logging import RepeatedFault

POLL_SECONDS = 0.5
SETTLE_SECONDS = 5.0
POLL_RECORDS = 2_000
FLIGHT_RECORDS = 500
FLIGHT_BYTES = 2_000_000
"""What one flight takes of one partition; of all together, `FLIGHT_TOTAL_BYTES`."""

FLIGHT_TOTAL_BYTES = 4_000_000
INBOX_BYTES = 2_000_000
COMMIT_SECONDS = 1.0
STOP_SECONDS = 5.0
"""How long a flight that is under way may take once a stop was asked for."""

log = structlog.get_logger(__name__)


class Progress:
    """One partition: what waits, from where on InfluxDB lacks records, and when the log got the last that it has."""

    def __init__(self, position: int) -> None:
        self.inbox = Inbox(max_bytes=INBOX_BYTES)
        self.position = position
        self.taken = position
        self.told = -1
        self.append_time: Micros | None = None

    def follows(self, messages: Sequence[Message]) -> bool:
        """Say whether records are the very next ones, none missing, after what was taken and what waits."""
        expected = self.taken + len(self.inbox)
        return all(message.offset == expected + at for at, message in enumerate(messages))


class SinkStream:
    """Reads one topic's partitions, as the group assigns them, and sees to it that InfluxDB gets what they say."""

    def __init__(
        self,
        name: str,
        *,
        member: Member,
        mapping: TopicMapping,
        store: PointStore,
        condition: Condition,
        health: Health,
        backoff_limit: float,
    ) -> None:
        """`backoff_limit`: the longest wait, in seconds, between two tries to have InfluxDB take something."""
        self.name = name
        self.partitions: dict[int, Progress] = {}
        self._member = member
        self._mapping = mapping
        self._health = health
        self._something = asyncio.Event()
        self._flights = Flights(
            name,
            mapping=mapping,
            store=store,
            condition=condition,
            backoff_limit=backoff_limit,
            landed=self._landed,
        )
        self._stopping = False

    async def run(self, stop: Stop) -> None:
        """Work until `stop`; what InfluxDB acknowledged by then is committed."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work(), name=f"{self.name}-work")
            loops = [
                work,
                group.create_task(self._poll(), name=f"{self.name}-poll"),
                group.create_task(self._follow_assignment(), name=f"{self.name}-assignment"),
                group.create_task(self._keep_committing(), name=f"{self.name}-commit"),
            ]
            await stop.wait()
            self._stopping = True
            self._something.set()
            await asyncio.wait({work}, timeout=STOP_SECONDS)
            for loop in loops:
                loop.cancel()
        await self._commit()

    async def all_written(self, partition: int) -> None:
        """Return once InfluxDB has all that the log has of a partition now, whichever member of the group sees to that."""
        fault = RepeatedFault("the log can't be asked", over="the log can be asked again")
        end: int | None = None
        while True:
            try:
                if end is None:
                    end = (await self._member.end_offsets([partition]))[partition]
                told = await self._member.committed([partition])
            except BusError as error:
                fault.failed(error)
            else:
                fault.went_well()
                if told.get(partition, 0) >= end:
                    return
            await asyncio.sleep(COMMIT_SECONDS / 4)

    async def close(self) -> None:
        """Leave the group."""
        await self._member.close()

    async def _poll(self) -> None:
        """Fetch what there is room for, and stay a member where there is none."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
        fault = RepeatedFault(
            "the log can't be read",
            over="the log can be read again",
            settle_seconds=SETTLE_SECONDS,
        )
        while True:
            self._health.beat()
            try:
                fetched = await self._member.poll(max_records=POLL_RECORDS, timeout=POLL_SECONDS)
            except OffsetOutOfRangeError as error:
                await self._begin_anew(error)
                continue
            except MissingRecordsError as error:
                fault.failed(error)
                await self._pass_over(error)
                await asyncio.sleep(backoff.next_delay())
                continue
            except BusError as error:
                fault.failed(error)
                await asyncio.sleep(backoff.next_delay())
                continue
            fault.went_well()
            backoff.reset()
            for item in fetched:
                progress = self.partitions.get(item.partition)
                if progress is None:
                    continue
                if not progress.follows(item.messages):
                    await self._read_again(item.partition)
                elif not progress.inbox.put(item):
                    await self._member.forget([item.partition])
                elif item.messages:
                    self._something.set()

    async def _begin_anew(self, error: OffsetOutOfRangeError) -> None:
        """The log has dropped, or never had, what is to be read next: go on at its beginning, and say so."""
        await self._member.forget([error.partition])
        progress = self.partitions.get(error.partition)
        if progress is None:
            return
        lost = max(0, error.begin - progress.taken)
        SINK_LOST.labels(self.name).inc(lost)
        log.warning(
            "the log hasn't the records that InfluxDB lacks",
            stream=self.name,
            partition=error.partition,
            wanted=progress.taken,
            begin=error.begin,
            end=error.end,
            lost=lost,
        )
        progress.inbox.clear()
        progress.taken = progress.position = error.begin
        await self._seek([error.partition])

    async def _read_again(self, partition: int) -> None:
        """What came isn't what follows: taken, it would leave out records whose offsets are committed behind it."""
        progress = self.partitions[partition]
        log.warning("records came out of order; read again", stream=self.name, partition=partition)
        progress.inbox.clear()
        await self._seek([partition])

    async def _pass_over(self, error: MissingRecordsError) -> None:
        """The log has no such records, asked for them twice: go on behind them once all before them is on its way."""
        progress = self.partitions.get(error.partition)
        if progress is None or len(progress.inbox) or progress.taken != error.offset:
            return
        lost = error.next_offset - error.offset
        SINK_LOST.labels(self.name).inc(lost)
        log.warning(
            "the log lacks records; passed over",
            stream=self.name,
            partition=error.partition,
            wanted=error.offset,
            next=error.next_offset,
            lost=lost,
        )
        progress.taken = error.next_offset
        await self._seek([error.partition])

    async def _follow_assignment(self) -> None:
        """Take partitions from where the group says, and let go of those that are somebody else's now."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=5.0)
        while True:
            assigned = self._member.assignment
            try:
                if assigned is not None:
                    await self._let_go(frozenset(self.partitions) - assigned)
                    await self._take_up(assigned - frozenset(self.partitions))
                    await self._seek(sorted(self.partitions))
            except BusError as error:
                log.warning("the group can't be asked", stream=self.name, error=str(error))
                await asyncio.sleep(backoff.next_delay())
                continue
            backoff.reset()
            await self._member.assignment_changed()

    async def _take_up(self, partitions: frozenset[int]) -> None:
        if not partitions:
            return
        told = await self._member.committed(sorted(partitions))
        begins = await self._member.begin_offsets(sorted(partitions))
        for partition in sorted(partitions):
            self.partitions[partition] = Progress(told.get(partition, begins[partition]))
        log.info(
            "partitions assigned to the sink",
            stream=self.name,
            partitions=sorted(self.partitions),
            positions={at: self.partitions[at].position for at in sorted(partitions)},
        )

    async def _let_go(self, partitions: frozenset[int]) -> None:
        """Forget partitions; a flight with records of theirs is given up, since their new owner may be ahead of it."""
        if not partitions:
            return
        for partition in partitions:
            del self.partitions[partition]
        self._mapping.forget(partitions)
        self._flights.give_up_with(partitions)

    async def _seek(self, partitions: Sequence[int]) -> None:
        """Read on behind what waits already."""
        for partition in partitions:
            progress = self.partitions[partition]
            progress.taken = max(progress.taken, progress.position)
            progress.inbox.clear()
        await self._member.seek({at: self.partitions[at].taken for at in partitions})

    async def _work(self) -> None:
        """Send off what waits, and read on; ends once a stop was asked for and what was under way has landed."""
        flights = self._flights
        try:
            while not self._stopping:
                taken = self._take() if flights.room else {}
                if taken:
                    flights.start(taken)
                    await self._read_on()
                elif flights.room:
                    await self._wait_for_something()
                else:
                    await flights.first_ended()
                await self._return(await flights.land())
        finally:
            await flights.end(patiently=self._stopping)

    async def _wait_for_something(self) -> None:
        """Return once there are records, a stop, or the first flight's end."""
        self._something.clear()
        if any(len(progress.inbox) for progress in self.partitions.values()):
            return
        something = asyncio.create_task(self._something.wait())
        try:
            await asyncio.wait(
                {something, *self._flights.first()}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            something.cancel()

    def _take(self) -> dict[int, list[Message]]:
        """Take what waits, from all partitions."""
        taken: dict[int, list[Message]] = {}
        weight = 0
        for partition, progress in self.partitions.items():
            if weight >= FLIGHT_TOTAL_BYTES:
                break
            messages = progress.inbox.take(max_records=FLIGHT_RECORDS, max_bytes=FLIGHT_BYTES)
            if messages:
                taken[partition] = messages
                weight += sum(len(message.value) for message in messages)
                progress.taken = messages[-1].offset + 1
        return taken

    async def _read_on(self) -> None:
        """Read those partitions on that were left alone because too much waited, and of which nothing waits any more."""
        dry = [
            partition
            for partition, progress in self.partitions.items()
            if progress.inbox.overflowed and not len(progress.inbox)
        ]
        if dry:
            await self._seek(dry)

    async def _return(self, aboard: frozenset[int]) -> None:
        """Flights with records of these partitions were given up: they are read again, by whoever has the partition."""
        mine = sorted(aboard & frozenset(self.partitions))
        # What was placed and may not have been written is not known any more.
        self._mapping.forget(mine)
        for partition in mine:
            self.partitions[partition].taken = self.partitions[partition].position
        if mine:
            await self._seek(mine)

    def _landed(self, taken: Mapping[int, Sequence[Message]]) -> None:
        """InfluxDB has these records."""
        for partition, messages in taken.items():
            progress = self.partitions.get(partition)
            if progress is not None:
                progress.position = messages[-1].offset + 1
                progress.append_time = messages[-1].append_time

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            await self._commit()

    async def _commit(self) -> None:
        """Tell the group what InfluxDB has; what can't be told now is told the next time."""
        positions = {
            partition: progress.position
            for partition, progress in self.partitions.items()
            if progress.position != progress.told
        }
        if not positions:
            return
        try:
            await self._member.commit(positions)
        except BusError:
            return
        for partition, position in positions.items():
            if partition in self.partitions:
                self.partitions[partition].told = position
