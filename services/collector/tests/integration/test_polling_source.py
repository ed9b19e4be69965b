"""An exchange that is polled, through the real ccxt client: its pages become a stream's events."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

from vegamite_collector.adapters.ccxt_source import CcxtSource
from vegamite_collector.adapters.polling import poll_events
from vegamite_collector.core.profile import profile_for
from vegamite_collector.core.repair import Page, PageRequest
from vegamite_collector.ports import Lost, Proved, Subscribed, TradesArrived
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import ExchangeSection
from vegamite_common.testing.fake_exchange import FakeExchange, GeneratedFeed


class QuickClock(SystemClock):
    """Waits a fifth as long as it is asked to."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 5)


async def test_what_pages_prove_was_brought_and_too_large_a_step_is_said_to_be_lost() -> None:
    clock = QuickClock()
    feed = GeneratedFeed("BTC/USDT", seed=1, rate=30)
    profile = replace(profile_for("binance"), settling_seconds=0.2)
    async with FakeExchange([feed], clock=clock) as exchange:
        source = CcxtSource(
            "binance",
            profile=profile,
            section=ExchangeSection(urls=exchange.url),
            clock=clock,
            on_bad_frame=lambda *_: None,
            queue_limit=1_000,
        )
        limit = 400

        async def latest() -> Page:
            return await source.fetch("BTC/USDT", PageRequest(limit=limit))

        events: list[Any] = []
        async with aclosing(poll_events(latest, profile=profile, clock=clock)) as polled:
            async for event in polled:
                events.append(event)
                if isinstance(event, Proved) and sum(isinstance(e, Proved) for e in events) == 5:
                    # From now on a page holds less than what happens between two questions.
                    limit = 2
                if isinstance(event, Lost):
                    break
        await source.close()
        assert isinstance(events[0], Subscribed)
        assert events[-1].cause == "polled_too_slowly"
        proofs = [event for event in events if isinstance(event, Proved)]
        assert len(proofs) >= 5
        have = {
            t.trade_id for event in events if isinstance(event, TradesArrived) for t in event.trades
        }
        told = feed.from_time(
            events[0].at // 1000 + 1, until=proofs[4].sent_time // 1000 - 1, limit=100_000
        )
        assert len(told) > 10
        assert {str(trade.trade_id) for trade in told} <= have
