"""Reads both sides of a market's candles and has them compared, page by page, hour by hour."""

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from vegamite_aggregator.core.fold import Series, TradeFold
from vegamite_aggregator.core.verification import (
    SHORT,
    Comparison,
    Difference,
    Scope,
    StoredState,
)
from vegamite_aggregator.ports import ImpossibleTrade, MarketSeries, StoredSeries
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, LATEST, Micros
from vegamite_common.domain.timeframe import Timeframe

TRADE_ROWS: Final = 20_000
CANDLE_ROWS: Final = 4_000
"""Rows of a page; more than an hour has seconds, so that each page ends an hour."""

PORTION: Final[Micros] = 366 * DAY
"""Most time that one snapshot is held for, and one transaction's locks (two for each day's trades) pile up over."""

Reached: TypeAlias = Callable[[Micros], None]
"""Is told up to which instant a market is compared."""


class Compared(msgspec.Struct):
    """How much was compared, and how many differences were found."""

    trades: int = 0
    candles: int = 0
    differences: int = 0


async def verify_market(
    store: StoredSeries, market: Market, scope: Scope, *, compared: Compared, reached: Reached
) -> AsyncIterator[Difference]:
    """Yield what differs between the market's stored candles and its stored trades, roughly in order of time.

    Each year is read in a snapshot of its own. Adds to `compared` as it goes; raises `StoreError`.
    """
    for begin in range(scope.from_time, scope.to_time, PORTION):
        portion = msgspec.structs.replace(
            scope,
            from_time=begin,
            to_time=min(begin + PORTION, scope.to_time),
            continued=begin > scope.from_time,
        )
        async with store.read(market, portion) as series:
            async for difference in _Reading(series, compared, reached).differences():
                compared.differences += 1
                yield difference


class _Trades:
    """The market's trades as far as they are read, folded to seconds."""

    def __init__(self, series: MarketSeries, compared: Compared) -> None:
        self._series = series
        self._fold = TradeFold(series.contract)
        self._compared = compared
        self.impossible: list[ImpossibleTrade] = []
        self.ready: Micros = series.scope.from_time

    async def pull(self) -> None:
        """Read a page."""
        page = await self._series.trades(TRADE_ROWS)
        if page.trades:
            self._fold.add(page.trades)
        self._compared.trades += len(page.trades)
        self.impossible += page.impossible
        last = max(
            (page.trades[-1].event_time if page.trades else 0),
            (page.impossible[-1].event_time if page.impossible else 0),
        )
        self.ready = last - last % HOUR if page.rest else LATEST

    def release(self, bound: Micros) -> Series:
        """Return the seconds before `bound`, once."""
        return self._fold.release(bound)


class _Candles:
    """One timeframe's stored candles, as far as they are read."""

    def __init__(self, series: MarketSeries, timeframe: Timeframe) -> None:
        self.timeframe = timeframe
        self._series = series
        self._rows: list[StoredState] = []
        self.ready: Micros = series.scope.read_from(timeframe)

    async def pull(self) -> None:
        """Read a page."""
        rows = await self._series.candles(self.timeframe, CANDLE_ROWS)
        self._rows += rows
        if len(rows) < CANDLE_ROWS:
            self.ready = LATEST
        else:
            last = rows[-1].open_time
            self.ready = last - last % HOUR if self.timeframe in SHORT else last

    def release(self, end: Micros) -> Sequence[StoredState]:
        """Return the candles that open before `end`, once."""
        at = bisect_left(self._rows, end, key=_open_time)
        released, self._rows = self._rows[:at], self._rows[at:]
        return released


def _open_time(row: StoredState) -> Micros:
    return row.open_time


class _Reading:
    """One snapshot's pass over a market."""

    def __init__(self, series: MarketSeries, compared: Compared, reached: Reached) -> None:
        self._scope = scope = series.scope
        self._compared = compared
        self._reached = reached
        self._comparison = Comparison(scope, series.coverage)
        self._trades = _Trades(series, compared)
        feeds = [_Candles(series, timeframe) for timeframe in self._comparison.needed]
        self._short = [feed for feed in feeds if feed.timeframe in SHORT]
        self._longer = [feed for feed in feeds if feed.timeframe not in SHORT]

    async def differences(self) -> AsyncIterator[Difference]:
        """Yield what differs, portion by portion."""
        bound = self._scope.from_time
        while bound < self._scope.to_time:
            bound = min(await self._read_beyond(bound), self._scope.to_time)
            for difference in await self._take(bound):
                yield difference
            self._reached(bound)
        if self._scope.days_to > bound:
            for difference in await self._take(self._scope.days_to):
                yield difference

    async def _read_beyond(self, bound: Micros) -> Micros:
        """Read until every short series is known beyond `bound`, and return up to where."""
        series: list[_Trades | _Candles] = [self._trades, *self._short]
        while True:
            slowest = min(series, key=lambda one: one.ready)
            if slowest.ready > bound:
                return slowest.ready
            await slowest.pull()

    async def _take(self, bound: Micros) -> list[Difference]:
        for feed in self._longer:
            while feed.ready < feed.timeframe.open_time(bound):
                await feed.pull()
        stored = {
            feed.timeframe: feed.release(feed.timeframe.open_time(bound))
            for feed in (*self._short, *self._longer)
        }
        before = self._comparison.candles
        found = self._comparison.take(bound, self._trades.release(bound), stored)
        self._compared.candles += self._comparison.candles - before
        impossible, self._trades.impossible = self._trades.impossible, []
        return [_of_trade(one) for one in impossible] + found


def _of_trade(trade: ImpossibleTrade) -> Difference:
    text = f"{trade.trade_id}: {trade.why}"
    return Difference(None, trade.event_time, "trade", text, None)
