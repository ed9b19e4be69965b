"""Time partitions of `trade` and `candle`: which one an instant belongs to, and making those that are missing.

Trades have a table a day. Candles have one for each timeframe and month, year or decade. Few enough in all for the queries
that look at every candle which isn't final: such a query locks each table with its indexes, and the server's lock table
is finite.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import asyncpg

from vegamite_aggregator.adapters.row import Connection
from vegamite_common.domain.time import DAY, Micros, to_datetime
from vegamite_common.domain.timeframe import Timeframe

_TABLES = """
    SELECT name, bounds[1]::timestamptz AS from_time, bounds[2]::timestamptz AS to_time FROM (
        SELECT part.relname AS name,
            regexp_match(pg_get_expr(part.relpartbound, part.oid), '\\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') AS bounds
        FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid WHERE inhparent = to_regclass($1)
    ) AS tables ORDER BY from_time
"""


class Width(Enum):
    """How much time one partition holds."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"
    DECADE = "decade"


WIDTHS: dict[Timeframe, Width] = {
    Timeframe.S1: Width.MONTH,
    Timeframe.M1: Width.MONTH,
    Timeframe.M3: Width.MONTH,
    Timeframe.M5: Width.MONTH,
    Timeframe.M15: Width.YEAR,
    Timeframe.M30: Width.YEAR,
    Timeframe.H1: Width.YEAR,
    Timeframe.H2: Width.YEAR,
    Timeframe.H4: Width.DECADE,
    Timeframe.H6: Width.DECADE,
    Timeframe.H8: Width.DECADE,
    Timeframe.H12: Width.DECADE,
    Timeframe.D1: Width.DECADE,
    Timeframe.D3: Width.DECADE,
    Timeframe.W1: Width.DECADE,
    Timeframe.MO1: Width.DECADE,
}


def candle_table(timeframe: Timeframe) -> str:
    """Return the name of the timeframe's table; the month is spelt out, since names fold case."""
    return "candle_1mo" if timeframe is Timeframe.MO1 else f"candle_{timeframe.value}"


@dataclass(frozen=True, slots=True)
class TimePartition:
    """One table: `name`, attached to `parent`, for instants from `begin` until before `end`."""

    parent: str
    name: str
    begin: datetime
    end: datetime


def partition_at(parent: str, width: Width, instant: Micros) -> TimePartition:
    """Return the partition of `parent` that holds an instant."""
    moment = to_datetime(instant)
    if width is Width.DAY:
        begin = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        return TimePartition(parent, f"{parent}_{begin:%Y%m%d}", begin, begin + timedelta(days=1))
    if width is Width.MONTH:
        begin = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        end = (begin + timedelta(days=31)).replace(day=1)
        return TimePartition(parent, f"{parent}_{begin:%Y%m}", begin, end)
    years = 10 if width is Width.DECADE else 1
    begin = datetime(moment.year - moment.year % years, 1, 1, tzinfo=UTC)
    return TimePartition(
        parent, f"{parent}_{begin:%Y}", begin, begin.replace(year=begin.year + years)
    )


def partitions_of_day(day: int) -> list[TimePartition]:
    """Return every partition that trades of one day (counted since the epoch) and all their candles go to.

    A candle may open before its trades' day: `3d`, `1w`, and `1M` reach back over the end of a decade.
    """
    instant = day * DAY
    found = [partition_at("trade", Width.DAY, instant)]
    for timeframe, width in WIDTHS.items():
        found.append(partition_at(candle_table(timeframe), width, timeframe.open_time(instant)))
    return found


async def tables_before(
    connection: Connection, parent: str, *, before: datetime | None
) -> list[tuple[str, datetime, datetime]]:
    """Return a table's time partitions that end by then (None: all), oldest first: name, begin, end."""
    return [
        (row["name"], row["from_time"], row["to_time"])
        for row in await connection.fetch(_TABLES, parent)
        if before is None or row["to_time"] <= before
    ]


class TimePartitions:
    """Makes missing partitions, each in a transaction of its own, and remembers which are there."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._days: set[int] = set()
        self._names: set[str] = set()
        self._making = asyncio.Lock()

    async def prepare(self, instants: Iterable[Micros]) -> int:
        """Make what trades of these instants need; return how many were missing. Not to be called inside a transaction.

        Raises what asyncpg raises.
        """
        days = {instant // DAY for instant in instants} - self._days
        if not days:
            return 0
        made = 0
        async with self._making:
            for day in sorted(days):
                for wanted in partitions_of_day(day):
                    made += await self._ensure(wanted)
                self._days.add(day)
        return made

    def forget(self) -> None:
        """Look anew at the next need: a partition that was there is gone."""
        self._days.clear()
        self._names.clear()

    async def _ensure(self, wanted: TimePartition) -> bool:
        if wanted.name in self._names:
            return False
        made = await self._pool.fetchval(
            "SELECT ensure_time_partition($1, $2, $3, $4)",
            wanted.parent,
            wanted.name,
            wanted.begin,
            wanted.end,
        )
        self._names.add(wanted.name)
        return bool(made)
