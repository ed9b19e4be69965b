"""What can befall the system in a round: planned by the seed, struck in a phase of an aggregator, healed at the end."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.control import PHASES, POINTS
from tests.chaos.environment import APPLICATION, Aggregator, Environment

FIRE_SECONDS = 4.0
"""How long an order waits for its phase; then the fault strikes wherever the aggregator is."""

AIMED = 0.85
"""The part of the faults that are aimed at a phase; the others strike at a moment of their own."""

_DECK = {
    "kill aggregator": 5,
    "stop aggregator": 3,
    "stop aggregator for long": 3,
    "end aggregator": 1,
    "kill both aggregators": 1,
    "cut postgres": 2,
    "cut kafka": 2,
    "end backend": 2,
    "lose postgres answers": 2,
    "stall postgres, then cut": 2,
    "stall kafka": 1,
    "kill postgres": 2,
    "kill broker": 2,
    "stop broker": 1,
}
"""Every fault and how often it is in one pass."""


@dataclass(frozen=True)
class Plan:
    """One fault: what, to which aggregator, in which phase, at its how-manieth time, after and for how many real seconds."""

    kind: str
    target: int
    phase: str
    point: str
    countdown: int
    aimed: bool
    delay: float
    length: float
    number: int


def plans(rng: random.Random) -> Iterator[Plan]:
    """Yield faults without end: each kind and each phase comes as often as its share, in an order of the seed."""
    kinds: list[str] = []
    phases: list[str] = []
    while True:
        if not kinds:
            kinds = [kind for kind, count in _DECK.items() for _ in range(count)]
            rng.shuffle(kinds)
        if not phases:
            phases = [*PHASES]
            rng.shuffle(phases)
        kind = kinds.pop()
        aimed = rng.random() < AIMED
        # Commits of unknown outcome are worth more than a phase's fair share, and take from none.
        unknown = kind in ("lose postgres answers", "stall postgres, then cut")
        at_commit = unknown and rng.random() < 0.7
        phase = "commit" if at_commit or not aimed else phases.pop()
        yield Plan(
            kind=kind,
            target=rng.randrange(2),
            phase=phase,
            point=_point(rng, kind, phase),
            countdown=1 if phase == "copy" else rng.randint(1, 12),
            aimed=aimed,
            delay=rng.uniform(0.1, 1.2),
            length=rng.uniform(3.0, 5.0) if kind.endswith("long") else rng.uniform(0.1, 1.2),
            number=rng.randrange(3),
        )


def _point(rng: random.Random, kind: str, phase: str) -> str:
    if kind.startswith(("lose", "stall")):
        return "entering"
    points = POINTS if phase == "copy" else ("entering", "leaving")
    return rng.choice(points)


class Faults:
    """Strikes, and remembers what has to be healed later; `hits` counts the phases that faults met."""

    def __init__(self, env: Environment, rng: random.Random) -> None:
        self._env = env
        self._rng = rng
        self.hits: dict[str, Counter[str]] = {phase: Counter() for phase in PHASES}
        self.kinds: Counter[str] = Counter()
        self._broker_away: int | None = None
        self._broker_due = 0

    async def strike(self, plan: Plan) -> str:
        """Let it happen, and return in one line what was hit where; what it broke works again then, a broker aside."""
        await asyncio.sleep(plan.delay)  # the moment of the fault
        self.kinds[plan.kind] += 1
        aggregator = self._env.aggregators[plan.target]
        action = {"kill": "kill", "stop": "stop"}.get(
            plan.kind.split()[0] if "aggregator" in plan.kind and "both" not in plan.kind else "",
            "hold",
        )
        order = await self._wait_for_phase(plan, aggregator, action)
        if order is not None:
            phases = [plan.phase]
            where = f"{plan.phase}, {plan.point}"
        else:
            phases = aggregator.control.active()
            where = f"at its own moment: {'+'.join(phases) or 'idle'}"
        for phase in phases:
            self.hits[phase]["aimed" if order is not None else "at random"] += 1
        try:
            said = await self._happen(plan, aggregator, order)
        finally:
            if order is not None:
                aggregator.control.release(order)
        return f"{said} ({aggregator.name} in {where})"

    async def heal(self, round_number: int, *, all_of_it: bool = False) -> None:
        """Start the broker that is away, some rounds later or now."""
        if self._broker_away is not None and (all_of_it or round_number >= self._broker_due):
            number, self._broker_away = self._broker_away, None
            await asyncio.to_thread(self._env.cluster.restart, number)

    def note_round(self, round_number: int, plan: Plan) -> None:
        """Have the broker that this round killed come back after as many rounds as were planned."""
        if plan.kind == "kill broker":
            self._broker_due = round_number + 1 + plan.number

    async def _wait_for_phase(self, plan: Plan, aggregator: Aggregator, action: str) -> int | None:
        """Have the process stand, or fall, in the planned phase; None where it isn't aimed or doesn't come there."""
        if not plan.aimed:
            return None
        order = aggregator.control.order(
            action, plan.phase, point=plan.point, countdown=plan.countdown
        )
        deadline = asyncio.get_running_loop().time() + FIRE_SECONDS
        while not aggregator.control.fired(order):
            if asyncio.get_running_loop().time() > deadline:
                aggregator.control.cancel()
                return order if aggregator.control.fired(order) else None
            await asyncio.sleep(0.002)  # until the phase comes
        return order

    async def _happen(self, plan: Plan, aggregator: Aggregator, order: int | None) -> str:
        match plan.kind.split():
            case ["kill", "aggregator"]:
                await self._restart([aggregator], plan.length)
                return f"killed, started again after {plan.length:.1f} s"
            case ["kill", "both", _]:
                await self._restart(self._env.aggregators, plan.length)
                return f"both killed, started again after {plan.length:.1f} s"
            case ["end", "aggregator"]:
                return await self._end(aggregator, plan, order)
            case ["stop", "aggregator", *_]:
                return await self._stop(aggregator, plan.length, stopped=order is not None)
            case ["cut", where]:
                return f"{self._env.cut(where, self._rng)} connections to {where} cut"
            case ["end", "backend"]:
                return await self._end_backends()
            case ["lose" | "stall", *_]:
                return await self._disturb_network(plan, aggregator, order)
            case ["kill", "postgres"]:
                await asyncio.to_thread(self._env.postgres.kill)
                self._let_go(aggregator, order)
                await asyncio.sleep(plan.length)  # the length of the fault
                await asyncio.to_thread(self._env.postgres.start)
                return f"PostgreSQL killed, started again after {plan.length:.1f} s"
            case _:
                return await self._break_broker(plan, aggregator, order)

    def _let_go(self, aggregator: Aggregator, order: int | None) -> None:
        if order is not None:
            aggregator.control.release(order)

    async def _restart(self, aggregators: list[Aggregator], after: float) -> None:
        for aggregator in aggregators:
            aggregator.expected_to_run = False
            aggregator.process.kill()
        await asyncio.sleep(after)  # the length of the fault
        for aggregator in aggregators:
            aggregator.start()

    async def _end(self, aggregator: Aggregator, plan: Plan, order: int | None) -> str:
        aggregator.expected_to_run = False
        self._let_go(aggregator, order)
        status = await asyncio.to_thread(aggregator.process.stop)
        await asyncio.sleep(plan.length)  # the length of the fault
        aggregator.start()
        return f"asked to end, ended with {status}, started again after {plan.length:.1f} s"

    async def _stop(self, aggregator: Aggregator, seconds: float, *, stopped: bool) -> str:
        if not stopped:
            os.kill(aggregator.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)  # the length of the fault
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(aggregator.pid, signal.SIGCONT)
        return f"stopped for {seconds:.1f} s"

    async def _end_backends(self) -> str:
        pids = [
            row["pid"]
            for row in await self._env.database.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid",
                APPLICATION,
            )
        ]
        chosen = pids if self._rng.random() < 0.4 else self._rng.sample(pids, min(1, len(pids)))
        await self._env.database.execute(
            "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen
        )
        return f"{len(chosen)} of {len(pids)} backends ended"

    async def _disturb_network(self, plan: Plan, aggregator: Aggregator, order: int | None) -> str:
        """Let answers, or everything, stay away for a while; what had to do with PostgreSQL is cut then."""
        proxies = self._env.kafka_proxies if "kafka" in plan.kind else [self._env.postgres_proxy]
        loses = plan.kind.startswith("lose")
        for proxy in proxies:
            proxy.lose_answers() if loses else proxy.stand_still()
        try:
            self._let_go(aggregator, order)
            await asyncio.sleep(plan.length)  # the length of the fault
            if "postgres" in plan.kind:
                self._env.postgres_proxy.cut_all()
        finally:
            for proxy in proxies:
                proxy.go_on()
        return f"{plan.kind} after {plan.length:.1f} s"

    async def _break_broker(self, plan: Plan, aggregator: Aggregator, order: int | None) -> str:
        """Kill a broker, or stop it for a while; where one is away already, that one comes back first."""
        await self.heal(0, all_of_it=True)
        cluster = self._env.cluster
        if plan.kind == "kill broker":
            await asyncio.to_thread(cluster.kill, plan.number)
            self._broker_away = plan.number
            return f"broker {plan.number + 1} killed"
        cluster.suspend(plan.number)
        try:
            self._let_go(aggregator, order)
            await asyncio.sleep(2 * plan.length)  # the length of the fault
        finally:
            cluster.resume(plan.number)
        return f"broker {plan.number + 1} stopped for {2 * plan.length:.1f} s"
