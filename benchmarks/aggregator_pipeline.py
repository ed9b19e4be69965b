r"""How many trades a second go from Kafka into PostgreSQL, as rows and as candles of 16 timeframes, exactly once.

Usage: python benchmarks/aggregator_pipeline.py [--trades N] [--runs N] [--load NAME …] [--processes N …] [--config KEY=VALUE …]

Real broker, real `vegamite-aggregator` process, real PostgreSQL with `fsync` on. A log as a collector wrote it (20 markets,
spans and heartbeats, records of one second) is there before the aggregator starts; it is timed from the moment that it
begins to read until the last offset is committed. Then the stored rows are counted, and the trades that each timeframe's
candles tell of. The baseline, after each run on the same server, is `psql` with `\copy` of a binary file of the same rows
into a table with the same columns, checks, key and time partitions.

Loads: `clean` (50 trades a market and second), `repeated` (the same, every tenth trade one that came before), `sparse` (one
trade a market and second: every trade makes a candle of its own second).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from pipeline_load import PARTITIONS, Load, Shape, cpu_seconds, create_topics, fill

from vegamite_aggregator.adapters.time_partition import TimePartitions
from vegamite_aggregator.migrate import migrate_database
from vegamite_common.domain.time import DAY
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.clock import wall_now
from vegamite_common.runtime.postgres_binaries import find_binaries
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.postgres import PostgresServer

SHAPES = {
    "clean": Shape("clean", markets=20, rate=50),
    "repeated": Shape("repeated", markets=20, rate=50, repeat=10),
    "sparse": Shape("sparse", markets=20, rate=1),
}
GOALS = {"clean": 0.60, "repeated": 0.35}
PAIR_GOAL = 1.15
POSTGRES = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
}
LIMIT_SECONDS = 600

CONFIG = """
[log]
format = "json"
level = "warning"
[kafka]
bootstrap_servers = "{bootstrap}"
[postgres]
url = "{url}"
[aggregator]
management_port = 0
group = "{group}"
{more}
"""

_LOADED = "SELECT count(*) FROM partition_fence"
_POSITION = "SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_fence"
_TABLE = "CREATE TABLE baseline (LIKE trade INCLUDING ALL) PARTITION BY RANGE (event_time)"
_PARTITIONS = """
    SELECT format('CREATE TABLE baseline_%s PARTITION OF baseline %s', row_number() OVER (), bound)
    FROM (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'trade'::regclass) parts
"""


@dataclass(frozen=True)
class Figures:
    """One run: trades delivered a second, rows inserted a second, processor seconds a million trades, trades a transaction."""

    trades: float
    rows: float
    aggregator: float
    postgres: float
    kafka: float
    step: float


@dataclass(frozen=True)
class Baseline:
    """The copy after a run: rows a second, and the server's processor seconds a million of them."""

    rows: float
    postgres: float


