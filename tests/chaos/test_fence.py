"""What the fence and three brokers are for: a stopped owner holds nobody up and changes nothing, and a lost broker nothing either."""

import asyncio
import hashlib
import os
import signal
import sys
import time
from typing import Any

import pytest

from tests.chaos.environment import Aggregator
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin
from vegamite_common.testing.eventually import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

TRADES = 8_000
_COPYING = """
    SELECT progress.tuples_processed FROM pg_stat_progress_copy progress JOIN pg_stat_activity USING (pid)
    WHERE application_name = 'vegamite-aggregator'
"""
_CONTENT = "SELECT * FROM candle ORDER BY market_key, timeframe, open_time"


async def _caught_up(fragile: Any) -> None:
    async def probe() -> bool:
        return (
            all(one.at_work for one in fragile.env.aggregators) and await fragile.audit.caught_up()
        )

    await eventually(probe, timeout_s=90)


async def _owner(fragile: Any, partition: int) -> str:
    owner: str = await fragile.env.database.fetchval(
        "SELECT owner FROM partition_fence WHERE partition = $1", partition
    )
    return owner


async def _digest(fragile: Any) -> str:
    """A hash of every stored trade and of every final candle: what a zombie must not touch."""
    trades = await fragile.env.database.fetch(
        "SELECT * FROM trade ORDER BY market_key, event_time, trade_id"
    )
    candles = await fragile.env.database.fetch(_CONTENT)
    content = [tuple(row) for row in trades]
    content += [
        tuple(
            value
            for name, value in row.items()
            if name not in ("updated_at", "final", "complete", "as_of")
        )
        for row in candles
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()


async def test_the_successor_of_an_owner_stopped_in_copy_takes_over_and_its_return_changes_nothing(
    fragile: Any,
) -> None:
    await _caught_up(fragile)
    await fragile.load.run(0.5)
    await _caught_up(fragile)
    partition, feed = next(
        (partition, feeds[0]) for partition, feeds in enumerate(fragile.load.feeds) if feeds
    )
    owner = await _owner(fragile, partition)
    stopped: Aggregator = next(
        one for one in fragile.env.aggregators if owner.split("/")[1] == str(one.pid)
    )
    order = stopped.control.order("stop", "copy", point="midway", countdown=1)
    start = feed.cursor - 1000 * SECOND
    trades = [feed.trade(start + number * SECOND // 20) for number in range(TRADES)]
    fragile.load.send(partition, feed, trades, origin=Origin.LIVE)

    await eventually(lambda: stopped.control.fired(order), timeout_s=60)
    began = time.monotonic()
    try:
        await eventually(
            lambda: fragile.env.database.fetch(_COPYING),
            timeout_s=20,
            message="the process's COPY is under way in the database",
        )
        await eventually(lambda: _taken_over(fragile, partition, owner), timeout_s=60)
        taken = time.monotonic() - began
        await fragile.load.drained()
        await eventually(fragile.audit.caught_up, timeout_s=60)
        caught_up = time.monotonic() - began
        await fragile.audit.compare("everything")
        before = await _digest(fragile)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    sys.stdout.write(
        f"stopped in the middle of COPY: the successor's first commit after {taken:.1f} s, all stored after {caught_up:.1f} s\n"
    )

    fetches = stopped.control.entered()["fetch"]
    await eventually(lambda: stopped.control.entered()["fetch"] > fetches + 5, timeout_s=60)
    assert await _digest(fragile) == before
    await fragile.load.run(0.5)
    await _caught_up(fragile)
    await fragile.audit.compare("everything")


async def _taken_over(fragile: Any, partition: int, owner: str) -> bool:
    return await _owner(fragile, partition) != owner


async def test_with_one_of_three_brokers_lost_the_work_goes_on(fragile: Any) -> None:
    await _caught_up(fragile)
    stored = fragile.audit.stored_trades
    await asyncio.to_thread(fragile.env.cluster.kill, 0)
    try:
        await fragile.load.run(1.5)
        await _caught_up(fragile)
        await fragile.audit.compare("everything")
    finally:
        await asyncio.to_thread(fragile.env.cluster.restart, 0)

    assert fragile.audit.stored_trades > stored
