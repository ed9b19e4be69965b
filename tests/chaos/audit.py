"""The comparison: what is stored and published against what the log has.

Each call takes one snapshot of the database and looks at all that changed since the last one; `everything` looks at the
rest too. A difference is a line that says what was expected and what came.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from typing import Any

import asyncpg

from tests.chaos.environment import Environment
from tests.chaos.follower import Follower
from tests.chaos.load import FUTURE_SECONDS
from tests.chaos.truth import Key, Truth
from vegamite_common.bus.port import (
    CANDLES,
    DEAD_LETTERS,
    STATUS,
    TRADES,
    Message,
)
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.time import from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.dead_letters import decode_dead_letter
from vegamite_common.messages.status import Revised, decode_status
from vegamite_common.testing.reference_fold import TIMEFRAME_NAMES, fold, plain, rfc3339

SHORT = TIMEFRAME_NAMES[: TIMEFRAME_NAMES.index("1h") + 1]
"""What is folded again after each round where it changed; longer ones, of which each has a round's trades, now and then."""

STREAMED = ("1s", "1m", "3m")
"""Of these every published state is compared with the log as it was then."""

GRACE_SECONDS = 30.0
PATIENCE_SECONDS = 10.0
"""Real seconds after its time in which a candle has to be final."""

MOST_LINES = 25
MAX_CANDLE_LINES = 8

_DECIMALS = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume",
)  # fmt: skip
_COMPARED = (*_DECIMALS, "trade_count", "first_trade_id", "last_trade_id")
_CHANGED = "NOT pg_visible_in_snapshot(xmin::text::xid8, $1::text::pg_snapshot)"


