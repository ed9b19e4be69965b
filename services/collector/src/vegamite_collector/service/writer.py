"""`PartitionWriter`: the one way into a partition of the trades log, in order: trades, what they prove, and heartbeats.

Rules it keeps:
- A claim is queued behind the trades that it speaks of, so the log never holds it before them.
- A write that failed may have been appended or not: all that is queued is thrown away, the writer gets a new name, and its
  spans are opened anew from a time that no lost trade can have.
- It claims nothing until a heartbeat's acknowledgement has proved that the log's clock agrees with ours. A span is then
  closed without a claim rather than not at all, since later heartbeats extend whatever is open.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from vegamite_collector import metrics
from vegamite_collector.config import CollectorSection
from vegamite_collector.core.coverage import (
    ClockProof,
    OpenSpan,
    SkewTimer,
    compare_clocks,
    heartbeat_time,
    late_trade_count,
)
from vegamite_collector.core.repair import split_records
from vegamite_common.bus.port import TRADES, BusError, Producer
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    encode_trades,
)
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)

DEFAULT_SETTLING_SECONDS = 1.0
_BATCH_RECORDS = 500
_BATCH_BYTES = 500_000


class _Queued(NamedTuple):
    key: bytes | None
    value: bytes
    heartbeat: bool


@dataclass(frozen=True)
class Batch:
    """The trades of one market that go into the log together, and what they belong to."""

    market: Market
    trades: Sequence[Trade]
    received_time: Micros
    origin: Origin
    job: str | None = None
    covered: tuple[Micros, Micros] | None = None


class PartitionWriter:
    """Writes one held partition; `run` has to be running. Its markets' spans are opened, proven and closed here."""

    def __init__(
        self, partition: int, *, producer: Producer, clock: Clock, section: CollectorSection
    ) -> None:
        self.partition = partition
        self.writer = str(uuid.uuid4())
        self.generation = 0
        self.claims_allowed = False
        self.skew = SkewTimer()
        self.spans: dict[Market, OpenSpan] = {}
        self.last_claim: Micros | None = None
        self.claimed_through: Micros = clock.now()
        """Where the last claim ended, under whichever name; before the first, when this writer began."""
        self.acknowledged_time: Micros = clock.now()
        """When the log last acknowledged something; before that, when this writer began. Heartbeats make it a young one."""
        self.fault = ""
        """Why the last write failed; empty where it didn't."""
        self._producer = producer
        self._clock = clock
        self._section = section
        self._queue: deque[_Queued] = deque()
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)

    @property
    def queued(self) -> int:
        """How many records wait for the log."""
        return len(self._queue)

    async def put_trades(self, batch: Batch) -> None:
        """Queue trades, with their claim in the last of their records; waits while the queue is full."""
        runs = split_records(batch.trades)
        for number, run in enumerate(runs):
            await self._room.wait()
            covered = batch.covered if number == len(runs) - 1 and self.claims_allowed else None
            if not run and covered is None:
                continue
            record = TradesRecord(
                exchange=batch.market.exchange,
                symbol=batch.market.symbol,
                received_time=batch.received_time,
                origin=batch.origin,
                trades=run,
                job=batch.job,
                covered=covered,
            )
            self._append(batch.market, encode_trades(record))
            metrics.TRADES.labels(batch.market.exchange, batch.origin.value).inc(len(run))

    async def start_job(self, market: Market, job: str, origin: Origin) -> None:
        """Queue the beginning of a bulk job; waits while the queue is full."""
        await self._room.wait()
        record = JobStarted(exchange=market.exchange, symbol=market.symbol, job=job, origin=origin)
        self._append(market, encode_trades(record))

    def end_job(self, ended: JobEnded) -> None:
        """Queue the end of a bulk job."""
        self._append(ended.market, encode_trades(ended))

    def open_span(self, market: Market, *, from_time: Micros, settling: Micros) -> None:
        """Open the market's span: every trade from `from_time` on will be queued here."""
        now = self._clock.now()
        self.spans[market] = OpenSpan(from_time=from_time, proven_time=now, settling=settling)
        if self.claims_allowed:
            self._put_span_opened(market, from_time)

    def prove(self, market: Market, sent_time: Micros) -> None:
        """Note that everything the exchange sent before answering a ping of `sent_time` is queued."""
        span = self.spans.get(market)
        if span is not None:
            span.prove(sent_time)

    def late_trades(self, market: Market, trades: Sequence[Trade]) -> int:
        """Return how many of the trades came for a time that this writer has claimed of the market."""
        span = self.spans.get(market)
        if span is None or self.last_claim is None:
            return 0
        return late_trade_count(
            span, (trade.event_time for trade in trades), claimed=self.last_claim
        )

    def set_settling(self, market: Market, settling: Micros) -> None:
        """Let the market's span claim less by another settling time (µs) from now on."""
        span = self.spans.get(market)
        if span is not None:
            span.settling = settling

    def close_span(self, market: Market, *, cause: str, limit: Micros | None = None) -> Micros:
        """Close the market's span, if it is open, where it is proven, or at `limit` where that is less.

        Returns up to when the market may look complete: the later of the span's end and the last heartbeat's time.
        """
        span = self.spans.pop(market, None)
        if span is None:
            return 0
        metrics.SPANS_BROKEN.labels(market.exchange, cause).inc()
        to_time = max(0, span.closing(limit)) if self.claims_allowed else 0
        record = SpanClosed(
            exchange=market.exchange,
            symbol=market.symbol,
            writer=self.writer,
            to_time=to_time,
            cause=cause,
        )
        self._append(market, encode_trades(record))
        return max(to_time, self.last_claim or 0)

    def break_span(self, market: Market, *, cause: str, limit: Micros | None = None) -> None:
        """Close the market's span and open it again from a time that what was missed can't have."""
        span = self.spans.get(market)
        if span is None:
            return
        self.close_span(market, cause=cause, limit=limit)
        self.open_span(market, from_time=self._clock.now() + span.settling, settling=span.settling)

    async def run(self) -> None:
        """Send heartbeats and what is queued, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(), name=f"heartbeat {self.partition}")
            group.create_task(self._send(), name=f"writer {self.partition}")

    async def flush(self) -> None:
        """Return once all that is queued was sent."""
        await self._idle.wait()

    async def _beat(self) -> None:
        interval = self._section.heartbeat_ms / 1000
        per_keyframe = max(1, round(self._section.keyframe_seconds / interval))
        count = 0
        while True:
            self._put_heartbeat()
            count += 1
            if count % per_keyframe == 0 and self.claims_allowed:
                self._put_keyframe()
            await self._clock.sleep(interval)

    def _put_heartbeat(self) -> None:
        settling = self._clock.span(DEFAULT_SETTLING_SECONDS)
        to_time = 0
        if self.claims_allowed:
            to_time = max(
                0,
                heartbeat_time(list(self.spans.values()), now=self._clock.now(), settling=settling),
            )
            self.last_claim = to_time
            self.claimed_through = max(to_time, self.claimed_through)
        self._enqueue(
            _Queued(
                None, encode_trades(Heartbeat(writer=self.writer, to_time=to_time)), heartbeat=True
            )
        )

    def _put_keyframe(self) -> None:
        now = self._clock.now()
        for market, span in self.spans.items():
            self._put_span_opened(market, max(span.from_time, now + span.settling))

    def _put_span_opened(self, market: Market, from_time: Micros) -> None:
        record = SpanOpened(
            exchange=market.exchange, symbol=market.symbol, writer=self.writer, from_time=from_time
        )
        self._append(market, encode_trades(record))

    def _append(self, market: Market, value: bytes) -> None:
        self._enqueue(_Queued(market.key.encode(), value, heartbeat=False))

    def _enqueue(self, queued: _Queued) -> None:
        self._queue.append(queued)
        self._ready.set()
        self._idle.clear()
        if len(self._queue) >= self._section.queue_records:
            self._room.clear()

    def _take(self) -> list[_Queued]:
        batch: list[_Queued] = []
        size = 0
        while self._queue and len(batch) < _BATCH_RECORDS:
            size += len(self._queue[0].value)
            if batch and size > _BATCH_BYTES:
                break
            batch.append(self._queue.popleft())
        if len(self._queue) < self._section.queue_records:
            self._room.set()
        return batch

    async def _send(self) -> None:
        while True:
            await self._ready.wait()
            batch = self._take()
            if not batch:
                self._ready.clear()
                self._idle.set()
                continue
            sent_time = self._clock.now()
            try:
                with metrics.PUBLISH_SECONDS.time():
                    ack = await self._producer.publish(
                        TRADES, self.partition, [(item.key, item.value) for item in batch]
                    )
            except BusError as error:
                self._start_anew(error)
                await self._clock.sleep(self._backoff.next_delay())
                continue
            self._backoff.reset()
            self.acknowledged_time, self.fault = self._clock.now(), ""
            metrics.RECORDS.inc(len(batch))
            self._compare_clocks(
                sent_time=sent_time,
                append_time=ack.append_time,
                heartbeat=any(item.heartbeat for item in batch),
            )

    def _start_anew(self, error: BusError) -> None:
        metrics.PRODUCE_FAILURES.inc()
        self.fault = str(error)
        log.warning(
            "writing to the log failed",
            partition=self.partition,
            error=str(error),
            dropped=len(self._queue),
        )
        self._queue.clear()
        self._room.set()
        self.generation += 1
        self.writer = str(uuid.uuid4())
        self.claims_allowed = False
        self.last_claim = None
        now = self._clock.now()
        for span in self.spans.values():
            span.from_time = now + span.settling

    def _compare_clocks(self, *, sent_time: Micros, append_time: Micros, heartbeat: bool) -> None:
        now = self._clock.now()
        proof = compare_clocks(
            sent_time=sent_time,
            acked_time=now,
            append_time=append_time,
            limit=self._clock.span(self._section.clock_limit_ms / 1000),
        )
        if heartbeat:
            metrics.CLOCK_DIFFERENCE.set((append_time - now) / SECOND / self._clock.speed)
        self.skew.note(proof, now)
        if proof is not ClockProof.AGREES:
            if proof is ClockProof.DIFFERS and self.claims_allowed:
                log.warning(
                    "the log's clock differs from ours; nothing is claimed",
                    partition=self.partition,
                )
            self.claims_allowed = False
        elif heartbeat and not self.claims_allowed:
            self.claims_allowed = True
            self._put_keyframe()
