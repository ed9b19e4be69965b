"""Compares vegamite with Quix Streams, bytewax and Kafka Streams, on one broker and the same trades.

Usage: python benchmarks/peers/run.py [--trades N] [--runs N] [--only NAME …]

Everything runs here, on loopback: a Kafka broker of its own with a topic of a record a trade (and one of our wire format, the
same trades), a PostgreSQL of its own, and each program as a process of its own that reads its topic from the start; one after
the other, all of them in each run. Each tells how far it is and of the candles that it made, which are compared with the right
ones. Ratios are of one run; what is printed is their median, the least and the greatest. The first time it makes an environment
with the peers' packages (peers.txt) and builds the Kafka Streams program (Maven). A line of JSON a process goes before the
tables.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

from measuring import ProgramError, Run, check_candles, run_program
from programs import HERE, STORED, Program, window_programs
from report import figures, ratio_table, table
from workload import A_SECOND, START, fill, trades_of

from vegamite_common.domain.time import MINUTE
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.testing.services.kafka import KafkaServer

GRACE_MS = 15_000
"""A candle is looked at if it ended so long before a program's last trade: who waits for late ones has told of it by then."""


def minute_candles(seconds: int) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Return the workload's candles of a minute, exact: what each program has to tell."""
    candles: dict[tuple[str, int], list[Any]] = {}
    for market, trades in trades_of(seconds):
        for trade in trades:
            key = market.key, trade.event_time // MINUTE * 60_000
            candle = candles.get(key)
            if candle is None:
                candle = candles[key] = [trade.price] * 4 + [Decimal(0), 0]
            candle[1] = max(candle[1], trade.price)
            candle[2] = min(candle[2], trade.price)
            candle[3] = trade.price
            candle[4] += trade.amount
            candle[5] += 1
    return {key: tuple(candle) for key, candle in candles.items()}


def check_run(
    program: Program, run: Run, expected: Mapping[tuple[str, int], tuple[Any, ...]]
) -> None:
    """Raise `ProgramError` unless the program's candles are right, and ours count every trade in every timeframe."""
    until = START // 1000 + program.trades // A_SECOND * 1000 - GRACE_MS
    check_candles(program.name, run, expected, until_ms=until, exact=program.exact)
    if program.totals:
        counted = {tuple(total[1:]) for total in run.timeframes.values()}
        trades = {count for count, _ in counted}
        if run.timeframes.keys() != {each.value for each in Timeframe} or len(counted) != 1:
            raise ProgramError(f"{program.name}: the timeframes disagree: {run.timeframes}")
        if trades != {run.samples[-1].trades}:
            raise ProgramError(f"{program.name}: its candles count {trades} trades")


def run_windows(
    program: Program, folder: Path, expected: Mapping[tuple[str, int], tuple[Any, ...]]
) -> Run:
    """Run one program that keeps its candles in memory, and check what it told."""
    state = Path(tempfile.mkdtemp(prefix=f"{program.name}-", dir=folder))
    run = run_program(
        [part.format(state=state) for part in program.command],
        trades=program.trades,
        log=state.with_suffix(".log"),
        folder=HERE,
        environment=program.environment,
        totals=program.totals,
    )
    check_run(program, run, expected)
    return run


async def measure(trades: int, runs: int, chosen: Callable[[str], bool]) -> None:
    """Run every chosen program in turn, so many times over, and print."""
    seconds = -(-trades // A_SECOND)
    workload = seconds * A_SECOND
    expected = minute_candles(seconds)
    rounds: list[dict[str, Run]] = []
    async with AsyncExitStack() as stack:
        kafka = stack.enter_context(KafkaServer())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vegamite-peers-")))
        programs = [
            each for each in window_programs(kafka.bootstrap, workload) if chosen(each.name)
        ]
        stores = [name for name in STORED if chosen(name)]
        await fill(kafka.bootstrap, seconds)
        if stores:
            from stored import stored

            store = await stack.enter_async_context(stored(kafka.bootstrap, workload))
        for number in range(runs):
            rounds.append({})

            def keep(name: str, run: Run, number: int = number) -> None:
                rounds[-1][name] = run
                print(json.dumps({"run": number, "program": name, **figures(run)}), flush=True)

            for program in programs:
                run = await asyncio.to_thread(run_windows, program, folder, expected)
                keep(program.name, run)
            for name in stores:
                keep(name, await store.run(name))
    names = {program.name: program.what for program in programs}
    names |= {name: STORED[name] for name in stores}
    print(f"\n{workload:,} trades of 20 markets, {runs} runs: median [least … greatest]\n")
    print(table(names, rounds), ratio_table(rounds), sep="\n\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trades", type=int, default=2_000_000, help="trades in each topic")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], help="names of programs")
    given = parser.parse_args(arguments)
    # A new topic has no leader for a moment: the producer says so for each partition, and tries again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # Asked to end, it ends what it started, as it does at a Ctrl+C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What this shares with the benchmark of the whole path lies beside this folder.
    sys.path.append(str(HERE.parent))
    try:
        asyncio.run(
            measure(given.trades, given.runs, lambda name: not given.only or name in given.only)
        )
    except ProgramError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
