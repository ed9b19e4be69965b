"""What one partition's owner keeps in memory: a copy of committed rows, never ahead of them."""

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import GapState, SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin
from vegamite_common.messages.candles import RevisionReason

CandleKey: TypeAlias = tuple[Timeframe, Micros]
"""(timeframe, open_time): a candle's key inside its market."""

NEVER: Micros = -(2**62)
"""Before every instant."""


class StoredCandle(msgspec.Struct, frozen=True, gc=False):
    """A row of `candle`: the published state, the open jobs that hold it back, and why it waits to be revised.

    `pending` is set only while the candle is final and held: its content changed and no revision said so yet.
    """

    candle: Candle
    held_by: tuple[str, ...] = ()
    pending: RevisionReason | None = None

    @property
    def key(self) -> CandleKey:
        """(timeframe, open_time)."""
        return (self.candle.timeframe, self.candle.open_time)


class OpenSpan(msgspec.Struct, frozen=True):
    """A row of `open_span`: coverage that a writer's heartbeats extend; empty while `to_time` equals `from_time`."""

    writer: str
    market: Market
    from_time: Micros
    to_time: Micros


class Job(msgspec.Struct, frozen=True):
    """A row of `job`; times in microseconds, append times of the log where nothing else is said.

    `state` is `open`, `ended` (it said so) or `silent`. An open job with `ended_time` set (our clock) is over but still
    holds candles that later steps release, a portion each. `trades` counts its trades that were stored.
    """

    job: str
    market: Market
    origin: Origin
    state: str
    opened_time: Micros
    last_append_time: Micros
    ended_time: Micros | None = None
    trades: int = 0


class GapRow(msgspec.Struct, frozen=True):
    """A row of `gap`: a hole between spans, or what became of it; times in microseconds."""

    from_time: Micros
    to_time: Micros
    cause: str
    state: GapState
    opened_time: Micros
    reason: str | None = None
    recovered: int = 0
    closed_time: Micros | None = None


class SpanRow(msgspec.Struct, frozen=True):
    """A row of `coverage_span`; `end_cause` says why coverage ended at `to_time`, where a writer said so."""

    from_time: Micros
    to_time: Micros
    end_cause: str | None = None


class MarketState:
    """One market in memory.

    `contract` (None for spot) and `history_from` (None while untracked) come from reference data; set them by
    `describe`. `candles` is a cache with two promises, kept by `apply` and `evict`: it holds every stored candle that is
    neither final nor held by a job, and every stored candle of a timeframe whose open time is at or after
    `resident_from[timeframe]`. `gaps` holds the rows that are open or unfillable, and the filled ones that touch an open one.
    """

    __slots__ = (
        "candles",
        "contract",
        "coverage",
        "end_causes",
        "gaps",
        "history_from",
        "next_close",
        "resident_from",
    )

    def __init__(
        self,
        *,
        contract: Contract | None,
        history_from: Micros | None,
        coverage: Iterable[SpanRow] = (),
        gaps: Iterable[GapRow] = (),
        candles: Iterable[StoredCandle] = (),
        newest_open: dict[Timeframe, Micros] | None = None,
    ) -> None:
        """Take what the store has: all coverage; gap rows, see above; at least all candles neither final nor held.

        `newest_open` is the greatest stored open time of each timeframe that has a candle, held and final ones too; where
        it isn't known (None) every candle that is not in memory is asked for.
        """


class PartitionState:
    """One partition in memory, as of its last committed step.

    `version` is the fence's, raised by the caller at each commit. `markets` has every market of the partition that the
    store knows; a market that a batch mentions first is loaded and put there before `needed`.
    """

    __slots__ = (
        "epoch",
        "jobs",
        "last_append_time",
        "markets",
        "next_offset",
        "open_spans",
        "partition",
        "version",
    )

    partition: int
    epoch: int
    version: int
    next_offset: int
    last_append_time: Micros | None
    open_spans: dict[tuple[str, Market], OpenSpan]
    jobs: dict[str, Job]
    markets: dict[Market, MarketState]
