"""How a bulk job goes, as the aggregator notes it."""

from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job's row: its state (`open`, `ended`, `silent`) and how many of its trades were new and stored, and how many expired."""

    state: str
    stored: int
    expired: int


async def find_job(pool: Pool, job: str) -> JobProgress | None:
    """Return how the job goes; None before the aggregator has seen its first record."""
    row = await pool.fetchrow("SELECT state, trades, expired FROM job WHERE job = $1", job)
    return None if row is None else JobProgress(*row)
