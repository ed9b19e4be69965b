"""A run: rounds of load and faults, each compared with the log; what it says, and the verdict."""

import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.audit import Audit, DifferenceError
from tests.chaos.control import PHASES
from tests.chaos.environment import Environment
from tests.chaos.fault import Faults, plans
from tests.chaos.load import Load

LOAD_SECONDS = 2.5
PATIENCE_SECONDS = 90.0
"""How long recovery may take before it counts as none."""

LONG_EVERY = 10
"""After so many rounds the candles of the long timeframes are compared too, not only what the round touched of the short ones."""


class ChaosError(Exception):
    """The run found the system wrong; the text says how."""


@dataclass
class Result:
    """What a run saw."""

    seed: int
    rounds: int = 0
    failure: str = ""
    seconds: float = 0.0
    trades: int = 0
    repeated: int = 0
    refused: int = 0
    compared: int = 0
    published: int = 0
    unacknowledged: int = 0
    mutated: int = 0
    hits: dict[str, Counter[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)


def say(text: str) -> None:
    """Write one line of the run's output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Run:
    """One run in a folder of its own."""

    def __init__(self, *, seed: int, rounds: int, folder: Path, mutation: str = "") -> None:
        self._rounds = rounds
        self._rng = random.Random(seed)
        self._env = Environment(folder, mutation=mutation)
        self._audit = Audit(self._env)
        self._faults = Faults(self._env, random.Random(self._rng.random()))
        self._plans = plans(random.Random(self._rng.random()))
        self.result = Result(seed)

    async def run(self) -> Result:
        """Run all rounds, or up to the first failure; clean up in any case."""
        began = time.monotonic()
        try:
            await self._env.start()
            load = Load(
                rng=random.Random(self._rng.random()),
                clock=self._env.clock,
                producer=self._env.bus.producer(),
            )
            load.start()
            await self._audit.start()
            say(
                f"three brokers, PostgreSQL and two aggregators after {time.monotonic() - began:.1f} s"
            )
            try:
                await self._all_rounds(load)
            except (DifferenceError, ChaosError) as error:
                self.result.failure = str(error)
            finally:
                await load.close()
                await self._audit.close()
                self._count(load)
        finally:
            await self._env.close()
            self.result.seconds = time.monotonic() - began
        return self.result

    async def _all_rounds(self, load: Load) -> None:
        await self._recovered(0)
        for number in range(1, self._rounds + 1):
            self.result.rounds = number
            began = time.monotonic()
            said, load_seconds = await self._round(load, number)
            recovered = time.monotonic()
            longer = number % LONG_EVERY == 0
            await self._audit.compare("long" if longer else "changed")
            self._audit.require_in_log(load.acknowledged)
            say(
                f"round {number:3}: {said}; all stored after {recovered - began - load_seconds:.1f} s more, "
                f"compared in {time.monotonic() - recovered:.1f} s{', long ones too' if longer else ''}"
            )
        await self._faults.heal(0, all_of_it=True)
        load.end_jobs()
        await load.drained()
        await self._recovered(self._rounds)
        began = time.monotonic()
        await self._audit.compare("everything")
        say(
            f"at the end: every trade folded anew, all compared in {time.monotonic() - began:.1f} s"
        )

    async def _round(self, load: Load, number: int) -> tuple[str, float]:
        began = time.monotonic()
        await self._faults.heal(number)
        load.end_jobs()
        plan = next(self._plans)
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(load.run(LOAD_SECONDS))
            striking = group.create_task(self._faults.strike(plan))
        loading.result()
        self._faults.note_round(number, plan)
        seconds = time.monotonic() - began
        await self._recovered(number)
        return striking.result(), seconds

    async def _recovered(self, number: int) -> None:
        """Return once both aggregators work and all records are stored and published; raise `ChaosError` where that doesn't come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for aggregator in self._env.aggregators:
                if aggregator.expected_to_run and not aggregator.alive:
                    raise ChaosError(
                        f"{aggregator.name} ended by itself in round {number}:\n{tail(aggregator.process.log)}"
                    )
            at_work = all(one.at_work for one in self._env.aggregators)
            if at_work and await self._audit.caught_up():
                return
            if time.monotonic() > deadline:
                raise ChaosError(
                    f"not recovered {PATIENCE_SECONDS:.0f} s after round {number}: {await self._audit.position()}"
                )
            await asyncio.sleep(0.1)  # until all is stored

    def _count(self, load: Load) -> None:
        result, audit = self.result, self._audit
        result.trades, result.repeated = audit.stored_trades, audit.truth.repeated
        result.refused = len(audit.truth.refused)
        result.compared, result.published = audit.compared, audit.published
        result.unacknowledged = load.unacknowledged
        result.mutated = sum(one.control.mutated for one in self._env.aggregators)
        result.hits, result.kinds = self._faults.hits, self._faults.kinds


def tail(log: Path, lines: int = 20) -> str:
    """Return the end of a process's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def tell_hits(result: Result) -> list[str]:
    """Return the table of phases that faults met, and how often each fault came."""
    lines = ["phase     aimed  at random  together"]
    for phase in PHASES:
        found = result.hits.get(phase, Counter())
        lines.append(f"{phase:9} {found['aimed']:5}  {found['at random']:9}  {found.total():8}")
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(result.kinds.items()))
    return [*lines, f"faults: {told}"]
