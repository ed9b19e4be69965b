"""A seeded row of faults, of the exchange and of the log, under load: nothing is claimed that isn't there, and all is there at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.port import TRADES, Ack, BusError, Producer, Record
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.messages.trades import SpanClosed
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import FakeExchange, GeneratedFeed, RestFailure

SYMBOLS = ("BTC/USDT", "ETH/USDT")
FAULT_SECONDS = 15


class FlakyProducer:
    """Fails now and then, before or after the log has taken the batch: the writer can't know which."""

    def __init__(self, inner: Producer, draw: random.Random) -> None:
        self._inner = inner
        self._draw = draw
        self.share = 0.0
        self.failures = 0

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        fails = topic == TRADES and self._draw.random() < self.share
        if not fails:
            return await self._inner.publish(topic, partition, records)
        self.failures += 1
        if self._draw.random() < 0.5:
            await self._inner.publish(topic, partition, records)
        raise BusError("the outcome is unknown")


class FlakyBus(MemoryBus):
    """The bus inside the process, with a producer that fails."""

    def __init__(self, draw: random.Random, **options: Any) -> None:
        super().__init__(**options)
        self.flaky = FlakyProducer(super().producer(), draw)

    def producer(self) -> Producer:  # type: ignore[override]  # as the port has it
        return self.flaky


async def disturb(
    exchange: FakeExchange, bus: FlakyBus, draw: random.Random, clock: SystemClock
) -> list[str]:
    """Turn switches for a while; returns what was done, to be shown with a failure."""
    done: list[str] = []
    end = clock.now() + FAULT_SECONDS * SECOND
    while clock.now() < end:
        fault = draw.choice(
            [
                "drop",
                "close",
                "silent",
                "stalled",
                "duplicate",
                "reorder",
                "rubbish",
                "rest",
                "refuse",
                "log",
            ]
        )
        done.append(fault)
        # A socket that was silent for less than it takes to notice has lost trades behind answered pings: nobody can
        # know that where ids don't tell, so it is no part of this.
        length = 10.0 if fault == "silent" else draw.uniform(0.2, 3.0)
        match fault:
            case "drop" | "close":
                await exchange.drop_sockets(politely=fault == "close")
            case "silent" | "stalled" | "duplicate":
                exchange.faults.change({fault: True})
            case "reorder":
                exchange.faults.reorder = draw.randint(2, 8)
            case "rubbish":
                exchange.send_frames()
            case "rest":
                failures = [RestFailure(429, 1, 1), RestFailure(500, 3), RestFailure(503, 2)]
                exchange.faults.rest_failure = draw.choice(failures)
            case "refuse":
                await exchange.refuse_connections()
                await exchange.drop_sockets()
            case "log":
                bus.flaky.share = 0.2
        await clock.sleep(length)
        exchange.faults.change(
            {"silent": False, "stalled": False, "duplicate": False, "reorder": 0}
        )
        await exchange.accept_connections()
        bus.flaky.share = 0.0
    exchange.faults.rest_failure = None
    return done


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_no_claim_is_false_and_no_trade_is_missing_in_the_end(
    rig: Callable[..., Any], seed: int
) -> None:
    draw = random.Random(seed)
    clock = SystemClock()
    bus = FlakyBus(draw, clock=clock, partitions=2)
    feeds = {
        Market("binance", symbol): GeneratedFeed(symbol, seed=seed, rate=20) for symbol in SYMBOLS
    }
    async with FakeExchange(feeds.values(), message_limit=None) as exchange:
        config = {
            "collector": {
                "repair_scan_seconds": 0.3,
                "gap_age_ms": 500,
                "heartbeat_ms": 200,
                "keyframe_seconds": 2,
            },
            "exchanges": {"binance": {"urls": exchange.url, "rate_limit": 50}},
        }
        async with rig(config, bus=bus, partitions=2) as running:
            began = clock.now() + 2 * SECOND
            for market in feeds:
                await running.track(market, history_from=began - 60 * SECOND)
            done = await disturb(exchange, bus, draw, clock)
            end = clock.now()
            ledger = running.ledger
            await eventually(
                lambda: all(
                    ledger.coverage(m).covers(began - 60 * SECOND, end + SECOND) for m in feeds
                ),
                timeout_s=90,
                message=f"everything is covered after {done}",
            )
            assert ledger.late == [], f"a trade came for a claimed time; {done}"
            assert ledger.conflicts == []
            for market, feed in feeds.items():
                told = feed.from_time(
                    (began - 60 * SECOND) // 1000 + 1, until=end // 1000, limit=1_000_000
                )
                missing = {str(t.trade_id) for t in told} - set(ledger.of(market))
                assert missing == set(), f"{market.key} after {done}"
            assert ledger.kinds(SpanClosed)


@pytest.mark.timeout(120)
async def test_a_log_that_takes_nothing_is_a_reason_not_to_be_ready_until_it_does(
    rig: Callable[..., Any],
) -> None:
    bus = FlakyBus(random.Random(1), clock=SystemClock(), partitions=2)
    async with rig({"collector": {"heartbeat_ms": 200}}, bus=bus, partitions=2) as running:
        await eventually(lambda: running.health.ready().ok)
        bus.flaky.share = 1.0

        def unready() -> None:
            state = running.health.ready()
            assert not state.ok
            assert "the log doesn't take records (partitions 0, 1): the outcome is" in state.reason

        await eventually(unready, timeout_s=40)
        bus.flaky.share = 0.0
        await eventually(lambda: running.health.ready().ok, timeout_s=40)
