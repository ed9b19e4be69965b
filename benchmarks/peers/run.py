"""Compares vegamite with Quix Streams, bytewax and Kafka Streams, on one broker and the same trades.

Usage: python benchmarks/peers/run.py [--trades N] [--runs N] [--only NAME …]

Everything runs here, on loopback: a Kafka broker of its own with a topic of a record a trade (and one of our wire format, the
same trades), and each program as a process of its own that reads its topic from the start; one after the other, all of them
in each run. Ratios are of one run; what is printed is their median, the least and the greatest. The first time it makes an
environment with the peers' packages (peers.txt) and builds the Kafka Streams program (Maven). A line of JSON a run goes
before the table.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from measuring import ProgramError, Run, check_candles, run_program
from programs import HERE, Program, window_programs
from workload import A_SECOND, START, fill, trades_of

from vegamite_common.domain.time import MINUTE
from vegamite_common.testing.services.kafka import KafkaServer

GOALS = {"quix": 12.0, "bytewax": 3.0, "kafka-streams": 1.0}
GRACE_MS = 15_000
"""A candle is looked at if it ended so long before a program's last trade: who waits for late ones has told of it by then."""

OURS = ("vegamite", "vegamite-wire")


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
        counted = {name: total[1:] for name, total in run.timeframes.items()}
        if len({tuple(total) for total in counted.values()}) != 1 or len(counted) != 16:
            raise ProgramError(f"{program.name}: the timeframes disagree: {counted}")


def measure(
    programs: Sequence[Program],
    *,
    runs: int,
    expected: Mapping[tuple[str, int], tuple[Any, ...]],
) -> list[dict[str, Run]]:
    """Run every program in turn, so many times over; print a line of JSON for each."""
    rounds: list[dict[str, Run]] = []
    with tempfile.TemporaryDirectory(prefix="vegamite-peers-") as folder:
        for number in range(runs):
            results: dict[str, Run] = {}
            for program in programs:
                state = Path(folder) / f"{program.name}-{number}"
                state.mkdir()
                run = run_program(
                    [part.format(state=state) for part in program.command],
                    trades=program.trades,
                    log=state.with_suffix(".log"),
                    folder=HERE,
                    environment=program.environment,
                    totals=program.totals,
                )
                check_run(program, run, expected)
                results[program.name] = run
                print(json.dumps({"run": number, "program": program.name, **figures(run)}))
                sys.stdout.flush()
            rounds.append(results)
    return rounds


def figures(run: Run) -> dict[str, float]:
    """Return one run's figures, as they go into JSON."""
    trades = run.samples[-1].trades
    return {
        "trades": trades,
        "startup_seconds": round(run.startup(), 2),
        "warm_up_rate": round(run.warming()),
        "steady_rate": round(run.steady()),
        "whole_rate": round(run.whole()),
        "processor_seconds_per_million": round(run.processor_cost(), 2),
        "candles_checked": len(run.candles),
    }


def spread(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Return the median, and the least and the greatest in brackets."""
    middle = f"{statistics.median(values):,.{digits}f}{unit}"
    return f"{middle} [{min(values):,.{digits}f} … {max(values):,.{digits}f}]"


def table(programs: Sequence[Program], rounds: Sequence[Mapping[str, Run]]) -> str:
    """Return the figures in Markdown."""
    lines = [
        "| program | what | start-up, s | warming up, trades/s | steady, trades/s | first to last, trades/s | processor s a million trades |",
        "|---|---|---|---|---|---|---|",
    ]
    for program in programs:
        runs = [results[program.name] for results in rounds]
        cells = [
            program.name,
            program.what,
            spread([run.startup() for run in runs], 1),
            spread([run.warming() for run in runs]),
            spread([run.steady() for run in runs]),
            spread([run.whole() for run in runs]),
            spread([run.processor_cost() for run in runs], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio_table(programs: Sequence[Program], rounds: Sequence[Mapping[str, Run]]) -> str:
    """Return ours against each peer, run by run, in Markdown."""
    lines = ["| ours | against | steady | first to last | goal |", "|---|---|---|---|---|"]
    names = [program.name for program in programs]
    for own in (name for name in OURS if name in names):
        for peer in (name for name in names if name not in OURS):
            pairs = [(results[own], results[peer]) for results in rounds]
            steady = [one.steady() / other.steady() for one, other in pairs]
            whole = [one.whole() / other.whole() for one, other in pairs]
            goal = GOALS.get(peer) if own == "vegamite" else None
            verdict = "none" if goal is None else _verdict(steady, goal)
            cells = [own, peer, spread(steady, 2, "x"), spread(whole, 2, "x"), verdict]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(ratios: Sequence[float], goal: float) -> str:
    reached = statistics.median(ratios) >= goal
    return f">= {goal:g}x: {'reached' if reached else 'MISSED'}"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trades", type=int, default=2_000_000, help="trades in each topic")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], help="names of programs")
    arguments = parser.parse_args()
    seconds = -(-arguments.trades // A_SECOND)
    workload = seconds * A_SECOND
    expected = minute_candles(seconds)
    with KafkaServer() as kafka:
        programs = [
            program
            for program in window_programs(kafka.bootstrap, workload)
            if not arguments.only or program.name in arguments.only
        ]
        asyncio.run(fill(kafka.bootstrap, seconds))
        try:
            rounds = measure(programs, runs=arguments.runs, expected=expected)
        except ProgramError as error:
            raise SystemExit(str(error)) from None
    print(
        f"\n{workload:,} trades of 20 markets, {arguments.runs} runs: median [least … greatest]\n"
    )
    print(table(programs, rounds), ratio_table(programs, rounds), sep="\n\n")


if __name__ == "__main__":
    main()
