"""What goes from one partition's owner to the log: the outbox in order, and the newest states of candles in progress."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.metrics import CANDLES as CANDLE_EVENTS
from vegamite_aggregator.metrics import OUTBOX
from vegamite_aggregator.ports import Outbox, OutboxRow, StoreError
from vegamite_aggregator.service.condition import Cause, Conditions
from vegamite_common.bus.port import CANDLES, BusError, Producer, Record
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import CandlesRecord, encode_candles
from vegamite_common.runtime.backoff import Backoff

OUTBOX_ROWS = 200
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
        self._rows_wait = True  # an owner before us may have left some
        self._wake = asyncio.Event()

    def committed(self, changes: Changes) -> None:
        """Note what a step committed, to be published soon."""
        self._updates.note(changes)
        self._rows_wait = self._rows_wait or bool(changes.outbox)
        if self._rows_wait or self._updates:
            self._wake.set()

    def look(self) -> None:
        """Look for committed records that nobody told of: of a commit of unknown outcome, or of maintenance."""
        self._rows_wait = True
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled; while store or log are away, try again with growing delays."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=10.0)
        while True:
            await self._something_due()
            try:
                await self.publish()
            except (StoreError, BusError) as error:
                self._conditions.failed(Cause.PUBLISHING, self._partition, error)
                await asyncio.sleep(backoff.next_delay())
                continue
            self._conditions.went_well(Cause.PUBLISHING, self._partition)
            backoff.reset()

    async def _something_due(self) -> None:
        """Wait for committed records, or until the next updates may go out."""
        while not self._rows_wait:
            delay = self._updates_due - time.monotonic() if self._updates else None
            if delay is not None and delay <= 0:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def publish(self) -> None:
        """Publish what is due now; raise `StoreError` or `BusError`, and what was committed waits again."""
        while self._rows_wait:
            self._rows_wait = False
            try:
                if await self._publish_rows() == OUTBOX_ROWS:
                    self._rows_wait = True
            except BaseException:
                self._rows_wait = True
                raise
        if self._updates and time.monotonic() >= self._updates_due:
            self._updates_due = time.monotonic() + self._interval
            await self._publish_updates(self._updates.take())

    async def _publish_updates(self, records: Sequence[CandlesRecord]) -> None:
        await self._send(
            CANDLES, [(record.market.key.encode(), encode_candles(record)) for record in records]
        )
        CANDLE_EVENTS.labels("update").inc(sum(len(record.candles) for record in records))

    async def _publish_rows(self) -> int:
        rows = await self._outbox.waiting(self._partition, after=0, limit=OUTBOX_ROWS)
        # States before what tells of others: whoever is told to read again has been told those.
        for topic in sorted({row.topic for row in rows}):
            await self._send(topic, [(row.key, row.value) for row in rows if row.topic == topic])
        if rows:
            await self._outbox.delete(_ids(rows))
            OUTBOX.inc(len(rows))
        return len(rows)

    async def _send(self, topic: str, records: Iterable[Record]) -> None:
        batch: list[Record] = []
        size = 0
        for record in records:
            if batch and size + len(record[1]) > BATCH_BYTES:
                await self._producer.publish(topic, self._partition, batch)
                batch, size = [], 0
            batch.append(record)
            size += len(record[1])
        if batch:
            await self._producer.publish(topic, self._partition, batch)


def _ids(rows: Sequence[OutboxRow]) -> list[int]:
    return [row.row_id for row in rows]
