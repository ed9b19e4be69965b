"""What is known of the points that InfluxDB holds: a bounded memory, and what has to be read because it isn't in there.

A series is a market, or a market and a timeframe. Of each one it is known up to what time it may hold points (`newest`):
nothing later needs to be asked for. What is earlier, and not in memory, is asked for in windows of time.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Generic, TypeAlias, TypeVar

import msgspec

from vegamite_aggregator.core.point import home_of
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

Series: TypeAlias = tuple[Market, Timeframe | None]
"""Trades of a market (no timeframe), or its candles of one."""


class Slots(dict[str, int]):
    """The ids (as points have them) of the trades of one market and microsecond, with their slots."""

    __slots__ = ("_homes",)

    def __init__(self, slots: Mapping[str, int] | None = None) -> None:
        """Take what is known already."""
        super().__init__(slots or {})
        self._homes: dict[int, _Home] | None = None

    def take(self, trade_id: str) -> int:
        """Give an id that has none the least slot that no other id of its home has, and return it.

        The time that takes doesn't grow with the ids: venues whose clock has seconds have thousands in one instant.
        """
        if self._homes is None:
            self._homes = {}
            for other, slot in self.items():
                self._homes.setdefault(home_of(other), _Home()).taken.add(slot)
        home = self._homes.setdefault(home_of(trade_id), _Home())
        while home.least in home.taken:
            home.least += 1
        home.taken.add(home.least)
        super().__setitem__(trade_id, home.least)
        return home.least

    def __setitem__(self, trade_id: str, slot: int) -> None:
        """Note the slot that an id has."""
        self._homes = None
        super().__setitem__(trade_id, slot)


class _Home:
    """The slots of one home that are taken; below `least` all are."""

    __slots__ = ("least", "taken")

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.least = 0


EntryT = TypeVar("EntryT")


class Window(msgspec.Struct, frozen=True):
    """A question: what of these series is there from `first` to `last`, both inclusive?"""

    timeframe: Timeframe | None
    markets: tuple[Market, ...]
    first: Micros
    last: Micros


class Written(Generic[EntryT]):
    """What is known of points, by series and time; forgets those that were used longest ago."""

    def __init__(self, *, limit: int) -> None:
        """Remember at most so many times of all series together."""
        self._limit = limit
        self._entries: OrderedDict[tuple[Series, Micros], EntryT] = OrderedDict()
        self._newest: dict[Market, dict[Timeframe | None, Micros]] = {}
        self._asked_from: dict[Market, Micros] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def strangers(self, markets: Iterable[Market]) -> set[Market]:
        """Return those of the markets of which not even the newest points' times are known."""
        return {market for market in markets if market not in self._newest}

    def introduce(
        self, market: Market, newest: Mapping[Timeframe | None, Micros], *, asked_from: Micros
    ) -> None:
        """Take the newest times of a market's series; a series left out holds nothing from `asked_from` on."""
        self._newest[market] = dict(newest)
        self._asked_from[market] = asked_from

    def unknown(self, wanted: Mapping[Series, Iterable[Micros]]) -> dict[Series, set[Micros]]:
        """Return the times at which series of known markets may hold a point that isn't in memory."""
        found: dict[Series, set[Micros]] = {}
        for series, times in wanted.items():
            market, timeframe = series
            newest = self._newest[market].get(timeframe, self._asked_from[market] - 1)
            missing = {
                time for time in times if time <= newest and (series, time) not in self._entries
            }
            if missing:
                found[series] = missing
        return found

    def get(self, series: Series, time: Micros) -> EntryT | None:
        """Return what is known of a time, and keep it longer for that."""
        entry = self._entries.get((series, time))
        if entry is not None:
            self._entries.move_to_end((series, time))
        return entry

    def put(self, series: Series, time: Micros, entry: EntryT) -> None:
        """Remember what a time holds, now or as soon as it is written."""
        self._entries[(series, time)] = entry
        self._entries.move_to_end((series, time))
        market, timeframe = series
        newest = self._newest[market]
        if time > newest.get(timeframe, self._asked_from[market] - 1):
            newest[timeframe] = time

    def shrink(self, *, keep: int) -> None:
        """Forget what is too much, but none of the last `keep`: they may not be written yet."""
        limit = max(self._limit, keep)
        while len(self._entries) > limit:
            self._entries.popitem(last=False)

    def forget(self, markets: Collection[Market]) -> None:
        """Forget markets: somebody else writes them now."""
        for market in markets:
            self._newest.pop(market, None)
            self._asked_from.pop(market, None)
        gone = set(markets)
        for key in [key for key in self._entries if key[0][0] in gone]:
            del self._entries[key]


def windows(
    unknown: Mapping[Series, Iterable[Micros]], *, gap: Mapping[Timeframe | None, Micros], most: int
) -> list[Window]:
    """Return the questions that find all of these times: few, but none longer than what is between near neighbours.

    Times of one timeframe further apart than its `gap` are asked for apart; a question names at most `most` markets.
    """
    asked: list[Window] = []
    by_timeframe: dict[Timeframe | None, list[tuple[Micros, Market]]] = {}
    for (market, timeframe), times in unknown.items():
        by_timeframe.setdefault(timeframe, []).extend((time, market) for time in times)
    for timeframe, pairs in by_timeframe.items():
        pairs.sort()
        start = 0
        for at in range(1, len(pairs) + 1):
            if at < len(pairs) and pairs[at][0] - pairs[at - 1][0] <= gap[timeframe]:
                continue
            markets = sorted({market for _, market in pairs[start:at]})
            asked += [
                Window(timeframe, tuple(markets[i : i + most]), pairs[start][0], pairs[at - 1][0])
                for i in range(0, len(markets), most)
            ]
            start = at
    return asked
