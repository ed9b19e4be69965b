"""`Repairer`: every open gap of the markets held, fetched again by REST; rescanned every few seconds, never only the last one."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from vegamite_collector import metrics
from vegamite_collector.config import CollectorSection
from vegamite_collector.core.repair import Page, RepairPlan, newest_first
from vegamite_collector.ports import (
    MarketStore,
    SourceError,
    StoreError,
    TrackedMarket,
    TradeSource,
)
from vegamite_collector.service.sources import Sources
from vegamite_collector.service.writer import Batch, PartitionWriter
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin
from vegamite_common.messages.trades import JobEnded
from vegamite_common.runtime.backoff import Backoff
from vegamite_common.runtime.clock import Clock

log = structlog.get_logger(__name__)

UNSEEN_SECONDS = 600.0
"""How long a market is left alone, at most, whose repair's end the aggregator has not seen yet: it may be far behind."""
PAGE_ATTEMPTS = 6
RECENT_SECONDS = 30.0
"""A gap that ended so lately, in real seconds, is the history of a market that has just come alive."""


@dataclass(frozen=True)
class Held:
    """A market held now, and the writer of its partition."""

    tracked: TrackedMarket
    writer: PartitionWriter


@dataclass(frozen=True)
class _Sent:
    """A repair whose records were queued: it is done once the store knows its `job`, and void where the writer broke before."""

    job: str
    span: Span
    writer: PartitionWriter
    generation: int
    until: float


class _AbandonedError(Exception):
    """The partition's writer lost what was queued, or the partition went: the gap will be found again."""


