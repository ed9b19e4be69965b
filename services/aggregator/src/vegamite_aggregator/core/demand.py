"""What a step has to read from the store because memory may lack it."""

from collections.abc import Mapping, Sequence

import msgspec

from vegamite_aggregator.core.state import CandleKey, StoredCandle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

RELEASE_LIMIT = 20_000
"""Most held candles of ended jobs that one step takes from the store."""


class IncompleteRange(msgspec.Struct, frozen=True):
    """Stored candles that are final, not complete, held by no job, with open_time >= from_time and < to_time."""

    market: Market
    timeframe: Timeframe
    from_time: Micros
    to_time: Micros


class RebuildRange(msgspec.Struct, frozen=True):
    """Whole days to compute again: all stored trades in [from_time, to_time), all stored candles opening there, and
    the `1d` candles opening in [days_from, days_to) with the `3d`, `1w` and `1M` candles opening there.
    """

    market: Market
    from_time: Micros
    to_time: Micros
    days_from: Micros
    days_to: Micros


class Wants(msgspec.Struct, frozen=True):
    """What to load: candles by key (those not stored are left out), in ranges, and by the jobs that hold them.

    `released` are jobs that are over: any at most `release_limit` stored candles with one of them in `held_by`.
    """

    keys: Mapping[Market, Sequence[CandleKey]]
    incomplete: Sequence[IncompleteRange]
    released: frozenset[str]
    rebuilds: Sequence[RebuildRange]
    release_limit: int = RELEASE_LIMIT

    @property
    def empty(self) -> bool:
        """Whether nothing has to be loaded."""
        return not (self.keys or self.incomplete or self.released or self.rebuilds)


class Loaded(msgspec.Struct, frozen=True):
    """What the store had of `Wants`, each market's candles together, whatever they were asked for by.

    `release_rest`: more candles are held by the jobs in `released` than were taken (the limit was reached).
    `rebuilt`: for each of `rebuilds`, in order, a `TradeFold` to which all stored trades of the range were added.
    """

    candles: Mapping[Market, Sequence[StoredCandle]]
    release_rest: bool = False
    rebuilt: Sequence[object] = ()
