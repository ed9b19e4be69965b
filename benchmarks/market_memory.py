"""How much memory the aggregator needs for many quiet markets, over a simulated day, and how it starts again.

Usage: python benchmarks/market_memory.py [--markets N …] [--trades N] [--beat-seconds N] [--resident N] [--runs N]

Each run is a process of its own, as `vegamite-aggregator` is one, over a real PostgreSQL: it owns twelve partitions and
takes the log of a day through read, insert, plan, load, decide, write and evict, as the partitions' owners do, while a
simulated clock goes as fast as the work allows. So many trades (`--trades`, the same for each number of markets) fall at
random on markets and times; each market is covered by heartbeats, one in `--beat-seconds` of the day. All 16 timeframes are
kept and become final. Then the partitions are loaded anew, as after a restart, and one of them is looked at closely.

Memory is that of the process (resident set) and that of the partitions' states alone (all objects reached from them).
The goal: 5,000 markets need at most three times as much as 10, and no more at the end of the day than in its middle.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec

import vegamite_aggregator.bootstrap  # noqa: F401 - what the service's process has in memory anyway
from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.config import AggregatorSection
from vegamite_aggregator.core.decision import decide
from vegamite_aggregator.core.facts import without_stored
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.plan import prepare
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.core.timing import Timing
from vegamite_aggregator.migrate import migrate_database
from vegamite_common.bus.partition import partition_for
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, SECOND, Micros, parse_time, to_datetime
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import Heartbeat, SpanOpened, TradesRecord, encode_trades
from vegamite_common.testing.services.postgres import PostgresServer

START = parse_time("2025-10-10T00:00:00Z")
PARTITIONS = 12
TIMING = Timing()
GOAL = 3.0
CHILD_URL = "MARKET_MEMORY_URL"
MEGABYTE = 1_000_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Figures:
    """One run: megabytes at each hour of the day, seconds, and what a start reads; `beat_…` are of a quiet second's work."""

    markets: int
    begin: float = 0.0
    hours: list[float] = field(default_factory=list)
    state: float = 0.0
    resident: int = 0
    evictions: int = 0
    loaded: int = 0
    seconds: float = 0.0
    beat_cpu: float = 0.0
    beat_seconds: float = 0.0
    candles: int = 0
    open_candles: int = 0
    start_seconds: float = 0.0
    start_rows: int = 0
    start_markets: int = 0


class Record(msgspec.Struct, frozen=True):
    """A record of the log."""

    offset: int
    append_time: Micros
    key: bytes | None
    value: bytes


class Owner:
    """One partition's owner, who does what the service's does with each batch."""

    def __init__(self, store: PostgresCandleStore, state: PartitionState) -> None:
        self.store = store
        self.state = state
        self.evictions = 0
        self.loaded = 0

    async def take(
        self, records: Sequence[tuple[bytes | None, bytes]], now: Micros, limit: int
    ) -> None:
        """Take records appended now, and all that became final by now."""
        state = self.state
        batch = [
            Record(state.next_offset + at, now, key, value)
            for at, (key, value) in enumerate(records)
        ]
        intake = read_batch(state, batch, partition_of=_partition_of, timing=TIMING)
        times = [trade.event_time for taken in intake.trades for trade in taken.trades]
        await self.store.prepare(intake.markets, times)
        async with self.store.step(state) as step:
            if missing := [market for market in intake.markets if market not in state.markets]:
                state.markets.update(await step.markets(missing))
            inserted = await step.insert_trades(intake.trades)
            new = without_stored(intake.trades, inserted.stored)
            plan = prepare(state, intake, new, log_time=now, timing=TIMING)
            loaded = await step.load(plan.wants)
            state.admit(plan.wants, loaded)
            changes = decide(state, plan, loaded, now=now)
            if changes.changed:
                await step.write(changes)
        if changes.changed:
            state.apply(changes)
        self.loaded += loaded.count
        self.evictions += state.evict(limit)


def _partition_of(key: bytes) -> int:
    return partition_for(key, PARTITIONS)


