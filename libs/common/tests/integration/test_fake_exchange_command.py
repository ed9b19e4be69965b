"""The fake exchange as a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from vegamite_common.runtime.clock import SimulatedClock
from vegamite_common.testing.fake_exchange import GeneratedFeed

MODULE = "vegamite_common.testing.fake_exchange"


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        MODULE,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def first_line(started: asyncio.subprocess.Process) -> Any:
    assert started.stdout is not None
    return json.loads(await asyncio.wait_for(started.stdout.readline(), 30))


async def test_one_line_tells_all_that_a_client_needs_and_a_signal_ends_it() -> None:
    arguments = (
        "--speed",
        "60",
        "--seed",
        "5",
        "--symbols",
        "BTC/USDT,SOL/EUR",
        "--origin",
        "2024-05-01T00:00:00Z",
    )
    async with process(*arguments) as started, aiohttp.ClientSession() as session:
        told = await first_line(started)
        assert told["symbols"] == ["BTC/USDT", "SOL/EUR"]
        clock = SimulatedClock(**told["clock"])
        assert clock.speed == 60
        assert told["ccxt"]["urls"]["api"]["ws"]["spot"].startswith("ws://127.0.0.1:")

        before = clock.now()
        async with session.get(told["url"] + "/api/v3/time") as response:
            server_time = (await response.json())["serverTime"]
        assert before // 1000 <= server_time <= clock.now() // 1000

        start = 1_714_521_600_000 - 3_600_000
        query = {"symbol": "BTCUSDT", "startTime": str(start), "limit": "1000"}
        async with session.get(told["url"] + "/api/v3/aggTrades", params=query) as response:
            rows = await response.json()
        ours = GeneratedFeed("BTC/USDT", seed=5).from_time(start, until=2**60, limit=1000)
        assert [(row["a"], row["p"]) for row in rows] == [(t.trade_id, t.price) for t in ours]

        async with session.get(told["control_url"]) as response:
            assert (await response.json())["counters"]["rest_aggTrades_200"] == 1

        started.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(started.wait(), 20) == 0


async def test_a_recording_starts_an_hour_before_its_day_ends(tmp_path: Path) -> None:
    row = {"a": 1, "p": "1", "q": "1", "f": 1, "l": 1, "T": 1_570_800_000_000, "m": True, "M": True}
    recording = tmp_path / "day.ndjson"
    recording.write_text(json.dumps(row) + "\n")
    async with process("--file", str(recording), "--symbol", "XRP/ETH", "--speed", "60") as started:
        told = await first_line(started)
    assert told["clock"]["origin"] == 1_570_834_800_000_000
    assert told["symbols"] == ["XRP/ETH"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--file", "/no/such/file"), "/no/such/file"),
        (("--symbols", "BTCUSDT"), "not a spot symbol"),
        (("--speed", "0"), "--speed must be above 0"),
        (("--origin", "soon"), "not a time"),
    ],
)
async def test_a_wrong_argument_is_told_in_a_sentence(
    arguments: tuple[str, ...], said: str
) -> None:
    async with process(*arguments) as started:
        _, errors = await asyncio.wait_for(started.communicate(), 30)
        assert started.returncode != 0
        assert said in errors.decode()
        assert "Traceback" not in errors.decode()
