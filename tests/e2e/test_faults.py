"""A seeded row of faults under load: afterwards, and at every moment in between, what is stored is what the exchange had.

`VEGAMITE_TEST_SEED` chooses other faults and other trades; a failure names its seed.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from vegamite_common.domain.time import MINUTE, SECOND, Micros, format_time, parse_time
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.fake_exchange import AggregateTrade, GeneratedFeed
from vegamite_common.testing.reference_fold import (
    TIMEFRAME_NAMES,
    RawTrade,
    differences,
    fold,
    interval,
    raw_trade,
)

SEED = int(os.environ.get("VEGAMITE_TEST_SEED", "20191011"))
SYMBOLS = ("BTC/USDT", "ETH/USDT")
MARKETS = tuple(f"binance:{symbol}" for symbol in SYMBOLS)
RATE = 3.0
SPEED = 20.0
ORIGIN = "2019-10-11T22:50:00Z"
HISTORY_FROM = parse_time(ORIGIN) - 10 * MINUTE
ROUNDS = 4
LONG_AGO = "2019-09-01T00:00:00Z"

pytestmark = pytest.mark.timeout(420)

Fault = Callable[[], Awaitable[None]]


class Truth:
    """What the exchange has: the generated trades, asked of the generator itself."""

    def __init__(self) -> None:
        self._feeds = {
            f"binance:{symbol}": GeneratedFeed(symbol, seed=SEED, rate=RATE) for symbol in SYMBOLS
        }

    def rows(self, market: str, start: Micros, end: Micros) -> list[AggregateTrade]:
        """Return the trades of [start, end)."""
        return self._feeds[market].from_time(
            start // 1000, until=(end - 1) // 1000, limit=1_000_000
        )

    def trades(self, market: str, start: Micros, end: Micros) -> list[RawTrade]:
        """Return the trades of [start, end), for the plain fold."""
        return [raw_trade(msgspec.to_builtins(row)) for row in self.rows(market, start, end)]


class Faults:
    """Everything that can go wrong, each as a call that returns once it is over."""

    def __init__(self, fragile: Any, truth: Truth, rng: random.Random, folder: Path) -> None:
        self._fragile = fragile
        self._system = fragile.system
        self._client = fragile.client
        self._truth = truth
        self._rng = rng
        self._folder = folder
        self.done: list[str] = []

    def rounds(self) -> list[tuple[str, str]]:
        """Return which faults come together, in order: of a process, and of the exchange or of a user."""
        others = [name for name in dir(self) if name.startswith("disturb_")]
        ours = [name for name in dir(self) if name.startswith("break_") and name != "break_api"]
        ours = ["break_api", *self._rng.sample(ours, ROUNDS - 1)]
        self._rng.shuffle(ours)
        return list(zip(ours, self._rng.sample(others, ROUNDS), strict=True))

    async def run(self) -> None:
        """Let all rounds happen."""
        for names in self.rounds():
            self.done += names
            await asyncio.gather(*(getattr(self, name)() for name in names))
            await self._pass_time(0.5, 2.0)

    async def _pass_time(self, least: float, most: float) -> None:
        """Wait on the simulated clock for some real seconds' worth of trades."""
        until = self._system.now() + int(self._rng.uniform(least, most) * SPEED * SECOND)
        await eventually(lambda: self._system.now() >= until, timeout_s=60)

    def _one_of(self, name: str) -> Any:
        return self._rng.choice([getattr(self._system, name), self._system.spares[name]])

    async def _kill(self, service: Any) -> None:
        service.kill()
        await self._pass_time(0.0, 2.0)
        service.start()

    async def _stop(self, service: Any) -> None:
        service.process.send_signal(signal.SIGSTOP)
        try:
            await self._pass_time(1.0, 5.0)
        finally:
            service.process.send_signal(signal.SIGCONT)

    async def break_collector(self) -> None:
        """One of two dies; its markets go to the other."""
        await self._kill(self._one_of("collector"))

    async def break_aggregator(self) -> None:
        """One of two dies in the middle of its transactions."""
        await self._kill(self._one_of("aggregator"))

    async def break_both_aggregators(self) -> None:
        """Nobody takes the log for a while."""
        services = (self._system.aggregator, self._system.spares["aggregator"])
        await asyncio.gather(*(self._kill(service) for service in services))

    async def break_collector_for_a_while(self) -> None:
        """A stopped collector that comes back reads old frames and old answers to its pings."""
        await self._stop(self._one_of("collector"))

    async def break_aggregator_for_a_while(self) -> None:
        """A stopped aggregator holds its locks, and comes back to a fence that may be lost."""
        await self._stop(self._one_of("aggregator"))

    async def break_api(self) -> None:
        """Clients have to come again, and to go on where they were."""
        await self._kill(self._system.api)
        await asyncio.to_thread(self._system.find_api)

    async def break_kafka(self) -> None:
        """The broker dies and comes back with its log."""
        await asyncio.to_thread(self._fragile.kafka.kill)
        await self._pass_time(0.0, 2.0)
        await asyncio.to_thread(self._fragile.kafka.start)

    async def break_postgres(self) -> None:
        """The database dies and recovers."""
        await asyncio.to_thread(self._fragile.postgres.kill)
        await self._pass_time(0.0, 2.0)
        await asyncio.to_thread(self._fragile.postgres.start)

    async def _exchange(self, **change: Any) -> None:
        async with self._client.session.post(self._system.control_url, json=change) as answer:
            assert answer.status == 200, await answer.text()

    async def disturb_sockets(self) -> None:
        """Every connection is cut."""
        await self._exchange(drop=self._rng.choice(["abort", "close"]))

    async def disturb_with_repeats(self) -> None:
        """Trades come twice, and again after each new subscription."""
        await self._exchange(faults={"duplicate": True, "repeat_last": 100}, drop="abort")
        await self._pass_time(0.5, 2.0)
        await self._exchange(faults={"duplicate": False, "repeat_last": 0})

    async def disturb_order(self) -> None:
        """Trades come shuffled."""
        await self._exchange(faults={"reorder": 10})
        await self._pass_time(0.5, 2.0)
        await self._exchange(faults={"reorder": 0})

    async def disturb_by_stalling(self) -> None:
        """Nothing comes for a while, and then all of it."""
        await self._exchange(faults={"stalled": True})
        await self._pass_time(0.5, 4.0)
        await self._exchange(faults={"stalled": False})

    async def disturb_with_rubbish(self) -> None:
        """Frames that are no trades."""
        await self._exchange(rubbish=True)

    async def disturb_history(self) -> None:
        """A hole, and history that refuses to tell of it at first."""
        status = self._rng.choice([418, 429, 500, 503])
        failure = {"status": status, "count": self._rng.randint(1, 5), "retry_after": 1}
        await self._exchange(faults={"rest_failure": failure}, drop="abort")

    async def disturb_by_refusing(self) -> None:
        """The exchange is away."""
        await self._exchange(accept=False, drop="abort")
        await self._pass_time(0.5, 3.0)
        await self._exchange(accept=True)

    async def disturb_tracking(self) -> None:
        """A market is no longer wanted, and wanted again."""
        market = self._rng.choice(MARKETS)
        headers = {"X-API-Key": self._system.key}

        async def forget() -> None:
            address = f"{self._system.base}/v1/tracked-markets"
            async with self._client.session.delete(
                address, params={"market": market}, headers=headers
            ) as answer:
                assert answer.status in (204, 404), await answer.text()

        await eventually(lambda: patiently(forget()), timeout_s=60)
        await self._pass_time(0.2, 2.0)
        await eventually(
            lambda: patiently(self._client.track(market, format_time(HISTORY_FROM))), timeout_s=60
        )

    async def disturb_by_importing(self) -> None:
        """Two imports at once, over each other and over what was collected."""
        settled = self._system.now() - int(3 * SPEED * SECOND)
        market = self._rng.choice(MARKETS)
        start = HISTORY_FROM + 3 * MINUTE
        middle = start + (settled - start) // 2 // SECOND * SECOND
        end = settled // SECOND * SECOND
        await asyncio.gather(
            self._import(market, start, middle + MINUTE), self._import(market, middle, end)
        )

    async def _import(self, market: str, start: Micros, end: Micros) -> None:
        file = self._folder / f"import-{start}.ndjson"
        lines = [msgspec.json.encode(row) for row in self._truth.rows(market, start, end)]
        file.write_bytes(b"\n".join(lines) + b"\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vegamite_standalone", "import", "--market", market,
            "--format", "binance-aggtrades", "--config", str(self._system.config),
            "--from", format_time(start), "--to", format_time(end), str(file),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        # One that gives up, since the log or the database went away, has to do no harm either.
        await process.wait()


async def patiently(call: Awaitable[Any]) -> Any:
    """Await a call to the API; that it is away is for `eventually` to wait out."""
    try:
        return await call
    except aiohttp.ClientError as error:
        raise AssertionError(f"the API is away: {error}") from error


class Follower:
    """A WebSocket client that comes back and resumes: it keeps the newest state of each candle, and all trades."""

    timeframes = ("1s", "1m")

    def __init__(self, client: Any) -> None:
        self._client = client
        self._places: dict[tuple[str, str, str | None], str] = {}
        self.candles: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.trades: dict[str, dict[int, None]] = {market: {} for market in MARKETS}
        self.revised: list[dict[str, Any]] = []
        self.first: dict[tuple[str, str], str] = {}
        self.connections = 0
        self.kinds: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled; an API that is away is asked again."""
        while True:
            await eventually(lambda: patiently(self._connect()), timeout_s=120, interval_s=0.2)

    async def _connect(self) -> bool:
        async with self._client.session.ws_connect(f"{self._client.system.base}/v1/ws") as socket:
            self.connections += 1
            for request in self._requests():
                await socket.send_json(request)
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                if not self._take(json.loads(message.data)):
                    break
        return False

    def _requests(self) -> list[dict[str, Any]]:
        streams = [("candles", timeframe) for timeframe in self.timeframes] + [("trades", None)]
        requests: list[dict[str, Any]] = []
        for market in MARKETS:
            for channel, timeframe in streams:
                params: dict[str, Any] = {"channel": channel, "markets": [market]}
                if timeframe is not None:
                    params["timeframe"] = timeframe
                place = self._places.get((channel, market, timeframe))
                params |= {"snapshot": 50} if place is None else {"resume": {market: place}}
                requests.append({"method": "subscribe", "req_id": len(requests), "params": params})
        return requests

    def _take(self, message: dict[str, Any]) -> bool:
        """Keep what a message says; False where the client has to come again."""
        if message.get("success") is False:
            assert message["error"]["code"] == "UNAVAILABLE", message
            return False
        self.kinds.add(f"{message.get('channel')}/{message.get('type')}")
        for result in message.get("results", ()):
            key = (result["channel"], result["market"], result.get("timeframe"))
            self._places.setdefault(key, result["seq"])
        match message.get("channel"):
            case "candles":
                self._take_candles(message)
            case "trades":
                held = self.trades[message["market"]]
                held.update(dict.fromkeys(int(trade["trade_id"]) for trade in message["data"]))
                self._places[("trades", message["market"], None)] = message["seq"]
            case "status":
                if message["type"] == "revised":
                    self.revised.append(message)
        return True

    def _take_candles(self, message: dict[str, Any]) -> None:
        market, timeframe = message["market"], message["timeframe"]
        self._places[("candles", market, timeframe)] = message["seq"]
        for candle in message["data"]:
            self.first.setdefault((market, timeframe), candle["open_time"])
            self.keep(candle)

    def keep(self, candle: dict[str, Any]) -> None:
        """Keep a candle's state where it is newer than the one held."""
        key = (candle["market"], candle["timeframe"], candle["open_time"])
        held = self.candles.get(key)
        if held is None or rank(candle) > rank(held):
            self.candles[key] = candle

    async def read_revised(self) -> None:
        """Read again what messages said to read again."""
        while self.revised:
            told = self.revised.pop()
            for candle in await self._client.candles(
                told["timeframe"], told["from_time"], told["to_time"], market=told["market"]
            ):
                self.keep(candle)


def rank(candle: dict[str, Any]) -> tuple[int, int, bool, int]:
    """The order of a candle's states: (epoch, as_of, final, revision)."""
    epoch, offset = candle["as_of"].split("-")
    return (int(epoch), int(offset), candle["final"], candle["revision"])


class Checks:
    """What has to be so: at every moment, and at the end."""

    def __init__(self, fragile: Any, truth: Truth) -> None:
        self._system = fragile.system
        self._client = fragile.client
        self._truth = truth
        self.polls = 0

    async def watch(self) -> None:
        """Look again and again, until cancelled, for a candle that claims too much."""
        while True:
            await self._next_second()
            await eventually(lambda: patiently(self._look()), timeout_s=120, interval_s=0.5)

    async def _next_second(self) -> None:
        """Leave the API some time for others."""
        due = self._system.now() + SPEED * SECOND
        await eventually(lambda: self._system.now() >= due, timeout_s=60, interval_s=0.1)

    async def _look(self) -> None:
        try:
            for market in MARKETS:
                for timeframe in ("1s", "1m", "5m"):
                    await self._nothing_claims_too_much(market, timeframe)
        except AssertionError as error:
            # A database that is away is a refusal; a lie is not to be waited out.
            if ": 503 " not in str(error):
                raise RuntimeError(str(error)) from error
            raise
        self.polls += 1

    async def _nothing_claims_too_much(self, market: str, timeframe: str) -> None:
        candles = await self._client.candles(
            timeframe, LONG_AGO, format_time(self._system.now()), market=market
        )
        now = self._system.now()
        early = [c for c in candles if c["final"] and parse_time(c["close_time"]) > now]
        assert not early, f"final before its end: {early[:2]}"
        expected = fold(self._truth.trades(market, HISTORY_FROM, now), timeframe)
        complete = [candle for candle in candles if candle["complete"]]
        wanted = {c["open_time"]: expected.get(c["open_time"], {}) for c in complete}
        wrong = differences(wanted, complete)
        assert not wrong, f"{market} {timeframe}: complete, but {wrong[:3]}"

    async def store_equals_truth(self, end: Micros) -> None:
        """Trades and candles up to `end` are what the exchange had; all that is past is final and complete."""
        for market in MARKETS:
            expected = self._truth.trades(market, HISTORY_FROM, end)
            stored = await self._client.fetch_all(
                "/v1/trades", market=market, start=LONG_AGO, end=format_time(end), limit=5000
            )
            assert [int(trade["trade_id"]) for trade in stored] == [
                trade.trade_id for trade in expected
            ], market
            gaps = (await self._client.get("/v1/gaps", market=market))["data"]
            unfilled = [gap for gap in gaps if gap["state"] != "filled"]
            assert not [gap for gap in unfilled if parse_time(gap["from_time"]) < end]
            for timeframe in TIMEFRAME_NAMES:
                await self._candles_equal_truth(market, timeframe, expected, end)

    async def _candles_equal_truth(
        self, market: str, timeframe: str, trades: list[RawTrade], end: Micros
    ) -> None:
        past = [
            candle
            for candle in await self._client.candles(
                timeframe, LONG_AGO, format_time(end), market=market
            )
            if parse_time(candle["close_time"]) <= end
        ]
        expected = {
            opened: values
            for opened, values in fold(trades, timeframe).items()
            if interval(timeframe, parse_time(opened) // 1000)[1].timestamp() * SECOND <= end
        }
        wrong = differences(expected, past)
        assert not wrong, f"{market} {timeframe}: {wrong[:3]}"
        doubtful = [
            candle["open_time"]
            for candle in past
            if not candle["final"]
            or not (candle["complete"] or parse_time(candle["open_time"]) < HISTORY_FROM)
        ]
        assert not doubtful, f"{market} {timeframe}: not final or not complete: {doubtful[:3]}"

    async def follower_equals_store(self, follower: Follower, end: Micros) -> None:
        """From its snapshot on, the client has what is stored up to `end`."""
        await follower.read_revised()
        for market in MARKETS:
            for timeframe in follower.timeframes:
                first = follower.first[(market, timeframe)]
                stored = await self._client.candles(
                    timeframe, first, format_time(end), market=market
                )
                held = [
                    follower.candles[key]
                    for key in sorted(follower.candles)
                    if key[:2] == (market, timeframe) and key[2] >= first
                ]
                held = [c for c in held if parse_time(c["open_time"]) < end]
                assert held == stored, f"{market} {timeframe}"
            seen = follower.trades[market]
            first_id = next(iter(seen))
            missing = [
                trade.trade_id
                for trade in self._truth.trades(market, HISTORY_FROM, end)
                if trade.trade_id >= first_id and trade.trade_id not in seen
            ]
            assert not missing, f"{market}: trades not seen: {missing[:5]}"


@asynccontextmanager
async def meanwhile(*loops: Awaitable[None]) -> AsyncIterator[None]:
    """Run the loops beside the block; what one of them raises comes first, whatever the block does."""
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def test_after_a_row_of_faults_everything_equals_what_the_exchange_had(
    fragile: Any, tmp_path: Path
) -> None:
    system, client, truth = fragile.system, fragile.client, Truth()
    generated = ["--symbols", ",".join(SYMBOLS), "--seed", str(SEED), "--rate", str(RATE)]
    faults = Faults(fragile, truth, random.Random(SEED), tmp_path)
    checks, follower = Checks(fragile, truth), Follower(client)
    try:
        await asyncio.to_thread(system.start, generated=generated, origin=ORIGIN, speed=SPEED)
        for market in MARKETS:
            await client.track(market, format_time(HISTORY_FROM))
        async with meanwhile(checks.watch(), follower.run()):
            await faults.run()
            end = system.now() // MINUTE * MINUTE + MINUTE
            for market in MARKETS:
                await client.wait_until_covered(
                    format_time(HISTORY_FROM), format_time(end), timeout_s=180, market=market
                )
            await eventually(lambda: checks.store_equals_truth(end), timeout_s=60, interval_s=0.5)
            await eventually(
                lambda: checks.follower_equals_store(follower, end), timeout_s=60, interval_s=0.5
            )
        assert checks.polls > 0
        assert follower.connections > 1, "the API was killed, and its client came again"
        assert {"candles/final", "trades/update"} <= follower.kinds
    except BaseException as error:
        error.add_note(f"VEGAMITE_TEST_SEED={SEED}; faults so far: {faults.done}")
        raise