class Day:
    """A seeded day: which market trades when, and the records of it by partition."""

    def __init__(self, markets: int, trades: int) -> None:
        rng = random.Random(7)
        self.markets = [Market("binance", f"M{number}/USDT") for number in range(markets)]
        self.at = {market: _partition_of(market.key.encode()) for market in self.markets}
        self.times = sorted(rng.randrange(DAY) for _ in range(trades))
        self._rng = rng
        self._number = 0

    def opened(self) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
        """Yield the first record of each market: its coverage begins."""
        for market in self.markets:
            opened = SpanOpened(
                exchange=market.exchange, symbol=market.symbol, writer="w", from_time=START
            )
            yield self.at[market], (market.key.encode(), encode_trades(opened))

    def before(self, end: Micros) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
        """Yield the records of those trades before `end` that were not had yet."""
        while self._number < len(self.times) and START + self.times[self._number] < end:
            event_time = START + self.times[self._number]
            market = self._rng.choice(self.markets)
            trade = Trade(
                trade_id=str(self._number),
                sequence=self._number,
                event_time=event_time,
                price=Decimal(self._rng.randint(10**6, 2 * 10**6)).scaleb(-2).normalize() + 0,
                amount=Decimal(self._rng.randint(1, 10**8)).scaleb(-6).normalize() + 0,
                taker_side="buy",
            )
            record = TradesRecord(
                exchange=market.exchange,
                symbol=market.symbol,
                received_time=event_time,
                origin=Origin.LIVE,
                trades=(trade,),
            )
            self._number += 1
            yield self.at[market], (market.key.encode(), encode_trades(record))


def resident_megabytes() -> float:
    """Return the process's resident set."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE / MEGABYTE


def megabytes_of(roots: Sequence[object]) -> float:
    """Return the size of all objects that can be reached from `roots`, without classes and modules."""
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, msgspec.Struct):  # some are hidden from the garbage collector
            waiting += [getattr(one, name) for name in one.__struct_fields__]
        else:
            waiting += gc.get_referents(one)
    return total / MEGABYTE


async def run_day(url: str, *, markets: int, trades: int, beat: int, resident: int) -> Figures:
    """Take a day of so many markets into the database, and start again."""
    figures = Figures(markets)
    pool = await asyncpg.create_pool(url, min_size=1, max_size=4)
    store = PostgresCandleStore(pool, owner="benchmark")
    await store.open_log(partitions=PARTITIONS, new_epoch=False)
    owners = [Owner(store, await store.load(at, begin_offset=0)) for at in range(PARTITIONS)]
    day = Day(markets, trades)
    limit = resident // PARTITIONS

    async def take(found: Iterator[tuple[int, tuple[bytes, bytes]]], now: Micros) -> None:
        records: list[list[tuple[bytes | None, bytes]]] = [[] for _ in owners]
        for at, record in found:
            records[at].append(record)
        beat_value = encode_trades(Heartbeat(writer="w", to_time=now - SECOND))
        for owner, batch in zip(owners, records, strict=True):
            await owner.take([*batch, (None, beat_value)], now, limit)

    await take(day.opened(), START + SECOND)
    for market in day.markets:
        await pool.execute(
            "INSERT INTO tracked_market (market_key, history_from)"
            " SELECT market_key, $3 FROM market WHERE exchange = $1 AND symbol = $2",
            market.exchange,
            market.symbol,
            to_datetime(START),
        )
    for owner in owners:
        await store.refresh(owner.state)
    figures.begin = resident_megabytes()
    began = time.perf_counter()
    for at in range(beat, DAY // SECOND + 1, beat):
        now = START + at * SECOND
        await take(day.before(now), now)
        if at % (HOUR // SECOND) < beat:
            await pool.execute("DELETE FROM outbox")
            figures.hours.append(resident_megabytes())
    figures.seconds = time.perf_counter() - began
    await _measure_beats(figures, take, START + DAY)
    states = [owner.state for owner in owners]
    figures.state = megabytes_of(states)
    figures.resident = sum(state.resident_candles for state in states)
    figures.evictions = sum(owner.evictions for owner in owners)
    figures.loaded = sum(owner.loaded for owner in owners)
    owners.clear()
    states.clear()
    await _measure_start(figures, url)
    await pool.close()
    return figures


async def _measure_beats(figures: Figures, take: Any, begin: Micros) -> None:
    """What a second costs in which nothing happens but heartbeats: the process's CPU time, and the time that it takes."""
    beats = 10
    await take(iter(()), begin + SECOND)
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(2, 2 + beats):
        await take(iter(()), begin + number * SECOND)
    figures.beat_cpu = (time.process_time() - cpu) / beats
    figures.beat_seconds = (time.perf_counter() - began) / beats


