"""What a step has to read from the store because memory may lack it."""

from collections.abc import Mapping, Sequence

import msgspec

from vegamite_aggregator.core.fold import TradeFold
from vegamite_aggregator.core.rows import CandleKey, Job, StoredCandle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

RELEASE_LIMIT = 5_000
"""Most held candles of jobs that are over that one step takes from the store."""


class OpenCandles(msgspec.Struct, frozen=True):
    """The stored candles of a market that are neither final nor held by a job, and may not be in memory.

    Those end at or after `from_close` and open at or before `until_open`, so only some tables need a look; either may be
    far away. Others may come along.
    """

    market: Market
    from_close: Micros
    until_open: Micros


class IncompleteRange(msgspec.Struct, frozen=True):
    """Stored candles of one timeframe, final, not complete, held by no job, with from_time <= open_time < to_time."""

    market: Market
    timeframe: Timeframe
    from_time: Micros
    to_time: Micros


class RebuildRange(msgspec.Struct, frozen=True):
    """Whole days to compute again.

    To be loaded: all stored candles, of every timeframe, that open in [from_time, to_time); the `1d`, `3d`, `1w` and `1M`
    candles that open in [days_from, days_to), which contains it; and a `TradeFold(contract)` to which all stored trades
    of [from_time, to_time), those inserted in this step too, were added.

    Candles above a day are computed from days, so only those that open at or after `long_from`, where days begin to be
    stored; with `restored` moreover those alone that end in (from_time, to_time], since all before `to_time` is restored.
    """

    market: Market
    from_time: Micros
    to_time: Micros
    days_from: Micros
    days_to: Micros
    long_from: Micros
    restored: bool = False


class Wants(msgspec.Struct, frozen=True):
    """What to load: open candles of markets, candles by key (those not stored are left out), in ranges, and by the jobs
    that hold them.

    `released` are jobs that are over: any at most `release_limit` stored candles of the partition's markets with one of
    them in `held_by`. `jobs` are names of jobs whose rows, of whatever state, are to be loaded where they exist.
    """

    open_candles: Sequence[OpenCandles] = ()
    keys: Mapping[Market, Sequence[CandleKey]] = {}
    incomplete: Sequence[IncompleteRange] = ()
    released: frozenset[str] = frozenset()
    rebuilds: Sequence[RebuildRange] = ()
    jobs: frozenset[str] = frozenset()
    release_limit: int = RELEASE_LIMIT

    @property
    def empty(self) -> bool:
        """Whether nothing has to be loaded."""
        return not (
            self.open_candles
            or self.keys
            or self.incomplete
            or self.released
            or self.rebuilds
            or self.jobs
        )


class Loaded(msgspec.Struct, frozen=True):
    """What the store had of `Wants`: each market's candles together, once or more often, whatever asked for them.

    `open_candles` are those of `Wants.open_candles` alone: they go into memory before the decision.
    `release_rest`: more candles than were taken are held by the jobs in `released` (the limit was reached). `rebuilt`: the
    fold of each of `rebuilds`, in order.
    """

    candles: Mapping[Market, Sequence[StoredCandle]] = {}
    open_candles: Mapping[Market, Sequence[StoredCandle]] = {}
    release_rest: bool = False
    rebuilt: Sequence[TradeFold] = ()
    jobs: Sequence[Job] = ()

    @property
    def count(self) -> int:
        """How many candles were read."""
        return sum(map(len, self.candles.values())) + sum(map(len, self.open_candles.values()))
