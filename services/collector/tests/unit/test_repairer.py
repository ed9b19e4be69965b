"""Gaps are found in the store, fetched page by page, and framed as one job each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from vegamite_collector.config import CollectorSection
from vegamite_collector.core.profile import profile_for
from vegamite_collector.core.repair import Page
from vegamite_collector.ports import OpenGap, SourceError, TrackedMarket, TradeSource
from vegamite_collector.service.repairer import Held, Repairer
from vegamite_collector.service.sources import Sources
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import JobEnded, JobStarted, TradesRecord
from vegamite_common.testing.eventually import eventually

BTC = Market("binance", "BTC/USDT")
TRACKED = TrackedMarket(7, BTC, 0)
NOW = 1_700_000_000 * SECOND
GAP = Span(NOW - HOUR, NOW - HOUR + 60 * SECOND)


def page(*seconds: int, sent: int | None = None) -> Page:
    trades = tuple(
        Trade(str(n), n, GAP.from_time + n * SECOND, Decimal(1), Decimal(1)) for n in seconds
    )
    return Page(trades, len(trades) if sent is None else sent, NOW)


@dataclass
class Bench:
    producer: Any
    writer: Any
    source: Any
    repairer: Repairer

    def kinds(self, kind: type[Any]) -> list[Any]:
        return list(self.producer.kinds(kind))


@asynccontextmanager
async def repairing(
    running_writer: Callable[..., Any], source: Any, store: Any
) -> AsyncIterator[Bench]:
    async def factory(exchange: str) -> TradeSource:
        assert exchange
        found: TradeSource = source
        return found

    async with running_writer() as (writer, producer, clock):
        await eventually(lambda: writer.claims_allowed)
        repairer = Repairer(
            store=store,
            sources=Sources(factory),
            clock=clock,
            section=CollectorSection(repair_scan_seconds=0.1),
            held=lambda: {BTC: Held(TRACKED, writer)},
        )
        task = asyncio.create_task(repairer.run())
        try:
            yield Bench(producer, writer, source, repairer)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_gap_is_one_job_with_its_claim_in_the_record_of_its_trades(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.pages = [page(1, 2, 3)]
    store.gaps = [OpenGap(7, GAP)]
    async with repairing(running_writer, source, store) as on:
        await eventually(lambda: bool(on.kinds(JobEnded)))
        [started] = on.kinds(JobStarted)
        [record] = on.kinds(TradesRecord)
        [ended] = on.kinds(JobEnded)
        assert started.job == record.job == ended.job
        assert record.covered == (GAP.from_time, GAP.to_time)
        assert record.origin is Origin.BACKFILL
        assert ended.unfillable is None
        assert source.requests[0].since == GAP.from_time


async def test_a_repaired_gap_is_left_alone_until_the_store_has_seen_the_jobs_end(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.pages = [page(1), page(2)]
    store.gaps = [OpenGap(7, GAP)]
    async with repairing(running_writer, source, store) as on:
        await eventually(lambda: bool(on.kinds(JobEnded)))
        scans = store.scans
        await eventually(lambda: store.scans > scans + 5)
        assert len(on.kinds(JobStarted)) == 1
        store.ended.add(on.kinds(JobEnded)[0].job)
        await eventually(lambda: len(on.kinds(JobEnded)) == 2)


async def test_an_exchange_that_is_away_leaves_no_job_and_is_asked_again(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.pages = [SourceError("away"), page(1)]
    store.gaps = [OpenGap(7, GAP)]
    async with repairing(running_writer, source, store) as on:
        await eventually(lambda: bool(on.kinds(JobEnded)), timeout_s=30)
        assert len(source.requests) == 2
        assert len(on.kinds(JobStarted)) == 1


async def test_a_refused_page_is_asked_for_again_within_its_job(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    full = page(*range(1, 31), sent=1_000)
    source.pages = [full, SourceError("429", retry_after=0.01), SourceError("500"), page(31, 32)]
    store.gaps = [OpenGap(7, GAP)]
    async with repairing(running_writer, source, store) as on:
        await eventually(lambda: bool(on.kinds(JobEnded)))
        assert [request.from_id for request in source.requests] == [None, 31, 31, 31]
        records = on.kinds(TradesRecord)
        assert [record.covered for record in records] == [
            (GAP.from_time, GAP.from_time + 30 * SECOND),
            (GAP.from_time + 30 * SECOND, GAP.to_time),
        ]


async def test_a_repair_whose_records_were_lost_is_given_up_and_found_again(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.pages = [page(*range(1, 31), sent=1_000)]
    store.gaps = [OpenGap(7, GAP)]
    async with repairing(running_writer, source, store) as on:
        await eventually(lambda: len(source.requests) == 2 and bool(on.kinds(JobStarted)))
        # The second page takes as long as the log takes to lose what is queued.
        on.producer.failing = True
        generation = on.writer.generation
        await eventually(lambda: on.writer.generation > generation)
        on.producer.failing = False
        source.pages = [page(31), page(1, 2)]
        await eventually(lambda: bool(on.kinds(JobEnded)), timeout_s=30)
        jobs = {record.job for record in on.kinds(JobStarted)}
        assert len(jobs) == 2
        [ended] = on.kinds(JobEnded)
        assert ended.job in jobs
        assert on.kinds(TradesRecord)[-1].job == ended.job


async def test_trades_that_were_skipped_are_fetched_though_no_gap_is_open(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.pages = [page(5)]
    async with repairing(running_writer, source, store) as on:
        on.repairer.want(TRACKED, Span(GAP.from_time, GAP.from_time + 10 * SECOND))
        await eventually(lambda: bool(on.kinds(JobEnded)))
        [record] = on.kinds(TradesRecord)
        assert record.covered == (GAP.from_time, GAP.from_time + 10 * SECOND)


async def test_a_gap_that_cannot_be_had_is_said_to_be_lost_without_a_question(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("coinbase"))
    store.gaps = [OpenGap(7, GAP)]
    async with repairing(running_writer, source, store) as on:
        await eventually(lambda: bool(on.kinds(JobEnded)))
        lost = on.kinds(JobEnded)[0].unfillable
        assert (lost.from_time, lost.to_time, lost.reason) == (
            GAP.from_time,
            GAP.to_time,
            "no_history",
        )
        assert source.requests == []


async def test_skipped_trades_are_asked_for_until_the_store_has_them(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    first = Span(GAP.from_time, GAP.from_time + 10 * SECOND)
    second = Span(GAP.from_time + 20 * SECOND, GAP.from_time + 30 * SECOND)
    async with repairing(running_writer, source, store) as on:
        on.repairer.want(TRACKED, first)
        on.repairer.want(TRACKED, second)
        source.pages = [SourceError("away"), page(5), page(25)]
        await eventually(lambda: len(on.kinds(JobEnded)) == 1, timeout_s=30)
        # While the first repair is on its way to the store, the second waits, and isn't forgotten.
        scans = store.scans
        await eventually(lambda: store.scans > scans + 5)
        assert len(on.kinds(JobEnded)) == 1
        store.ended.add(on.kinds(JobEnded)[0].job)
        await eventually(lambda: len(on.kinds(JobEnded)) == 2)
        store.ended.add(on.kinds(JobEnded)[1].job)
        assert [record.covered for record in on.kinds(TradesRecord)] == [
            (span.from_time, span.to_time) for span in (first, second)
        ]
        scans = store.scans
        await eventually(lambda: store.scans > scans + 5)
        assert len(on.kinds(JobStarted)) == 2


async def test_a_repair_that_was_queued_when_the_log_broke_is_done_again_at_once(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.pages = [page(5)]
    async with repairing(running_writer, source, store) as on:
        on.repairer.want(TRACKED, Span(GAP.from_time, GAP.from_time + 10 * SECOND))
        generation = on.writer.generation
        # The log takes nothing, and then says that what it was given is lost.
        on.producer.gate.clear()
        scans = store.scans
        await eventually(lambda: len(source.requests) == 1 and store.scans > scans + 5)
        assert on.kinds(JobEnded) == []
        on.producer.failing = True
        on.producer.gate.set()
        await eventually(lambda: on.writer.generation > generation)
        on.producer.failing = False
        source.pages = [page(5)]
        await eventually(lambda: bool(on.kinds(JobEnded)), timeout_s=30)
        assert [[t.trade_id for t in record.trades] for record in on.kinds(TradesRecord)] == [["5"]]
