"""`vegamite verify`: every difference between stored candles and stored trades, of an instance or a deployed system."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from vegamite_aggregator.adapters.stored_series import PostgresStoredSeries
from vegamite_aggregator.config import AggregatorSettings
from vegamite_aggregator.core.verification import Difference, Scope
from vegamite_aggregator.ports import StoreError
from vegamite_aggregator.service.verify import Compared, verify_market
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, SECOND, Micros, format_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.lifecycle import StartError, Stop
from vegamite_common.runtime.logging import escape
from vegamite_standalone.cluster_system import open_known_database
from vegamite_standalone.difference_table import DifferenceTable, PipeConsole, as_json
from vegamite_standalone.local_system import hold_used_directory, open_database
from vegamite_standalone.settings import ProcessSettings

APPLICATION = "vegamite-verify"


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What to compare: these markets (all, where none is named), days touched by [from_time, to_time), timeframes."""

    markets: Sequence[Market] = ()
    from_time: Micros | None = None
    to_time: Micros | None = None
    timeframes: frozenset[Timeframe] = frozenset(Timeframe)
    as_json: bool = False


@dataclass
class VerifyOutcome:
    """What was compared; `differing` has the days [from, to) of each market that differs.

    `done`: to the end. `unread`: whoever read the lines has had enough of them.
    """

    compared: Compared = field(default_factory=Compared)
    markets: int = 0
    differing: dict[Market, tuple[Micros, Micros]] = field(default_factory=dict)
    done: bool = False
    unread: bool = False


async def verify(
    target: ProcessSettings | AggregatorSettings,
    request: VerifyRequest,
    outcome: VerifyOutcome,
    stop: Stop,
) -> None:
    """Print every difference on stdout as it is found; `StartError` where the comparison can't be made."""
    async with _open_series(target) as store:
        try:
            await _verify_all(store, request, outcome, stop)
        except StoreError as error:
            raise StartError(f"the database gave up: {error}") from None
        except BrokenPipeError:
            outcome.unread = True
            return
    outcome.done = True


@asynccontextmanager
async def _open_series(
    target: ProcessSettings | AggregatorSettings,
) -> AsyncIterator[PostgresStoredSeries]:
    if isinstance(target, AggregatorSettings):
        async with open_known_database(target.postgres, name=APPLICATION) as pool:
            yield PostgresStoredSeries(pool)
        return
    async with (
        hold_used_directory(target.standalone.standalone) as directory,
        open_database(target.standalone, directory, migrate=False) as section,
        open_known_database(section, name=APPLICATION) as pool,
    ):
        yield PostgresStoredSeries(pool)


async def _verify_all(
    store: PostgresStoredSeries, request: VerifyRequest, outcome: VerifyOutcome, stop: Stop
) -> None:
    for market in request.markets:
        if not await store.known(market):
            raise StartError(f"there is no market {market.key} in this database")
    markets = list(dict.fromkeys(request.markets)) or await store.markets()
    scopes = {market: await _scope(store, market, request) for market in markets}
    out = PipeConsole()
    width = max([cell_len(escape(market.key)) for market in markets], default=0)
    table = DifferenceTable(out, market_width=width)
    watched = out if out.is_terminal and not request.as_json else Console(stderr=True)
    with VerifyBar(watched, scopes, outcome.compared) as bar:
        for market, scope in scopes.items():
            if scope is None:
                continue

            def reached(instant: Micros, market: Market = market) -> None:
                _check(stop)
                bar.reached(market, instant)

            differences = verify_market(
                store, market, scope, compared=outcome.compared, reached=reached
            )
            async for difference in differences:
                _widen(outcome.differing, market, difference)
                if request.as_json:
                    sys.stdout.write(f"{as_json(market, difference)}\n")
                    sys.stdout.flush()
                else:
                    table.add(market, difference)
    outcome.markets = len(markets)


async def _scope(
    store: PostgresStoredSeries, market: Market, request: VerifyRequest
) -> Scope | None:
    """Return what is to be compared of the market, in whole days; None where nothing is stored there."""
    extent = await store.extent(market)
    if extent is None:
        return None
    begin, end = extent
    if request.from_time is not None:
        begin = max(begin, request.from_time - request.from_time % DAY)
    if request.to_time is not None:
        end = min(end, request.to_time + -request.to_time % DAY)
    if begin >= end:
        return None
    return Scope(from_time=begin, to_time=end, timeframes=request.timeframes)


def _widen(
    differing: dict[Market, tuple[Micros, Micros]], market: Market, difference: Difference
) -> None:
    begin = difference.open_time - difference.open_time % DAY
    known = differing.get(market, (begin, begin + DAY))
    differing[market] = (min(known[0], begin), max(known[1], begin + DAY))


def _check(stop: Stop) -> None:
    if stop.requested:
        raise StartError("stopped before the end; of what was left nothing is said")


class VerifyBar:
    """How far the comparison is, in the time that the trades span, on a terminal; silent where nobody watches."""

    def __init__(
        self, console: Console, scopes: dict[Market, Scope | None], compared: Compared
    ) -> None:
        """Draw on `console` between `__enter__` and `__exit__`."""
        self._compared = compared
        self._begun = {
            market: scope.from_time for market, scope in scopes.items() if scope is not None
        }
        self._past: dict[Market, Micros] = dict.fromkeys(self._begun, 0)
        total = sum(
            scope.to_time - scope.from_time for scope in scopes.values() if scope is not None
        )
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[counted]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=False,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("verifying", total=total, counted="")

    def reached(self, market: Market, instant: Micros) -> None:
        """The market is compared up to `instant`."""
        self._past[market] = instant - self._begun[market]
        self._progress.update(
            self._task,
            description=escape(market.key),
            completed=sum(self._past.values()),
            counted=f"{self._compared.trades} trades",
        )

    def __enter__(self) -> "VerifyBar":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def summarise(outcome: VerifyOutcome) -> str:
    """Return what came of it, in one line."""
    compared = outcome.compared
    what = f"{_some(compared.trades, 'trade')}, {_some(compared.candles, 'candle')}"
    if not outcome.differing:
        return f"equal: {_some(outcome.markets, 'market')}, {what}"
    where = f"{len(outcome.differing)} of {_some(outcome.markets, 'market')}"
    return f"{_some(compared.differences, 'difference')} in {where}: {what}"


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def advise(outcome: VerifyOutcome, where: Sequence[str]) -> list[str]:
    """Return the commands that compute what differs again; `where` are the options that name the target."""
    lines = ["to compute them again:"]
    for market, (begin, end) in outcome.differing.items():
        words = ["vegamite", "rebuild", "--market", market.key]
        words += ["--from", _day(begin), "--to", _day(end), *where]
        lines.append(f"  {' '.join(words)}")
    return lines if outcome.differing else []


def _day(instant: Micros) -> str:
    return format_time(instant - instant % SECOND)[:10]