class Bench:
    """The servers of one load, and its log."""

    def __init__(
        self, postgres: PostgresServer, kafka: KafkaServer, load: Load, records: int, more: str
    ) -> None:
        self._postgres = postgres
        self._kafka = kafka
        self._load = load
        self._records = records
        self._more = more
        self._psql = find_binaries().bin_dir / "psql"

    async def run(self, processes: int) -> tuple[Figures, Baseline]:
        """Return one run's figures, and those of the baseline after it."""
        name = f"run_{uuid.uuid4().hex[:12]}"
        admin = await asyncpg.connect(self._postgres.url)
        await admin.execute(f'CREATE DATABASE "{name}"')
        url = urlunsplit(urlsplit(self._postgres.url)._replace(path=f"/{name}"))
        try:
            await migrate_database(url)
            connection = await asyncpg.connect(url)
            try:
                await self._make_partitions(url)
                figures = await self._aggregate(connection, url, processes)
                await self._check(connection)
                baseline = await self._copy(connection, url)
            finally:
                await connection.close()
        finally:
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            await admin.close()
        return figures, baseline

    async def _make_partitions(self, url: str) -> None:
        """Make the time partitions that a service which runs for days has long made ahead."""
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            days = [self._load.start, wall_now(), wall_now() + DAY, wall_now() + 2 * DAY]
            await TimePartitions(pool).prepare(days)

    async def _aggregate(
        self, connection: asyncpg.Connection[asyncpg.Record], url: str, processes: int
    ) -> Figures:
        await connection.execute("CHECKPOINT")
        with running_aggregator(
            self._kafka.bootstrap,
            url,
            group=f"benchmark-{uuid.uuid4().hex}",
            count=processes,
            more=self._more,
        ) as running:
            return await self._time(connection, running)

    async def _time(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        running: Sequence[subprocess.Popen[bytes]],
    ) -> Figures:
        pids = [process.pid for process in running]
        costs: tuple[float, float, float] | None = None
        began = 0.0
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            if costs is None:
                # All before the first look at the log: imports, connections, the group.
                costs = self._costs(pids)
                began = time.perf_counter()
                if not await connection.fetchval(_LOADED):
                    costs = None
            elif await connection.fetchval(_POSITION) >= self._records:
                break
            if any(process.poll() is not None for process in running):
                raise SystemExit("an aggregator ended by itself")
            if time.monotonic() > deadline:
                raise SystemExit(f"not done after {LIMIT_SECONDS} s")
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        delivered = self._load.delivered
        aggregator, postgres, kafka = (
            (after - before) / delivered * 1e6
            for after, before in zip(self._costs(pids), costs, strict=True)
        )
        steps = await connection.fetchval("SELECT sum(version)::bigint FROM partition_fence")
        return Figures(
            trades=delivered / seconds,
            rows=self._load.distinct / seconds,
            aggregator=aggregator,
            postgres=postgres,
            kafka=kafka,
            step=delivered / steps,
        )

    def _costs(self, pids: Sequence[int]) -> tuple[float, float, float]:
        return (
            sum(map(cpu_seconds, pids)),
            cpu_seconds(self._postgres.pid),
            cpu_seconds(self._kafka.pid),
        )

    async def _check(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """End the program unless each trade is stored once, and counted once in each timeframe."""
        stored = await connection.fetchval("SELECT count(*) FROM trade")
        if stored != self._load.distinct:
            raise SystemExit(f"{stored} trades are stored, {self._load.distinct} were written")
        counted = await connection.fetch(
            "SELECT timeframe, sum(trade_count)::bigint AS trades FROM candle GROUP BY timeframe"
        )
        if {row["timeframe"]: row["trades"] for row in counted} != {
            timeframe.value: stored for timeframe in Timeframe
        }:
            raise SystemExit(f"candles count {counted}, {stored} trades are stored")

    async def _copy(self, connection: asyncpg.Connection[asyncpg.Record], url: str) -> Baseline:
        with tempfile.TemporaryDirectory(prefix="vegamite-benchmark-") as folder:
            file = Path(folder) / "trade.bin"
            self._call_psql(url, f"\\copy (SELECT * FROM trade) TO '{file}' (FORMAT binary)")
            await connection.execute(_TABLE)
            for row in await connection.fetch(_PARTITIONS):
                await connection.execute(row[0])
            await connection.execute("CHECKPOINT")
            rows = self._load.distinct
            cost, began = cpu_seconds(self._postgres.pid), time.perf_counter()
            self._call_psql(url, f"\\copy baseline FROM '{file}' (FORMAT binary)")
            seconds = time.perf_counter() - began
            return Baseline(rows / seconds, (cpu_seconds(self._postgres.pid) - cost) / rows * 1e6)

    def _call_psql(self, url: str, command: str) -> None:
        done = subprocess.run(
            [self._psql, url, "-X", "-q", "-c", command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)


@contextmanager
def running_aggregator(
    bootstrap: str, url: str, *, group: str, count: int, more: str = ""
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the aggregator, ended in order with the block; `more` are lines of its section."""
    with tempfile.TemporaryDirectory(prefix="vegamite-benchmark-") as folder:
        config = Path(folder) / "vegamite.toml"
        config.write_text(CONFIG.format(bootstrap=bootstrap, url=url, group=group, more=more))
        running = [_start(config) for _ in range(count)]
        try:
            yield running
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(60)


def _start(config: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VEGAMITE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "vegamite_aggregator", "--config", str(config)],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median and, in brackets, the least and the greatest."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} [{least:,.{digits}f} … {most:,.{digits}f}]"


def report(name: str, processes: int, runs: Sequence[tuple[Figures, Baseline]]) -> None:
    """Print what the runs of one load gave."""
    figures = [run for run, _ in runs]
    ratios = [run.rows / baseline.rows for run, baseline in runs]
    goal = GOALS.get(name)
    verdict = ""
    if goal is not None and processes == 1:
        reached = statistics.median(ratios) >= goal
        verdict = f", goal {goal:.0%}: {'reached' if reached else 'MISSED'}"
    print(
        f"{name}, {processes} process{'es' * (processes > 1)}, {len(runs)} runs: median [least … most]"
    )
    print(f"  trades a second          {_spread([run.trades for run in figures])}")
    print(f"  rows a second            {_spread([run.rows for run in figures])}")
    print(f"  psql \\copy, rows a second {_spread([baseline.rows for _, baseline in runs])}")
    print(f"  trades a transaction     {_spread([run.step for run in figures])}")
    print(f"  ratio                    {_spread(ratios, 3)}{verdict}")
    print("  processor seconds a million trades:")
    for part in ("aggregator", "postgres", "kafka"):
        print(f"    {part:<22} {_spread([getattr(run, part) for run in figures], 2)}")
    print(
        f"    postgres, psql \\copy   {_spread([baseline.postgres for _, baseline in runs], 2)}",
        flush=True,
    )


async def measure(name: str, arguments: argparse.Namespace) -> None:
    """Run one load, for each number of processes in turn, and report."""
    trades = arguments.trades if name != "sparse" else max(1, arguments.trades // 10)
    load = Load(SHAPES[name], trades=trades, now=wall_now())
    counts: list[int] = arguments.processes
    results: dict[int, list[tuple[Figures, Baseline]]] = {count: [] for count in counts}
    with KafkaServer() as kafka, PostgresServer(settings=POSTGRES) as postgres:
        await create_topics(kafka.bootstrap, append_times="CreateTime")
        records = await fill(kafka.bootstrap, load)
        print(
            f"{name}: {load.delivered:,} trades in {records:,} records, {load.distinct:,} of them distinct, "
            f"{PARTITIONS} partitions",
            flush=True,
        )
        bench = Bench(postgres, kafka, load, records, "\n".join(arguments.config))
        for _ in range(arguments.runs):
            for count in counts:
                results[count].append(await bench.run(count))
    for count, runs in results.items():
        report(name, count, runs)
    if len(counts) > 1:
        costs = [statistics.median(run.aggregator for run, _ in results[count]) for count in counts]
        ratio = costs[-1] / costs[0]
        verdict = "reached" if ratio <= PAIR_GOAL else "MISSED"
        print(
            f"{name}: {counts[-1]} aggregators take {ratio:.2f}x the processor seconds of {counts[0]}, "
            f"goal {PAIR_GOAL}x: {verdict}"
        )


def main() -> None:
    """Measure the chosen loads and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trades", type=int, default=1_000_000, help="a load (a tenth for sparse)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--load", nargs="+", choices=tuple(SHAPES), default=list(SHAPES))
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="1 2: both, in turn")
    parser.add_argument("--config", nargs="+", default=[], help="lines of [aggregator]")
    arguments = parser.parse_args()
    for name in arguments.load:
        asyncio.run(measure(name, arguments))


if __name__ == "__main__":
    main()
