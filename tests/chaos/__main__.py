"""`python -m tests.chaos`: faults at random, seeded moments, and a comparison after each; `make chaos` calls it.

Prints a line a round, the phases that were hit, and at last one line with the verdict, which is also the exit status:
0 where nothing differed, 1 where something did, 2 where the run proved nothing.
"""

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.control import PHASES
from tests.chaos.mutation import MUTATIONS
from tests.chaos.run import Result, Run, say, tell_hits
from vegamite_common.runtime.logging import configure_logging
from vegamite_common.runtime.section import LogSection

ENOUGH_ROUNDS = 100
ENOUGH_HITS = 10
"""In so many rounds each phase has to be hit so often."""


def main() -> int:
    """Run what the arguments ask for; return the exit status."""
    options = _parser().parse_args()
    seed: int = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="vegamite-chaos-", dir="/tmp"))
    say(f"chaos: seed {seed}, {options.rounds} rounds, mutation {options.mutation or 'none'}")
    # The run's own clients tell of each broker that is away; who wants to know finds it beside the aggregators' logs.
    configure_logging(LogSection(file=folder / "run.log", level="warning"), service="chaos")
    logging.getLogger().handlers[0].setLevel(logging.CRITICAL)
    run = Run(seed=seed, rounds=options.rounds, folder=folder, mutation=options.mutation)
    result = asyncio.run(_run_until_told(run))
    status, verdict = judge(result, rounds=options.rounds, mutation=options.mutation)
    if result.failure:
        say(f"round {result.rounds} failed:\n{result.failure}")
    for line in tell_hits(result):
        say(line)
    if status == 0:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"the processes' logs are in {folder}")
    say(
        f"chaos {verdict}: seed {seed}, {result.rounds} of {options.rounds} rounds, {result.trades} trades stored, "
        f"{result.repeated} delivered again, {result.unacknowledged} batches sent again, {result.refused} records refused, "
        f"{result.published} candle states published, "
        f"{result.compared} candles compared, {result.seconds:.0f} s"
    )
    return status


async def _run_until_told(run: Run) -> Result:
    """Run; whoever is asked to end, by SIGTERM too, ends what he started first."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run.run()


def judge(result: Result, *, rounds: int, mutation: str) -> tuple[int, str]:
    """Return exit status and verdict of a run."""
    if result.failure:
        return 1, "FAILED"
    if mutation and not result.mutated:
        return 2, f"PROVED NOTHING (the mutation {mutation} never mattered)"
    if rounds >= ENOUGH_ROUNDS:
        rare = [phase for phase in PHASES if result.hits[phase].total() < ENOUGH_HITS]
        if rare:
            return 2, f"PROVED TOO LITTLE (hit less than {ENOUGH_HITS} times: {', '.join(rare)})"
    return 0, "PASSED"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, help="which faults and trades; one is chosen, and told")
    parser.add_argument(
        "--mutation", default="", choices=["", *MUTATIONS], help="what to take away"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