class Repairer:
    """Repairs gaps side by side, one a market and a few an exchange; `held` gives the markets held now."""

    def __init__(
        self,
        *,
        store: MarketStore,
        sources: Sources,
        clock: Clock,
        section: CollectorSection,
        held: Callable[[], dict[Market, Held]],
    ) -> None:
        self._store = store
        self._sources = sources
        self._clock = clock
        self._section = section
        self._held = held
        self._running: dict[Market, asyncio.Task[None]] = {}
        self._wanted: dict[Market, list[Span]] = {}
        self._sent: dict[Market, _Sent] = {}
        self._paused: dict[Market, tuple[float, Backoff]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def want(self, tracked: TrackedMarket, span: Span) -> None:
        """Ask for a repair of a span that may look covered: its trades were seen to be missing.

        It is kept until the store has the repair, since no gap tells of it.
        """
        wanted = self._wanted.setdefault(tracked.market, [])
        if span not in wanted:
            wanted.append(span)

    async def run(self) -> None:
        """Scan and repair until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._clock.sleep(self._section.repair_scan_seconds)
                try:
                    found = await self._scan()
                except StoreError:
                    metrics.STORE_FAULTS.inc()
                    continue
                for held, span in found:
                    self._start(group, held, span)

    async def _scan(self) -> list[tuple[Held, Span]]:
        held = self._held()
        await self._forget_seen(held)
        by_key = {item.tracked.market_key: item for item in held.values()}
        now = self._clock.now()
        before = now - self._clock.span(self._section.gap_age_ms / 1000)
        recent = self._clock.span(RECENT_SECONDS)
        found = [
            (held[market], spans[0])
            for market, spans in self._wanted.items()
            if market in held and spans[0].to_time < before
        ]
        gaps = await self._store.open_gaps(sorted(by_key), before=before) if by_key else ()
        found += [
            (by_key[gap.market_key], newest_first(gap.span, now=now, recent=recent))
            for gap in gaps
            if gap.market_key in by_key
        ]
        return found

    async def _forget_seen(self, held: Mapping[Market, Held]) -> None:
        """Free the markets whose last repair has reached the store; until then their gaps look open that aren't.

        One whose records were thrown away, maybe, is free at once: its gaps are still to be seen, and what was wanted is
        wanted again.
        """
        if not self._sent:
            return
        seen = await self._store.ended_jobs([sent.job for sent in self._sent.values()])
        now = time.monotonic()
        for market, sent in list(self._sent.items()):
            if sent.job in seen:
                self._forget_wanted(market, sent.span)
            elif (
                market in held
                and held[market].writer is sent.writer
                and sent.writer.generation == sent.generation
                and now < sent.until
            ):
                continue
            del self._sent[market]

    def _forget_wanted(self, market: Market, span: Span) -> None:
        left = [other for other in self._wanted.pop(market, []) if other != span]
        if left:
            self._wanted[market] = left

    def _start(self, group: asyncio.TaskGroup, held: Held, span: Span) -> None:
        market = held.tracked.market
        paused_until = self._paused[market][0] if market in self._paused else 0.0
        if market in self._running or market in self._sent or time.monotonic() < paused_until:
            return
        task = group.create_task(self._repair(held, span), name=f"repair {market.key}")
        self._running[market] = task
        task.add_done_callback(lambda _: self._running.pop(market, None))

    def stop(self, market: Market) -> None:
        """End the repair of a market that is no longer held."""
        task = self._running.get(market)
        if task is not None:
            task.cancel()

    async def _repair(self, held: Held, span: Span) -> None:
        market = held.tracked.market
        slot = self._slots.setdefault(
            market.exchange, asyncio.Semaphore(self._section.repairs_per_exchange)
        )
        async with slot:
            job, writer = f"repair-{uuid.uuid4()}", held.writer
            try:
                outcome, generation = await self._fill(held, span, job)
            except _AbandonedError:
                outcome = "abandoned"
            except SourceError as error:
                outcome = "failed"
                self._pause(market, error)
            else:
                self._paused.pop(market, None)
                until = time.monotonic() + UNSEEN_SECONDS
                self._sent[market] = _Sent(job, span, writer, generation, until)
        metrics.REPAIRS.labels(market.exchange, outcome).inc()

    def _pause(self, market: Market, error: SourceError) -> None:
        backoff = (
            self._paused[market][1]
            if market in self._paused
            else Backoff(first_seconds=2.0, limit_seconds=60.0)
        )
        delay = max(backoff.next_delay(), error.retry_after or 0.0)
        self._paused[market] = (time.monotonic() + delay, backoff)

    async def _fill(self, held: Held, span: Span, job: str) -> tuple[str, int]:
        """Queue the span's trades; returns the outcome, and the writer's generation that they were queued in."""
        market = held.tracked.market
        source = await self._sources.get(market.exchange)
        settling = self._clock.span(source.profile.settling_seconds)
        plan = RepairPlan(gap=span, profile=source.profile, settling=settling)
        await self._wait_until(span.to_time + settling)
        # The first page comes before anything is announced: an exchange that is away leaves no job behind.
        page = None if plan.done else await source.fetch(market.symbol, plan.next_request())
        writer, generation = held.writer, held.writer.generation
        origin = Origin.SIMULATED if source.profile.simulated else Origin.BACKFILL
        await writer.start_job(market, job, origin)
        count = 0
        try:
            while page is not None:
                proven = plan.take(page)
                if writer.generation != generation:
                    raise _AbandonedError
                if proven is not None:
                    count += len(proven.trades)
                    metrics.REPAIRED_TRADES.labels(market.exchange).inc(len(proven.trades))
                    await writer.put_trades(
                        Batch(market, proven.trades, self._clock.now(), origin, job, proven.covered)
                    )
                page = None if plan.done else await self._next_page(source, market, plan)
        finally:
            if writer.generation == generation:
                writer.end_job(
                    JobEnded(
                        exchange=market.exchange,
                        symbol=market.symbol,
                        job=job,
                        unfillable=plan.unfillable,
                    )
                )
        reason = plan.unfillable.reason if plan.unfillable else None
        log.info(
            "gap repaired",
            market=market.key,
            seconds=(span.to_time - span.from_time) // SECOND,
            trades=count,
            lost=reason,
        )
        return ("unfillable" if reason else "filled"), generation

    async def _next_page(self, source: TradeSource, market: Market, plan: RepairPlan) -> Page:
        backoff = Backoff(first_seconds=0.5, limit_seconds=10.0)
        for attempt in range(1, PAGE_ATTEMPTS + 1):
            try:
                return await source.fetch(market.symbol, plan.next_request())
            except SourceError as error:
                if attempt == PAGE_ATTEMPTS:
                    raise
                await self._clock.sleep(max(backoff.next_delay(), error.retry_after or 0.0))
        raise AssertionError("the last attempt returned or raised")

    async def _wait_until(self, instant: int) -> None:
        while (missing := instant - self._clock.now()) > 0:
            await self._clock.sleep(missing / SECOND / self._clock.speed + 0.01)