class DifferenceError(Exception):
    """What is stored or published isn't what the log says; the text has a line for each difference."""

    def __init__(self, lines: Sequence[str]) -> None:
        more = [f"… and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        super().__init__("\n".join([*lines[:MOST_LINES], *more]))


class Audit:
    """Compares, and keeps what it needs to compare the next time."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.truth = Truth(future=env.clock.span(FUTURE_SECONDS))
        self.trades = Follower(env, TRADES, self.truth.take)
        self.candles = Follower(env, CANDLES, self._take_candles)
        self.status = Follower(env, STATUS, self._take_status)
        self.letters = Follower(env, DEAD_LETTERS, self._take_letter)
        self._followers = (self.trades, self.candles, self.status, self.letters)
        self._letters: dict[tuple[int, int], bytes] = {}
        self._snapshot: str | None = None
        self._last_step = 0
        self._boundaries: dict[int, set[int]] = defaultdict(set)
        self._reached: dict[int, tuple[int, int]] = {}
        self._names: dict[int, str] = {}
        self._fresh_states: list[tuple[str, str, Candle]] = []
        self._revisions: dict[Key, dict[int, Candle]] = defaultdict(dict)
        self._revised: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        self.published = 0
        self.stored_trades = 0
        self.compared = 0

    async def start(self) -> None:
        """Begin to follow the topics."""
        for follower in self._followers:
            await follower.start()

    async def close(self) -> None:
        """End what was begun."""
        for follower in self._followers:
            await follower.close()

    # --- waiting ----------------------------------------------------------------------------------

    async def position(self) -> str:
        """Say in one line how far the aggregators are, for a run that doesn't get on."""
        rows = await self._env.database.fetch(
            "SELECT partition, next_offset, version, owner FROM partition_fence ORDER BY partition"
        )
        ends = await self.trades.ends()
        waiting = await self._env.database.fetchval("SELECT count(*) FROM outbox")
        told = ", ".join(
            f"{row['partition']}: {row['next_offset']} of {ends[row['partition']]} by {row['owner']}"
            for row in rows
        )
        return f"{told}; {waiting} records in the outbox"

    async def caught_up(self) -> bool:
        """Whether every record is stored and every committed record published."""
        ends = await self.trades.ends()
        rows = await self._env.database.fetch("SELECT partition, next_offset FROM partition_fence")
        if ends != {row["partition"]: row["next_offset"] for row in rows}:
            return False
        return not await self._env.database.fetchval("SELECT count(*) FROM outbox")

    # --- what was published -----------------------------------------------------------------------

    def _take_candles(self, message: Message) -> None:
        record = decode_candles(message.value)
        market = f"{record.exchange}:{record.symbol}"
        for candle in record.candles:
            self.published += 1
            self._fresh_states.append((market, record.type, candle))
            if candle.final:
                key = (market, candle.timeframe.value, to_datetime(candle.open_time))
                self._revisions[key][candle.revision] = candle

    def _take_status(self, message: Message) -> None:
        record = decode_status(message.value)
        if isinstance(record, Revised):
            series = (f"{record.exchange}:{record.symbol}", Timeframe(record.timeframe).value)
            self._revised[series].append((record.from_time, record.to_time))

    def _take_letter(self, message: Message) -> None:
        letter = decode_dead_letter(message.value)
        self._letters[(letter.partition, letter.offset)] = letter.value

    # --- comparing --------------------------------------------------------------------------------

    async def compare(self, extent: str = "changed") -> None:
        """Raise `DifferenceError` unless stored and published equal what the log says; to be called when caught up.

        `extent`: what `changed`; and all of the `long` timeframes; or `everything` there is, folded anew from the first trade on.
        """
        while True:
            await self.trades.caught_up()
            async with self.trades.taking:
                if await self._compare_now(extent):
                    return
            await asyncio.sleep(0.05)  # something was appended, or became final, just now

    def require_in_log(self, acknowledged: Mapping[str, Set[tuple[int, int]]]) -> None:
        """Raise `DifferenceError` for trades, by market and (milliseconds, id), that brokers confirmed and the log doesn't have."""
        lines = []
        for market, identities in acknowledged.items():
            known = self.truth.markets.get(market)
            lost = identities - known.trades.keys() if known else identities
            lines += [f"{market}: trade {at} was acknowledged and isn't in the log" for at in lost]
        if lines:
            raise DifferenceError(lines)

    async def _compare_now(self, extent: str) -> bool:
        """Compare with one snapshot of the database; False where that isn't of the moment that the topics are known of."""
        ends = dict(self.trades.next_offsets)
        async with (
            self._env.database.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            now = self._env.clock.now()
            fences = await connection.fetch("SELECT partition, next_offset FROM partition_fence")
            behind = any(ends[row["partition"]] != row["next_offset"] for row in fences)
            if behind or await connection.fetchval("SELECT count(*) FROM outbox"):
                return False
            snapshot = await connection.fetchval("SELECT pg_current_snapshot()::text")
            lines = await self._compare_steps(connection, ends)
            lines += await self._compare_trades(connection)
            changed = await self._changed_candles(connection, extent)
            coverage = await self._coverage(connection)
        # The outbox was empty in the snapshot: whatever it made final is in the log by now.
        await self.candles.caught_up()
        await self.status.caught_up()
        await self.letters.caught_up()
        lines += await asyncio.to_thread(self._compare_candles, changed, ends, now, extent)
        lines += self._compare_coverage(coverage)
        lines += self._compare_letters()
        lines += await asyncio.to_thread(self._compare_published)
        if extent == "everything":
            lines += await asyncio.to_thread(self._compare_all, changed)
        if lines:
            raise DifferenceError(lines)
        self._snapshot = snapshot
        return True

    async def _compare_steps(
        self,
        connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
        ends: Mapping[int, int],
    ) -> list[str]:
        """Each transaction followed the one before it: a version more, never an offset back, and the last is at the end."""
        lines = []
        rows = await connection.fetch(
            "SELECT * FROM chaos_step WHERE id > $1 ORDER BY id", self._last_step
        )
        for row in rows:
            partition = row["partition"]
            before = self._reached.get(partition, (row["old_version"], row["old_offset"]))
            if before != (row["old_version"], row["old_offset"]):
                lines.append(f"partition {partition}: {dict(row)} does not follow {before}")
            if row["version"] != row["old_version"] + 1 or row["next_offset"] < row["old_offset"]:
                lines.append(f"partition {partition}: not a step ahead: {dict(row)}")
            self._reached[partition] = (row["version"], row["next_offset"])
            self._boundaries[partition].add(row["next_offset"])
            self._last_step = row["id"]
        for partition, end in ends.items():
            if end and self._reached.get(partition, (0, 0))[1] != end:
                lines.append(
                    f"partition {partition}: stored up to {self._reached.get(partition)}, the log ends at {end}"
                )
        return lines

    async def _compare_trades(
        self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
    ) -> list[str]:
        """The stored trades are the log's, first come first kept; those that came since the last time one by one."""
        for row in await connection.fetch("SELECT market_key, exchange, symbol FROM market"):
            self._names[row["market_key"]] = f"{row['exchange']}:{row['symbol']}"
        columns = "market_key, event_time, trade_id, sequence, price, amount, taker_side"
        if self._snapshot is None:
            rows = await connection.fetch(f"SELECT {columns} FROM trade")
        else:
            rows = await connection.fetch(
                f"SELECT {columns} FROM trade WHERE {_CHANGED}", self._snapshot
            )
        expected, self.truth.fresh = self.truth.fresh, {}
        lines = []
        for row in rows:
            identity = (
                self._names[row["market_key"]],
                from_datetime(row["event_time"]) // 1000,
                int(row["trade_id"]),
            )
            logged = expected.pop(identity, None)
            if logged is None:
                lines.append(f"trade {identity} is stored and should not be, or was stored anew")
                continue
            trade = logged.trade
            stored = (
                row["sequence"],
                plain(row["price"]),
                plain(row["amount"]),
                row["taker_side"] == "buy",
            )
            if stored != (
                trade.trade_id,
                plain(trade.price),
                plain(trade.amount),
                trade.taker_buys,
            ):
                lines.append(f"trade {identity} is {stored}, expected {trade}")
        lines += [f"trade {identity} is missing" for identity in expected]
        self.stored_trades = await connection.fetchval("SELECT count(*) FROM trade")
        logged_trades = sum(len(truth.trades) for truth in self.truth.markets.values())
        if self.stored_trades != logged_trades:
            lines.append(f"{self.stored_trades} trades are stored, the log has {logged_trades}")
        return lines

    async def _changed_candles(
        self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", extent: str
    ) -> dict[Key, Mapping[str, Any]]:
        """Return the rows that changed since the last time and those not final, or as many more as asked for."""
        wanted = "true"
        arguments: list[Any] = []
        if extent != "everything" and self._snapshot is not None:
            wanted = f"({_CHANGED} OR NOT final OR timeframe = ANY($2))"
            longer = [name for name in TIMEFRAME_NAMES if name not in SHORT]
            arguments += [self._snapshot, longer if extent == "long" else []]
        rows = await connection.fetch(f"SELECT * FROM candle WHERE {wanted}", *arguments)
        return {
            (self._names[row["market_key"]], row["timeframe"], row["open_time"]): dict(row)
            for row in rows
        }

    def _compare_candles(
        self,
        rows: Mapping[Key, Mapping[str, Any]],
        ends: Mapping[int, int],
        now: int,
        extent: str,
    ) -> list[str]:
        touched, self.truth.touched = self.truth.touched, set()
        lines = [f"{name(key)}: missing" for key in touched if key not in rows]
        for key, row in rows.items():
            said = self._standing(key, row, ends, now)
            if extent == "long" or (key[1] in SHORT and extent == "changed"):
                self.compared += 1
                said += differing(self.truth.candle(key), row)
            lines += [f"{name(key)}: {line}" for line in said]
            if row["final"]:
                lines += self._unpublished(key, row)
        return lines

    def _standing(
        self, key: Key, row: Mapping[str, Any], ends: Mapping[int, int], now: int
    ) -> list[str]:
        """A candle is complete if and only if it is covered, and final once it is, or once its time is long past."""
        said = []
        truth = self.truth.markets.get(key[0])
        if truth is None:
            return ["is of a market that the log does not have"]
        held = [job for job in row["held_by"] or () if self.truth.jobs.get(job)]
        if row["held_by"] and len(held) < len(row["held_by"]):
            said.append(f"held by {row['held_by']}, of which only {held} are open")
        covered = self.truth.covered(key, ends[truth.partition] - 1)
        if row["complete"] and not covered:
            said.append("complete, though the log does not cover it")
        if row["held_by"]:
            return said
        if covered and not (row["final"] and row["complete"]):
            said.append(f"covered, but final={row['final']} complete={row['complete']}")
        close_time = Timeframe(key[1]).close_time(from_datetime(row["open_time"]))
        past = now - self._env.clock.span(GRACE_SECONDS + PATIENCE_SECONDS)
        if not row["final"] and close_time < past:
            said.append(f"not final long after its end: {dict(row)}")
        return said

    def _unpublished(self, key: Key, row: Mapping[str, Any]) -> list[str]:
        """Each final and each revision went out, or a `revised` record stands for it; the newest as it is stored."""
        found = self._revisions.get(key, {})
        open_time = from_datetime(row["open_time"])
        if any(a <= open_time < b for a, b in self._revised.get(key[:2], ())):
            return []
        lost = [str(at) for at in range(row["revision"] + 1) if at not in found]
        if lost:
            return [f"{name(key)}: never published: revision {', '.join(lost)}"]
        if row["held_by"]:
            return []  # what an open job changed is told at its end
        newest = found[row["revision"]]
        if (newest.as_of, newest.complete) != (row["as_of"], row["complete"]):
            told = f"published as of {newest.as_of}, complete={newest.complete}"
            kept = f"stored as of {row['as_of']}, complete={row['complete']}"
            return [f"{name(key)}: {told}; {kept}"]
        published = {field: text(value) for field, value in values_of(newest).items()}
        return [f"{name(key)}: as published, {line}" for line in differing(published, row)]

    def _compare_published(self) -> list[str]:
        """Every published state was committed, equals the log up to its offset, and is complete only where that covers it."""
        states, self._fresh_states = self._fresh_states, []
        lines = []
        for market, kind, candle in states:
            key = (market, candle.timeframe.value, to_datetime(candle.open_time))
            partition = self.truth.markets[market].partition
            label = f"{name(key)}: {kind} {candle.revision} as of {candle.as_of}"
            if candle.as_of + 1 not in self._boundaries[partition]:
                lines.append(f"{label} was published and never committed")
            if candle.complete and not self.truth.covered(key, candle.as_of):
                lines.append(f"{label} is complete, though the log did not cover it then")
            if candle.timeframe.value in STREAMED or (kind != "update" and key[1] in SHORT):
                self.compared += 1
                expected = self.truth.candle(key, as_of=candle.as_of)
                lines += [f"{label}: {line}" for line in differing(expected, values_of(candle))]
        return lines

    async def _coverage(
        self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
    ) -> dict[str, list[tuple[int, int]]]:
        rows = await connection.fetch("SELECT * FROM coverage_span ORDER BY market_key, from_time")
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row in rows:
            span = (from_datetime(row["from_time"]), from_datetime(row["to_time"]))
            found[self._names[row["market_key"]]].append(span)
        return found

    def _compare_coverage(self, stored: Mapping[str, Sequence[tuple[int, int]]]) -> list[str]:
        return [
            f"{market}: the spans stored are {stored.get(market)}, expected {truth.coverage[-1:]}"
            for market, truth in self.truth.markets.items()
            if tuple(stored.get(market, ())) != (truth.coverage[-1] if truth.coverage else ())
        ]

    def _compare_letters(self) -> list[str]:
        """Every record that can't be taken is a dead letter, and nothing else is."""
        refused, letters = self.truth.refused, self._letters
        lines = [f"record {at} has no dead letter" for at in refused.keys() - letters.keys()]
        lines += [f"record {at} is a dead letter" for at in letters.keys() - refused.keys()]
        common = refused.keys() & letters.keys()
        lines += [f"dead letter {at} is another" for at in common if refused[at] != letters[at]]
        return lines

    def _compare_all(self, rows: Mapping[Key, Mapping[str, Any]]) -> list[str]:
        """Fold every trade of the log anew, a timeframe at a time, and compare with every stored candle."""
        lines: list[str] = []
        for market, truth in self.truth.markets.items():
            trades = [logged.trade for logged in truth.trades.values()]
            for timeframe in TIMEFRAME_NAMES:
                expected = fold(trades, timeframe)
                stored = {
                    rfc3339(key[2]): (key, row)
                    for key, row in rows.items()
                    if key[0] == market and key[1] == timeframe
                }
                self.compared += len(expected)
                for opened in expected.keys() | stored.keys():
                    if opened not in stored:
                        lines.append(f"{market} {timeframe} {opened}: missing")
                        continue
                    key, row = stored[opened]
                    said = differing(expected.get(opened), row)
                    lines += [f"{name(key)}: {line}" for line in said]
        return lines


def name(key: Key) -> str:
    """Return a candle's name for people."""
    return f"{key[0]} {key[1]} {rfc3339(key[2])}"


def values_of(candle: Candle) -> dict[str, Any]:
    """Return a published candle's values, by the names that rows have."""
    return {field: getattr(candle, field) for field in _COMPARED}


def text(value: object) -> str:
    """Return a value as `reference_fold` writes it."""
    return plain(value) if isinstance(value, Decimal) else str(value)


def differing(expected: Mapping[str, str] | None, row: Mapping[str, Any]) -> list[str]:
    """Return a line for each value of a row that isn't the expected one, digit for digit."""
    if expected is None:
        return ["is there, though the log has no trade for it"]
    lines = []
    for field, value in expected.items():
        found = text(row[field])
        if found != value:
            lines.append(f"{field} is {found}, expected {value}")
    return lines[:MAX_CANDLE_LINES]