_READ = """
    SELECT (SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables)::bigint
        + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes)::bigint
"""


async def _measure_start(figures: Figures, url: str) -> None:
    """Load partition 0 as a new process does; count the rows and index entries that the server read for it."""
    pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
    await pool.execute("VACUUM ANALYZE")
    figures.candles = await pool.fetchval("SELECT count(*) FROM candle")
    figures.open_candles = await pool.fetchval("SELECT count(*) FROM candle WHERE NOT final")
    store = PostgresCandleStore(pool, owner="next")
    await store.open_log(partitions=PARTITIONS, new_epoch=False)
    before = await _rows_read(pool)
    began = time.perf_counter()
    state = await store.load(0, begin_offset=0)
    figures.start_seconds = time.perf_counter() - began
    figures.start_rows = await _rows_read(pool) - before
    figures.start_markets = len(state.markets)
    await pool.close()


async def _rows_read(pool: asyncpg.Pool[asyncpg.Record]) -> int:
    await pool.execute("SELECT pg_stat_force_next_flush()")
    await pool.execute("SELECT pg_stat_clear_snapshot()")
    return int(await pool.fetchval(_READ))


def measure(server: PostgresServer, markets: int, options: argparse.Namespace) -> Figures:
    """Return the figures of one run, in a process and a database of its own."""
    name = f"memory_{markets}_{time.time_ns()}"
    asyncio.run(_make_database(server.url, name))
    url = urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
    asyncio.run(migrate_database(url))
    child = subprocess.run(
        [sys.executable, __file__, "--child", "--markets", str(markets), *_passed(options)],
        env={**os.environ, CHILD_URL: url},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    asyncio.run(_make_database(server.url, name, verb="DROP"))
    return Figures(**json.loads(child.stdout.splitlines()[-1]))


def _passed(options: argparse.Namespace) -> list[str]:
    return [
        *("--trades", str(options.trades)),
        *("--beat-seconds", str(options.beat_seconds)),
        *("--resident", str(options.resident)),
    ]


async def _make_database(url: str, name: str, *, verb: str = "CREATE") -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'{verb} DATABASE "{name}"')
    await connection.close()


def show(figures: Figures) -> None:
    """Print one run."""
    middle, end = figures.hours[len(figures.hours) // 2 - 1], figures.hours[-1]
    print(
        f"{figures.markets:>6} markets: {figures.begin:.0f} MB at first, {middle:.0f} at noon, {end:.0f} at midnight,"
        f" most {max(figures.hours):.0f}; states {figures.state:.1f} MB with {figures.resident} candles;"
        f" {figures.evictions} evictions, {figures.loaded} candles loaded; the day took {figures.seconds:.0f} s"
    )
    print(
        f"        a quiet second: {figures.beat_cpu * 1000:.0f} ms of CPU, {figures.beat_seconds * 1000:.0f} ms in all;"
        f" start of a partition of {figures.start_markets} markets: {figures.start_seconds * 1000:.0f} ms,"
        f" {figures.start_rows} rows read ({figures.candles} candles stored, {figures.open_candles} open)"
    )


def main() -> None:
    """Run, and print each run, then ratios of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, nargs="+", default=[10, 5000])
    parser.add_argument("--trades", type=int, default=30_000)
    parser.add_argument("--beat-seconds", type=int, default=300)
    parser.add_argument("--resident", type=int, default=AggregatorSection().resident_candles)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        figures = asyncio.run(
            run_day(
                os.environ[CHILD_URL],
                markets=options.markets[0],
                trades=options.trades,
                beat=options.beat_seconds,
                resident=options.resident,
            )
        )
        print(json.dumps(asdict(figures)))
        return
    found: dict[int, list[Figures]] = {}
    with PostgresServer() as server:
        for _ in range(options.runs):
            for markets in options.markets:
                figures = measure(server, markets, options)
                show(figures)
                found.setdefault(markets, []).append(figures)
    least, most = min(found), max(found)
    ratio = statistics.median(max(one.hours) for one in found[most]) / statistics.median(
        max(one.hours) for one in found[least]
    )
    growth = statistics.median(
        one.hours[-1] / one.hours[len(one.hours) // 2 - 1] for one in found[most]
    )
    print(f"{most} markets need {ratio:.2f} times the memory of {least} (goal: {GOAL:.0f} at most)")
    print(f"midnight needs {growth:.2f} times the memory of noon")


if __name__ == "__main__":
    main()
