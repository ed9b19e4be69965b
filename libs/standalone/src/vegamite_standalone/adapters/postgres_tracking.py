"""The markets that an instance tracks without being told to."""

import json
from pathlib import Path
from typing import TypeAlias

import asyncpg

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, Micros, to_datetime

DEMO = Market("sim", "DEMO/USD")
FIRST = (Market("kraken", "BTC/USD"), Market("kraken", "ETH/USD"))
NOTE = "offered-markets.json"

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_TRACK = """
    INSERT INTO tracked_market (market_key, history_from)
    SELECT ensure_market($1, $2, $3, $4, $5, $6), $7
    ON CONFLICT (market_key) DO UPDATE
        SET history_from = greatest(tracked_market.history_from, excluded.history_from)
        WHERE tracked_market.history_from < excluded.history_from
"""
_UNTRACK = """
    DELETE FROM tracked_market USING market
    WHERE market.market_key = tracked_market.market_key AND market.exchange = $1 AND market.symbol = $2
"""
_TRACKED = """
    SELECT EXISTS (SELECT FROM tracked_market JOIN market USING (market_key) WHERE exchange = $1 AND symbol = $2)
"""


async def offer_markets(pool: Pool, *, directory: Path, demo: bool, now: Micros) -> None:
    """Track the first markets once in an instance's life, and the demo while it is wanted.

    What somebody stopped tracking stays so: `<directory>/offered-markets.json` remembers what was offered. The
    demo's history begins at the full hour a day before `now` (microseconds), at each start, so that no long absence is made up for.
    """
    note = directory / NOTE
    # A new database beside an old note (another was used before) is offered everything again.
    offered = _read_note(note) if await _anything_known(pool) else set()
    if not offered and not await _anything_tracked(pool):
        for market in FIRST:
            await _track(pool, market, now)
        offered |= {market.key for market in FIRST}
    if not demo:
        await pool.execute(_UNTRACK, DEMO.exchange, DEMO.symbol)
        offered.discard(DEMO.key)
    elif DEMO.key not in offered or await pool.fetchval(_TRACKED, DEMO.exchange, DEMO.symbol):
        # From a full hour on, so that its first candles are whole.
        await _track(pool, DEMO, (now - DAY) // HOUR * HOUR)
        offered.add(DEMO.key)
    unfinished = note.with_suffix(".new")
    unfinished.write_text(json.dumps(sorted(offered)) + "\n", encoding="utf-8")
    unfinished.replace(note)


async def ensure_market(pool: Pool, market: Market) -> None:
    """Make the market's row from its symbol, where there is none yet."""
    await pool.fetchval("SELECT ensure_market($1, $2, $3, $4, $5, $6)", *_columns(market))


def _columns(market: Market) -> tuple[str | None, ...]:
    parts = market.parts
    return (market.exchange, market.symbol, parts.type, parts.base, parts.quote, parts.settle)


async def _anything_known(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT EXISTS (SELECT FROM market)"))


async def _anything_tracked(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT EXISTS (SELECT FROM tracked_market)"))


async def _track(pool: Pool, market: Market, history_from: Micros) -> None:
    await pool.execute(_TRACK, *_columns(market), to_datetime(history_from))


def _read_note(note: Path) -> set[str]:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return set()
    return {key for key in found if isinstance(key, str)} if isinstance(found, list) else set()
