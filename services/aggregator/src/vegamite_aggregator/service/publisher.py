"""What goes from one partition's owner to the log: the outbox in order, and the newest states of candles in progress.

Each topic is published by itself: one that takes nothing holds up its own records, and nothing else; but that statuses
follow the candles that were committed before them.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.metrics import CANDLES as CANDLE_EVENTS
from vegamite_aggregator.metrics import OUTBOX
from vegamite_aggregator.ports import Outbox, StoreError
from vegamite_aggregator.service.condition import Cause, Conditions
from vegamite_common.bus.port import CANDLES, DEAD_LETTERS, STATUS, BusError, Producer, Record
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import CandlesRecord, encode_candles
from vegamite_common.runtime.backoff import Backoff

OUTBOX_TOPICS = (CANDLES, STATUS, DEAD_LETTERS)
"""The topics whose records go through the outbox."""

OUTBOX_ROWS = 200
OUTBOX_BYTES = 2_000_000
"""From so many bytes on no more rows are read at once: rows of dead letters are large, and many may wait."""

BATCH_BYTES = 500_000
"""One publish takes at most so many bytes, or one record."""

WAITING_STATES = 120
"""How many candles of one market and timeframe may wait to be streamed; older ones wait for their final state."""

Series: TypeAlias = tuple[Market, Timeframe]


class Updates:
    """States of candles in progress that nobody was told yet: the newest of each, one candle a series at a time."""

    def __init__(self) -> None:
        self._waiting: dict[Series, dict[Micros, Candle]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def note(self, changes: Changes) -> None:
        """Take the streamed candles of a committed step; whatever became final needs no update any more."""
        for market, change in changes.markets.items():
            for stored in change.candles:
                if stored.candle.final and (market, stored.candle.timeframe) in self._waiting:
                    self._forget(market, stored.candle)
            for candle in change.streamed:
                series = self._waiting.setdefault((market, candle.timeframe), {})
                series[candle.open_time] = candle
                if len(series) > WAITING_STATES:
                    del series[min(series)]

    def _forget(self, market: Market, candle: Candle) -> None:
        series = self._waiting[(market, candle.timeframe)]
        series.pop(candle.open_time, None)
        if not series:
            del self._waiting[(market, candle.timeframe)]

    def take(self) -> list[CandlesRecord]:
        """Return and forget the latest candle of each series, a record a market."""
        by_market: dict[Market, list[Candle]] = {}
        for market, timeframe in list(self._waiting):
            candle = self._waiting[(market, timeframe)][max(self._waiting[(market, timeframe)])]
            by_market.setdefault(market, []).append(candle)
            self._forget(market, candle)
        return [
            CandlesRecord(
                exchange=market.exchange,
                symbol=market.symbol,
                type="update",
                candles=tuple(candles),
            )
            for market, candles in by_market.items()
        ]

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()


class _Lane:
    """One topic's way to the log."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.rows_wait = True  # an owner before us may have left some
        self.wake = asyncio.Event()
        self.busy = asyncio.Lock()


