"""The demo market through a whole collector: live, its history, and what is claimed of both."""

from collections.abc import Callable
from typing import Any

from vegamite_collector.core.demo import DEMO_MARKET, trades_between
from vegamite_common.domain.time import HOUR, SECOND
from vegamite_common.domain.trade import Origin
from vegamite_common.messages.trades import JobEnded, JobStarted, TradesRecord
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.testing.eventually import eventually

SETTINGS = {
    "collector": {"demo": {"enabled": True, "seed": 5}, "repair_scan_seconds": 0.2, "gap_age_ms": 0}
}


async def test_a_newly_tracked_demo_market_is_complete_from_its_history_to_now(
    rig: Callable[..., Any],
) -> None:
    began = SystemClock().now()
    async with rig(SETTINGS) as running:
        await running.track(DEMO_MARKET, history_from=began - 3 * HOUR)
        ledger = running.ledger

        def complete() -> None:
            spans = list(ledger.coverage(DEMO_MARKET))
            assert len(spans) == 1
            assert spans[0].from_time < began - 2 * HOUR
            assert spans[0].to_time > began + 5 * SECOND

        await eventually(complete, timeout_s=60)
        [span] = ledger.coverage(DEMO_MARKET)
        expected = {
            trade.trade_id: trade for trade in trades_between(5, span.from_time, span.to_time)
        }
        assert len(expected) > 5_000
        have = ledger.of(DEMO_MARKET)
        assert {key: have.get(key) for key in expected} == expected
        assert ledger.late == []
        assert ledger.conflicts == []
        assert {record.origin for record in ledger.kinds(TradesRecord)} == {Origin.SIMULATED}
        jobs = {record.job for record in ledger.kinds(TradesRecord) if record.covered is not None}
        assert jobs == {record.job for record in ledger.kinds(JobStarted)}
        assert jobs == {record.job for record in ledger.kinds(JobEnded)}
        assert await running.state(DEMO_MARKET) == "live"
        await running.finish()


async def test_a_switched_off_demo_is_unsupported(rig: Callable[..., Any]) -> None:
    async with rig({}) as running:
        await running.track(DEMO_MARKET)

        async def unsupported() -> None:
            assert await running.state(DEMO_MARKET) == "unsupported"

        await eventually(unsupported)
        assert running.ledger.of(DEMO_MARKET) == {}
