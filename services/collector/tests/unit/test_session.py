"""One market's subscription: what each event of its source does to the log and to the market's state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from vegamite_collector.core.normalise import Quarantined
from vegamite_collector.core.profile import profile_for
from vegamite_collector.ports import (
    Lost,
    Proved,
    SourceError,
    Subscribed,
    TrackedMarket,
    TradesArrived,
    TradeSource,
    UnknownSymbolError,
    UnsupportedExchangeError,
)
from vegamite_collector.service.session import MarketSession
from vegamite_collector.service.sources import Sources
from vegamite_collector.service.states import SourceStates
from vegamite_common.domain.coverage import Span
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import SpanClosed, SpanOpened, TradesRecord
from vegamite_common.testing.eventually import eventually

BTC = Market("binance", "BTC/USDT")
TRACKED = TrackedMarket(7, BTC, 0)
NOW = 1_700_000_000 * SECOND
AHEAD = Quarantined("event_time", "ahead")


def arrived(*numbers: int, quarantined: tuple[Quarantined, ...] = ()) -> TradesArrived:
    trades = tuple(Trade(str(n), n, NOW + n * SECOND, Decimal(1), Decimal(1)) for n in numbers)
    return TradesArrived(NOW, trades, quarantined)


@dataclass
class Bench:
    producer: Any
    states: SourceStates
    source: Any
    holes: list[Span]
    clock: Any
    writer: Any

    def kinds(self, kind: type[Any]) -> list[Any]:
        return list(self.producer.kinds(kind))

    def state(self) -> tuple[str, str | None]:
        state = self.states.state_of(BTC)
        assert state is not None
        return state.state, state.reason


@asynccontextmanager
async def session(
    running_writer: Callable[..., Any],
    source: Any,
    store: Any,
    *,
    error: SourceError | None = None,
) -> AsyncIterator[Bench]:
    async def factory(exchange: str) -> TradeSource:
        assert exchange == BTC.exchange
        if error is not None:
            raise error
        found: TradeSource = source
        return found

    holes: list[Span] = []
    async with running_writer() as (writer, producer, clock):
        await eventually(lambda: writer.claims_allowed)
        states = SourceStates(store=store, producer=producer, status_partitions=1, clock=clock)
        made = MarketSession(
            TRACKED,
            sources=Sources(factory),
            writer=writer,
            states=states,
            clock=clock,
            on_hole=lambda _, span: holes.append(span),
        )
        task = asyncio.create_task(made.run())
        try:
            yield Bench(producer, states, source, holes, clock, writer)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_span_opens_a_settling_time_after_the_subscription_and_is_live_once_proven(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.scripts = [[Subscribed(NOW + SECOND), arrived(1, 2), Proved(NOW + 2 * SECOND)]]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: on.state() == ("live", None))
        await on.writer.flush()
        [opened] = on.kinds(SpanOpened)
        assert opened.from_time == NOW + 2 * SECOND
        assert [trade.sequence for trade in on.kinds(TradesRecord)[0].trades] == [1, 2]
        await on.states.flush()
        assert [state.state for _, state in store.states] == ["live"]
        assert [record.state for record in on.producer.statuses] == ["live"]


async def test_a_quarantined_trade_withholds_coverage_and_ten_in_a_row_are_a_clock_that_is_off(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    bad = [arrived(quarantined=(AHEAD,)) for _ in range(10)]
    source.scripts = [[Subscribed(NOW), Proved(NOW), *bad, Proved(NOW + SECOND)]]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: on.state()[0] == "clock_skew")
        await on.writer.flush()
        assert [record.cause for record in on.kinds(SpanClosed)] == ["quarantine"] * 10
        assert on.kinds(TradesRecord) == []


async def test_one_good_trade_ends_the_suspicion(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    bad = [arrived(quarantined=(AHEAD,)) for _ in range(12)]
    source.scripts = [[Subscribed(NOW), *bad, arrived(1), Proved(NOW + SECOND)]]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: on.state() == ("live", None))


async def test_what_could_not_be_read_breaks_the_span_at_its_last_proof(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.scripts = [
        [
            Subscribed(NOW),
            Proved(NOW + 5 * SECOND),
            Lost("undecodable_frame", "x"),
            Proved(NOW + 6 * SECOND),
        ]
    ]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: len(on.kinds(SpanOpened)) == 2)
        [closed] = on.kinds(SpanClosed)
        assert (closed.cause, closed.to_time) == ("undecodable_frame", NOW + 4 * SECOND)
        assert on.kinds(SpanOpened)[1].from_time == on.clock.now() + SECOND


async def test_skipped_ids_break_the_span_before_them_and_are_asked_for(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.scripts = [[Subscribed(NOW), arrived(1, 2), Proved(NOW + 50 * SECOND), arrived(9)]]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: bool(on.holes))
        await on.writer.flush()
        [closed] = on.kinds(SpanClosed)
        assert (closed.cause, closed.to_time) == ("missing_trades", NOW + 2 * SECOND)
        assert on.holes == [Span(NOW + 2 * SECOND, NOW + 9 * SECOND + 1000)]


async def test_ids_with_holes_are_nothing_where_an_exchange_has_them(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(replace(profile_for("binance"), ids_contiguous=False))
    source.scripts = [[Subscribed(NOW), arrived(1), arrived(9), Proved(NOW)]]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: on.state()[0] == "live")
        await on.writer.flush()
        assert on.kinds(SpanClosed) == []


async def test_a_lost_connection_closes_the_span_says_why_and_is_made_again(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.scripts = [
        [Subscribed(NOW), Proved(NOW), SourceError("no answer for 8 s", cause="timeout")],
        [SourceError("refused")],
        [Subscribed(NOW), Proved(NOW)],
    ]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: source.connections == 3)
        await eventually(lambda: on.state() == ("live", None))
        await on.writer.flush()
        assert [record.cause for record in on.kinds(SpanClosed)] == ["timeout"]
        assert len(on.kinds(SpanOpened)) == 2


async def test_an_unknown_symbol_comes_with_suggestions_and_is_left_alone(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    source.scripts = [[UnknownSymbolError("no such market", known=("BTC/USDC", "ETH/EUR"))]]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: on.state() == ("unknown_symbol", "no such market"))
        await on.states.flush()
        assert store.states[-1][1].suggestions == ("BTC/USDC",)


async def test_an_exchange_without_a_stream_is_unsupported(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    error = UnsupportedExchangeError("no stream")
    async with session(running_writer, source, store, error=error) as on:
        await eventually(lambda: on.state() == ("unsupported", "no stream"))
        assert source.connections == 0


async def test_trades_of_a_claimed_time_raise_the_markets_settling_time(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    gate = asyncio.Event()
    source.scripts = [
        [
            Subscribed(NOW),
            arrived(2),
            Proved(NOW + 20 * SECOND),
            gate,
            arrived(3, 4),
            Proved(NOW + 21 * SECOND),
        ]
    ]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: BTC in on.writer.spans)
        on.clock.instant = NOW + 25 * SECOND
        await eventually(lambda: on.writer.last_claim == NOW + 19 * SECOND)
        gate.set()
        await eventually(lambda: on.writer.spans[BTC].settling == 2 * SECOND)
        assert on.writer.spans[BTC].claim == NOW + 19 * SECOND
        await on.writer.flush()
        assert [t.sequence for r in on.kinds(TradesRecord) for t in r.trades] == [2, 3, 4]
        assert on.kinds(SpanClosed) == []


async def test_repeats_from_before_the_subscription_are_not_late(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(replace(profile_for("binance"), ids_contiguous=False))
    gate = asyncio.Event()
    source.scripts = [
        [
            Subscribed(NOW + 10 * SECOND),
            Proved(NOW + 20 * SECOND),
            gate,
            arrived(1, 2),
            Proved(NOW + 22 * SECOND),
        ]
    ]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: BTC in on.writer.spans)
        on.clock.instant = NOW + 25 * SECOND
        await eventually(lambda: on.writer.last_claim == NOW + 19 * SECOND)
        gate.set()
        await eventually(lambda: bool(on.kinds(TradesRecord)))
        assert on.writer.spans[BTC].settling == SECOND


async def test_what_was_skipped_between_two_connections_is_asked_for_as_far_as_it_was_claimed(
    running_writer: Any, scripted: Any, store: Any
) -> None:
    source = scripted(profile_for("binance"))
    gate, end = asyncio.Event(), SourceError("gone", cause="socket_closed")
    source.scripts = [
        [Subscribed(NOW), arrived(1, 2), Proved(NOW + 20 * SECOND), gate, end],
        [Subscribed(NOW + 30 * SECOND), arrived(32)],
    ]
    async with session(running_writer, source, store) as on:
        await eventually(lambda: BTC in on.writer.spans)
        on.clock.instant = NOW + 25 * SECOND
        await eventually(lambda: on.writer.last_claim == NOW + 19 * SECOND)
        gate.set()
        await eventually(lambda: bool(on.holes))
        assert on.holes == [Span(NOW + 2 * SECOND, NOW + 19 * SECOND)]
        assert [record.cause for record in on.kinds(SpanClosed)] == ["socket_closed"]
