"""The end of the log, followed by every replica: recent records in memory, each handed on as it comes."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from vegamite_api import metrics
from vegamite_api.core.tail import Entry, Memory, Topic
from vegamite_api.ports import HistoryStore, Log, StoreError
from vegamite_common.bus.port import BusError, Message, OffsetOutOfRangeError, Reader
from vegamite_common.messages.codec import MessageError
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.health import Health

log = structlog.get_logger(__name__)

TOPICS: tuple[Topic, ...] = ("trades", "candles", "status")
_POLL_RECORDS = 200
_POLL_SECONDS = 1.0
_WARM_RECORDS = 1_000
_EPOCH_SECONDS = 5.0
_FIRST_EPOCH_SECONDS = 0.25

OnEntry = Callable[[Topic, int, int, Entry], None]
"""Takes (topic, epoch, partition, entry), in the order of the partition; must not wait."""


class NotReadyError(Exception):
    """The end of the log has not been reached yet."""


class _LogChangedError(Exception):
    """The log is not the one that was being followed."""


class Tail:
    """Follows all partitions of the three topics from shortly before their end.

    `on_entry` gets each record that concerns a stream; `on_break` is called when the thread is lost (another log epoch, or the
    reader fell out of the log): whoever follows must start anew. `epoch` is None until the end was reached once.
    """

    def __init__(
        self,
        *,
        log_port: Log,
        store: HistoryStore,
        health: Health,
        memory_bytes: int,
        on_entry: OnEntry,
        on_break: Callable[[str], None],
    ) -> None:
        self._log = log_port
        self._store = store
        self._health = health
        self._memory_bytes = memory_bytes
        self._on_entry = on_entry
        self._on_break = on_break
        self._memories: dict[Topic, dict[int, Memory]] = {}
        self._behind: set[Topic] = set()
        self._reached = asyncio.Event()
        self._epoch = 0
        self.partitions = 0

    @property
    def epoch(self) -> int:
        """The log epoch that is being followed; raises `NotReadyError` before the end was reached."""
        if not self._reached.is_set():
            raise NotReadyError
        return self._epoch

    async def wait_ready(self, seconds: float) -> bool:
        """Wait at most `seconds` for the end of the log; True once it was reached."""
        try:
            async with asyncio.timeout(seconds):
                await self._reached.wait()
        except TimeoutError:
            return False
        return True

    def memory(self, topic: Topic, partition: int) -> Memory:
        """Return what is remembered of a partition; raises `NotReadyError` before the end was reached."""
        if not self._reached.is_set():
            raise NotReadyError
        return self._memories[topic][partition]

    async def run(self) -> None:
        """Follow the log until cancelled; faults of the log and the store are waited out."""
        backoff = Backoff(limit_seconds=5.0)
        last_told = ""
        while True:
            reason = ""
            try:
                await self._follow()
            except* (BusError, StoreError, _LogChangedError) as group:
                reason = str(_first(group))
            metrics.LOG_FAULTS.inc()
            if self._reached.is_set():
                backoff.reset()
                last_told = ""
            self._lose(reason)
            if reason != last_told:
                log.warning("the log can't be followed", reason=reason)
                last_told = reason
            self._health.beat()
            await asyncio.sleep(backoff.next_delay())

    def _lose(self, reason: str) -> None:
        if self._reached.is_set():
            self._reached.clear()
            self._on_break(reason)
        self._health.set_ready(ready=False, reason=reason)

    async def _follow(self) -> None:
        epoch = await self._first_epoch()
        partitions = await self._log.partitions()
        readers: dict[Topic, Reader] = {}
        targets: dict[Topic, dict[int, int]] = {}
        try:
            for topic in TOPICS:
                readers[topic] = await self._log.reader(topic)
                targets[topic] = await self._begin(topic, readers[topic], range(partitions))
            self._epoch, self.partitions = epoch, partitions
            self._behind = set(TOPICS)
            async with asyncio.TaskGroup() as group:
                for topic in TOPICS:
                    group.create_task(self._read(topic, readers[topic], targets[topic]))
                group.create_task(self._watch_epoch(epoch))
        finally:
            for reader in readers.values():
                await reader.close()

    async def _first_epoch(self) -> int:
        """Return the log's epoch; waits for an aggregator to begin the first one, as where all is started together."""
        told = False
        while (epoch := await self._store.log_epoch()) is None:
            if not told:
                reason = "the log has no epoch yet: no aggregator has started"
                self._health.set_ready(ready=False, reason=reason)
                log.info("waiting for an aggregator to begin the log")
                told = True
            self._health.beat()
            await asyncio.sleep(_FIRST_EPOCH_SECONDS)
        return epoch

    async def _begin(self, topic: Topic, reader: Reader, partitions: range) -> dict[int, int]:
        """Seek to shortly before the end, so that streams are chained from the start; return the ends to reach."""
        bounds = await self._log.bounds(topic, list(partitions))
        share = self._memory_bytes // (len(TOPICS) * len(partitions))
        memories = {}
        for partition, bound in bounds.items():
            start = max(bound.begin, bound.end - _WARM_RECORDS)
            memories[partition] = Memory(start, max_bytes=share)
        self._memories[topic] = memories
        await reader.seek({p: memory.next_offset for p, memory in memories.items()})
        return {partition: bound.end for partition, bound in bounds.items()}

    async def _read(self, topic: Topic, reader: Reader, targets: Mapping[int, int]) -> None:
        backoff = Backoff(limit_seconds=5.0)
        away = False
        ends = dict(targets)
        while True:
            self._check_reached(topic, targets)
            try:
                fetched = await reader.poll(max_records=_POLL_RECORDS, timeout=_POLL_SECONDS)
            except OffsetOutOfRangeError as error:
                raise _LogChangedError(str(error)) from error
            except BusError as error:
                metrics.LOG_FAULTS.inc()
                if not away:
                    log.warning("the log is away", topic=topic, error=str(error))
                away = True
                self._health.beat()
                await asyncio.sleep(backoff.next_delay())
                continue
            if away:
                log.info("the log is back", topic=topic)
            away = False
            backoff.reset()
            for part in fetched:
                ends[part.partition] = part.end_offset
                for message in part.messages:
                    self._take(topic, message)
            memories = self._memories[topic]
            lag = sum(max(0, end - memories[p].next_offset) for p, end in ends.items())
            metrics.TAIL_LAG.labels(topic).set(lag)
            self._health.beat()
            # A full log never lets poll wait: give the connections their turn.
            await asyncio.sleep(0)

    def _check_reached(self, topic: Topic, targets: Mapping[int, int]) -> None:
        if topic not in self._behind:
            return
        memories = self._memories[topic]
        if all(memories[p].next_offset >= end for p, end in targets.items()):
            self._behind.discard(topic)
            if not self._behind:
                self._reached.set()
                self._health.set_ready(ready=True)
                log.info("the end of the log is reached", epoch=self._epoch)

    def _take(self, topic: Topic, message: Message) -> None:
        metrics.TAIL_RECORDS.labels(topic).inc()
        try:
            entry = self._memories[topic][message.partition].append(
                topic, message.offset, message.value
            )
            if entry is not None:
                self._on_entry(topic, self._epoch, message.partition, entry)
        except MessageError as error:
            metrics.TAIL_BROKEN.labels(topic).inc()
            log.warning(
                "a record can't be read",
                topic=topic,
                partition=message.partition,
                offset=message.offset,
                error=str(error),
            )

    async def _watch_epoch(self, epoch: int) -> None:
        while True:
            await asyncio.sleep(_EPOCH_SECONDS)
            try:
                now = await self._store.log_epoch()
            except StoreError:
                continue
            if now != epoch:
                raise _LogChangedError(f"log epoch {now} has begun")


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
