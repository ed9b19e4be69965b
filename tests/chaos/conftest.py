"""A system to break by hand: started once for the tests that each break something else of it."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from tests.chaos.audit import Audit
from tests.chaos.environment import Environment
from tests.chaos.load import Load
from vegamite_common.testing.services.process import make_server_directory, remove_directory


@dataclass(frozen=True)
class Fragile:
    """Three brokers, PostgreSQL and two aggregators, what loads them, and what compares."""

    env: Environment
    load: Load
    audit: Audit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fragile() -> AsyncIterator[Fragile]:
    """A running system, caught up."""
    folder: Path = make_server_directory("chaos")
    env = Environment(folder)
    audit = Audit(env)
    load: Load | None = None
    try:
        await env.start()
        load = Load(rng=random.Random(7), clock=env.clock, producer=env.bus.producer())
        load.start()
        await audit.start()
        yield Fragile(env, load, audit)
    finally:
        if load is not None:
            await load.close()
        await audit.close()
        await env.close()
        remove_directory(folder)
