"""A collector at sixty times the speed of life: everything that is a duration scales, and nothing is claimed too early."""

from collections.abc import Callable
from typing import Any

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, MINUTE
from vegamite_common.messages.trades import TradesRecord
from vegamite_common.runtime.clock import SimulatedClock, wall_now
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import FakeExchange, GeneratedFeed

BTC = Market("binance", "BTC/USDT")
ORIGIN = 1_570_834_800_000_000


async def test_history_by_rest_and_the_rest_live_at_sixty_times_the_speed(
    rig: Callable[..., Any],
) -> None:
    clock = SimulatedClock(origin=ORIGIN, wall_origin=wall_now(), speed=60)
    feed = GeneratedFeed("BTC/USDT", seed=9, rate=0.5)
    settings: dict[str, Any] = {
        "collector": {"repair_scan_seconds": 0.2, "gap_age_ms": 100},
        "exchanges": {"binance": {"urls": "http://127.0.0.1:1"}},
    }
    async with FakeExchange([feed], clock=clock) as exchange:
        settings["exchanges"]["binance"]["urls"] = exchange.url
        async with rig(settings, clock=clock) as running:
            await running.track(BTC, history_from=ORIGIN - 6 * HOUR)
            ledger = running.ledger
            end = ORIGIN + 12 * MINUTE
            await eventually(
                lambda: ledger.coverage(BTC).covers(ORIGIN - 6 * HOUR, end), timeout_s=60
            )
            expected = feed.from_time(
                (ORIGIN - 6 * HOUR) // 1000, until=end // 1000 - 1, limit=1_000_000
            )
            assert len(expected) > 9_000
            assert {str(trade.trade_id) for trade in expected} <= set(ledger.of(BTC))
            assert ledger.late == []
            assert ledger.conflicts == []
            live = [r for r in ledger.kinds(TradesRecord) if r.job is None]
            assert live, "the last minutes came by the stream"
