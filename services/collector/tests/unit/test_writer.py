"""One partition's writer: order, claims, and what a failed write undoes."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from vegamite_collector.service.writer import Batch
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    SpanClosed,
    SpanOpened,
    TradesRecord,
)
from vegamite_common.testing.eventually import eventually

BTC = Market("binance", "BTC/USDT")
ETH = Market("binance", "ETH/USDT")
SETTLING = SECOND


def trades(count: int) -> tuple[Trade, ...]:
    return tuple(
        Trade(str(n), n, 1_600_000_000 * SECOND + n, Decimal(1), Decimal(1))
        for n in range(1, count + 1)
    )


def batch(count: int, **more: Any) -> Batch:
    return Batch(BTC, trades(count), 1_700_000_000 * SECOND, Origin.LIVE, **more)


async def claiming(writer: Any) -> None:
    await eventually(lambda: writer.claims_allowed)


async def test_what_was_claimed_last_is_known_over_a_failed_write(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        began = clock.now()
        assert writer.claimed_through == began
        await claiming(writer)
        clock.instant += 60 * SECOND
        await eventually(lambda: writer.claimed_through > began)
        claimed = writer.claimed_through
        assert claimed <= clock.now() - SETTLING
        producer.failing = True
        await eventually(lambda: writer.last_claim is None)
        clock.instant += 60 * SECOND
        assert writer.claimed_through == claimed


async def test_heartbeats_tell_when_the_log_last_took_something_and_why_it_does_not(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        clock.instant += 60 * SECOND
        await eventually(lambda: writer.acknowledged_time == clock.now())
        producer.failing = True
        clock.instant += 60 * SECOND
        await eventually(lambda: writer.fault == "away")
        assert writer.acknowledged_time == clock.now() - 60 * SECOND
        producer.failing = False
        await eventually(lambda: writer.acknowledged_time == clock.now())
        assert writer.fault == ""


async def test_nothing_is_claimed_before_the_first_acknowledgement_proved_the_clocks(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        producer.gate.clear()
        writer.open_span(BTC, from_time=clock.now(), settling=SETTLING)
        await writer.put_trades(batch(1, job="j", covered=(1, 2)))
        producer.gate.set()
        await claiming(writer)
        await writer.flush()
        assert producer.kinds(Heartbeat)[0].to_time == 0
        assert producer.kinds(TradesRecord)[0].covered is None
        [opened] = producer.kinds(SpanOpened)
        assert opened.from_time >= clock.now() + SETTLING, "opened anew once claims are allowed"


async def test_a_claim_is_behind_the_trades_it_speaks_of(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        await claiming(writer)
        writer.open_span(BTC, from_time=clock.now(), settling=SETTLING)
        await writer.put_trades(batch(2_500, job="j", covered=(5, 9)))
        clock.instant += 10 * SECOND
        writer.prove(BTC, clock.now() - SECOND)
        expected = clock.now() - 2 * SECOND
        await eventually(lambda: producer.kinds(Heartbeat)[-1].to_time == expected)
        records = producer.kinds(TradesRecord)
        assert [len(record.trades) for record in records] == [1000, 1000, 500]
        assert [record.covered for record in records] == [None, None, (5, 9)]
        claims = [
            n
            for n, r in enumerate(producer.records)
            if isinstance(r, Heartbeat) and r.to_time == expected
        ]
        last_trades = max(n for n, r in enumerate(producer.records) if isinstance(r, TradesRecord))
        assert last_trades < claims[0]


async def test_the_slowest_span_holds_back_the_heartbeat_until_it_is_closed(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        await claiming(writer)
        begin = clock.now()
        for market in (BTC, ETH):
            writer.open_span(market, from_time=begin, settling=SETTLING)
        clock.instant += 20 * SECOND
        writer.prove(BTC, clock.now())
        await eventually(lambda: producer.kinds(Heartbeat)[-1].to_time == begin - SETTLING)
        writer.close_span(ETH, cause="timeout")
        await eventually(lambda: producer.kinds(Heartbeat)[-1].to_time == clock.now() - SETTLING)
        [closed] = producer.kinds(SpanClosed)
        assert (closed.to_time, closed.cause, closed.market) == (begin - SETTLING, "timeout", ETH)


async def test_a_break_closes_at_the_limit_and_opens_behind_now(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        await claiming(writer)
        begin = clock.now()
        writer.open_span(BTC, from_time=begin, settling=SETTLING)
        clock.instant += 10 * SECOND
        writer.prove(BTC, clock.now())
        writer.break_span(BTC, cause="missing_trades", limit=begin + 3 * SECOND)
        await writer.flush()
        [closed] = producer.kinds(SpanClosed)
        assert closed.to_time == begin + 3 * SECOND
        assert producer.kinds(SpanOpened)[-1].from_time == clock.now() + SETTLING
        writer.break_span(ETH, cause="missing_trades")
        await writer.flush()
        assert len(producer.kinds(SpanClosed)) == 1, "a market without a span has none to break"


async def test_a_failed_write_throws_the_queue_away_and_takes_a_new_name(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        await claiming(writer)
        writer.open_span(BTC, from_time=clock.now(), settling=SETTLING)
        await writer.flush()
        first_name, generation = writer.writer, writer.generation
        producer.gate.clear()
        attempts = producer.attempts
        await eventually(lambda: producer.attempts > attempts)
        await writer.put_trades(batch(3))
        written = len(producer.kinds(TradesRecord))
        producer.failing = True
        producer.gate.set()
        await eventually(lambda: writer.generation > generation)
        clock.instant += 5 * SECOND
        producer.failing = False
        await claiming(writer)
        await writer.flush()
        assert writer.writer != first_name
        assert len(producer.kinds(TradesRecord)) == written, "what was queued is gone"
        reopened = producer.kinds(SpanOpened)[-1]
        assert reopened.writer == writer.writer
        assert reopened.from_time >= clock.now() + SETTLING
        later = [r for r in producer.records if getattr(r, "writer", None) == first_name]
        last_of_first = max(n for n, r in enumerate(producer.records) if r in later)
        first_of_new = min(
            n for n, r in enumerate(producer.records) if getattr(r, "writer", None) == writer.writer
        )
        assert last_of_first < first_of_new, "nothing more under the old name"


async def test_where_the_logs_clock_differs_spans_close_without_a_claim(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, clock):
        await claiming(writer)
        writer.open_span(BTC, from_time=clock.now(), settling=SETTLING)
        clock.instant += 10 * SECOND
        writer.prove(BTC, clock.now())
        producer.skew = SECOND
        await eventually(lambda: not writer.claims_allowed)
        assert writer.skew.since is not None
        writer.close_span(BTC, cause="socket_closed")
        await writer.put_trades(batch(1, job="j", covered=(5, 9)))
        await writer.flush()
        assert producer.kinds(SpanClosed)[-1].to_time == 0
        assert producer.kinds(TradesRecord)[-1].covered is None
        assert producer.kinds(Heartbeat)[-1].to_time == 0
        producer.skew = 0
        await claiming(writer)
        assert writer.skew.since is None


async def test_a_full_queue_makes_the_caller_wait(running_writer: Callable[..., Any]) -> None:
    async with running_writer(queue_records=10) as (writer, producer, _):
        await claiming(writer)
        producer.gate.clear()
        attempts = producer.attempts
        await eventually(lambda: producer.attempts > attempts)

        async def put_many() -> None:
            for _ in range(50):
                await writer.put_trades(batch(1))

        putting = asyncio.create_task(put_many())
        await eventually(lambda: writer.queued >= 10)
        await asyncio.sleep(0)
        assert not putting.done()
        # Heartbeats have room of their own.
        assert writer.queued < 50
        producer.gate.set()
        await asyncio.wait_for(putting, 10)
        await writer.flush()
        assert len(producer.kinds(TradesRecord)) == 50


async def test_a_job_is_framed_by_its_beginning_and_end(running_writer: Callable[..., Any]) -> None:
    async with running_writer() as (writer, producer, _):
        await claiming(writer)
        await writer.start_job(BTC, "j", Origin.BACKFILL)
        await writer.put_trades(batch(2, job="j", covered=(5, 9)))
        writer.end_job(JobEnded(exchange=BTC.exchange, symbol=BTC.symbol, job="j"))
        await writer.flush()
        kinds = [type(r) for r in producer.records if not isinstance(r, Heartbeat)]
        assert kinds == [JobStarted, TradesRecord, JobEnded]


async def test_an_empty_claim_is_a_record_and_an_empty_nothing_is_none(
    running_writer: Callable[..., Any],
) -> None:
    async with running_writer() as (writer, producer, _):
        await claiming(writer)
        await writer.put_trades(batch(0, job="j", covered=(5, 9)))
        await writer.put_trades(batch(0, job="j"))
        await writer.flush()
        [record] = producer.kinds(TradesRecord)
        assert (record.trades, record.covered) == ((), (5, 9))