class Publisher:
    """Publishes for one partition: at once what is committed; updates behind it, at most once in `interval` seconds."""

    def __init__(
        self,
        partition: int,
        *,
        outbox: Outbox,
        producer: Producer,
        interval: float,
        conditions: Conditions,
    ) -> None:
        self._partition = partition
        self._conditions = conditions
        self._outbox = outbox
        self._producer = producer
        self._interval = interval
        self._updates = Updates()
        self._updates_due = 0.0
        self._lanes = [_Lane(topic) for topic in OUTBOX_TOPICS]  # candles first
        self._failing: set[str] = set()

    def committed(self, changes: Changes) -> None:
        """Note what a step committed, to be published soon."""
        self._updates.note(changes)
        topics = {record.topic for record in changes.outbox}
        for lane in self._lanes:
            lane.rows_wait = lane.rows_wait or lane.topic in topics
            if lane.rows_wait or self._updates_of(lane):
                lane.wake.set()

    def look(self) -> None:
        """Look for committed records that nobody told of: of a commit of unknown outcome, or of maintenance."""
        for lane in self._lanes:
            lane.rows_wait = True
            lane.wake.set()

    async def run(self) -> None:
        """Publish until cancelled; while store or log are away, try again with growing delays, each topic by itself."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(
                    self._run_lane(lane), name=f"publish-{self._partition}-{lane.topic}"
                )

    async def _run_lane(self, lane: _Lane) -> None:
        backoff = Backoff(first_seconds=0.2, limit_seconds=10.0)
        while True:
            await self._something_due(lane)
            try:
                await self._publish_lane(lane)
            except (StoreError, BusError) as error:
                self._failing.add(lane.topic)
                self._conditions.failed(Cause.PUBLISHING, self._partition, error, topic=lane.topic)
                await asyncio.sleep(backoff.next_delay())
                continue
            self._failing.discard(lane.topic)
            if not self._failing:
                self._conditions.went_well(Cause.PUBLISHING, self._partition)
            backoff.reset()

    async def _something_due(self, lane: _Lane) -> None:
        """Wait for committed records of the topic, or until the next updates may go out."""
        while not lane.rows_wait:
            delay = self._updates_due - time.monotonic() if self._updates_of(lane) else None
            if delay is not None and delay <= 0:
                return
            lane.wake.clear()
            try:
                async with asyncio.timeout(delay):
                    await lane.wake.wait()
            except TimeoutError:
                return

    async def publish(self) -> None:
        """Publish what is due now; raise `StoreError` or `BusError`, and what wasn't acknowledged waits again."""
        outcomes = await asyncio.gather(
            *map(self._publish_lane, self._lanes), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _publish_lane(self, lane: _Lane) -> None:
        async with lane.busy:  # the last look before a stop comes beside `run`, and keeps the order
            while lane.rows_wait:
                lane.rows_wait = False
                try:
                    lane.rows_wait = await self._publish_rows(lane.topic) or lane.rows_wait
                except BaseException:
                    lane.rows_wait = True
                    raise
            if self._updates_of(lane) and time.monotonic() >= self._updates_due:
                self._updates_due = time.monotonic() + self._interval
                await self._publish_updates(self._updates.take())

    def _updates_of(self, lane: _Lane) -> bool:
        return lane.topic == CANDLES and bool(self._updates)

    async def _publish_updates(self, records: Sequence[CandlesRecord]) -> None:
        encoded = [(record.market.key.encode(), encode_candles(record)) for record in records]
        for batch in _batches(encoded):
            await self._producer.publish(CANDLES, self._partition, batch)
        CANDLE_EVENTS.labels("update").inc(sum(len(record.candles) for record in records))

    async def _publish_rows(self, topic: str) -> bool:
        """Publish the topic's oldest rows, and forget each batch that the log has; return whether there may be more."""
        rows = await self._outbox.waiting(
            self._partition, topic, limit=OUTBOX_ROWS, max_bytes=OUTBOX_BYTES
        )
        if rows and topic == STATUS:
            await self._publish_candles_first()
        waiting = iter(rows)
        for batch in _batches((row.key, row.value) for row in rows):
            await self._producer.publish(topic, self._partition, batch)
            await self._outbox.delete([row.row_id for row in islice(waiting, len(batch))])
            OUTBOX.inc(len(batch))
        return len(rows) == OUTBOX_ROWS or sum(len(row.value) for row in rows) >= OUTBOX_BYTES

    async def _publish_candles_first(self) -> None:
        """States before what tells of others: whoever is told to read again has been told those."""
        candles = self._lanes[0]
        candles.rows_wait = True
        await self._publish_lane(candles)


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield the records in order, as many at once as one publish takes."""
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and size + len(record[1]) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record[1])
    if batch:
        yield batch
