"""What one partition's owner keeps in memory: a copy of committed rows, never ahead of them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vegamite_aggregator.core.allowance import SetApart
from vegamite_aggregator.core.horizon import NOTHING_EXPIRED, Horizon
from vegamite_aggregator.core.rows import CandleKey, GapRow, Job, OpenSpan, SpanRow, StoredCandle
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

if TYPE_CHECKING:
    from vegamite_aggregator.core.changes import Changes, MarketChanges

NEVER: Micros = -(2**62)
"""Before every instant."""

FOREVER: Micros = 2**62
"""After every instant."""

KEPT_SECONDS = 64
"""How many `1s` candles of a market stay in memory; a minute's, so that late trades mostly find theirs."""

KEPT_OTHERS = 4
"""How many candles of each longer timeframe of a market stay in memory."""


class MarketState:
    """One market in memory.

    `contract` (None for spot) and `history_from` (None while untracked) are reference data; assign them when it changes.
    `candles` is a cache with two promises: it holds every stored candle that is neither final nor held by a job, and every
    stored candle of a timeframe whose open time is at or after `resident_from[timeframe]`. `unsettled` are the keys, with
    close times, of the former, `incomplete` the keys of those held by no job, final, but not complete. `gaps`, by
    `from_time`, are the rows that are open or unfillable, and the filled ones that touch an open one; they were projected
    with `projected_from` as the start of tracking.
    """

    __slots__ = (
        "candles",
        "contract",
        "coverage",
        "end_causes",
        "gaps",
        "history_from",
        "incomplete",
        "projected_from",
        "resident_from",
        "unsettled",
    )

    def __init__(
        self,
        *,
        contract: Contract | None,
        history_from: Micros | None,
        coverage: Iterable[SpanRow] = (),
        gaps: Iterable[GapRow] = (),
        candles: Iterable[StoredCandle] = (),
        newest_open: Mapping[Timeframe, Micros] | None = None,
    ) -> None:
        """Take what the store has: all coverage; gap rows, see above; at least all candles neither final nor held.

        `newest_open` is the greatest stored open time of each timeframe that has a candle, held and final ones too; where
        it isn't known (None) every candle that is not in memory is asked for.
        """
        rows = list(coverage)
        self.contract = contract
        self.history_from = history_from
        self.coverage = SpanSet(Span(row.from_time, row.to_time) for row in rows)
        self.end_causes = {row.to_time: row.end_cause for row in rows if row.end_cause is not None}
        self.projected_from: Micros | None = FOREVER
        self.gaps = {gap.from_time: gap for gap in gaps}
        self.candles: dict[CandleKey, StoredCandle] = {}
        self.unsettled: dict[CandleKey, Micros] = {}
        self.incomplete: set[CandleKey] = set()
        if newest_open is None:
            self.resident_from = dict.fromkeys(Timeframe, FOREVER)
        else:
            self.resident_from = {
                timeframe: newest_open.get(timeframe, NEVER - 1) + 1 for timeframe in Timeframe
            }
        for stored in candles:
            self._keep(stored)

    def _keep(self, stored: StoredCandle) -> None:
        key = stored.key
        candle = stored.candle
        self.candles[key] = stored
        self.unsettled.pop(key, None)
        self.incomplete.discard(key)
        if not stored.held_by and not candle.final:
            self.unsettled[key] = candle.close_time
        elif not stored.held_by and not candle.complete:
            self.incomplete.add(key)

    def _drop(self, key: CandleKey) -> None:
        self.candles.pop(key, None)
        self.unsettled.pop(key, None)
        self.incomplete.discard(key)

    def next_close(self) -> Micros:
        """Return the earliest end of a candle that is neither final nor held; `FOREVER` where there is none."""
        return min(self.unsettled.values(), default=FOREVER)

    def apply(self, changes: "MarketChanges") -> None:
        """Take over what was committed."""
        for stored in changes.candles:
            self._keep(stored)
        for key in changes.candles_deleted:
            self._drop(key)
        if changes.coverage_after is not None:
            self.coverage = changes.coverage_after
            self.end_causes = dict(changes.end_causes_after)
        if changes.gaps_after is not None:
            self.gaps = dict(changes.gaps_after)
            self.projected_from = changes.projected_from

    def evict(self) -> None:
        """Forget all but the newest candles of each timeframe; never one that is neither final nor held."""
        if len(self.candles) - len(self.unsettled) <= 2 * (KEPT_SECONDS + 15 * KEPT_OTHERS):
            return
        open_times: dict[Timeframe, list[Micros]] = {}
        for timeframe, open_time in self.candles:
            open_times.setdefault(timeframe, []).append(open_time)
        for timeframe, times in open_times.items():
            kept = KEPT_SECONDS if timeframe is Timeframe.S1 else KEPT_OTHERS
            for open_time in sorted(times)[:-kept]:
                key = (timeframe, open_time)
                if key not in self.unsettled:
                    self._drop(key)
                    self.resident_from[timeframe] = max(
                        self.resident_from[timeframe], open_time + 1
                    )


class PartitionState:
    """One partition in memory, as of its last committed step.

    `version` is the fence's, which each commit raises by one. `jobs` are those whose row says `open`. `markets` has every
    market of the partition that the store knows; one that a batch mentions first is loaded and put there before `prepare`.
    `horizons` has every market of the partition of which something expired, in `markets` or not; since a horizon moves only
    together with the fence's version, it holds as long as the state does.
    `set_apart` counts the latest dead letters.
    """

    __slots__ = (
        "epoch",
        "horizons",
        "jobs",
        "last_append_time",
        "markets",
        "next_offset",
        "open_spans",
        "partition",
        "set_apart",
        "version",
    )

    def __init__(
        self,
        *,
        partition: int,
        epoch: int,
        version: int,
        next_offset: int,
        last_append_time: Micros | None,
        open_spans: Iterable[OpenSpan] = (),
        jobs: Iterable[Job] = (),
        markets: Mapping[Market, MarketState] | None = None,
        horizons: Mapping[Market, Horizon] | None = None,
        set_apart: SetApart | None = None,
    ) -> None:
        """Take the fence row and the partition's rows of `open_span`, `job` (open ones) and `horizon`."""
        self.partition = partition
        self.epoch = epoch
        self.version = version
        self.next_offset = next_offset
        self.last_append_time = last_append_time
        self.open_spans = {(span.writer, span.market): span for span in open_spans}
        self.jobs = {job.job: job for job in jobs}
        self.markets: dict[Market, MarketState] = dict(markets or {})
        self.set_apart = set_apart or SetApart()
        self.horizons: Mapping[Market, Horizon] = dict(horizons or {})

    def horizon(self, market: Market) -> Horizon:
        """Return up to where the market's trades and candles have expired."""
        return self.horizons.get(market, NOTHING_EXPIRED)

    def apply(self, changes: "Changes") -> None:
        """Take over what was committed, and count the commit in `version`."""
        self.version += 1
        self.epoch = changes.epoch
        self.next_offset = changes.next_offset
        self.last_append_time = changes.last_append_time
        self.set_apart = changes.set_apart or self.set_apart
        for key in changes.open_spans_deleted:
            self.open_spans.pop(key, None)
        for span in changes.open_spans:
            self.open_spans[(span.writer, span.market)] = span
        for job in changes.jobs:
            if job.state == "open":
                self.jobs[job.job] = job
            else:
                self.jobs.pop(job.job, None)
        for market, market_changes in changes.markets.items():
            self.markets[market].apply(market_changes)

    def evict(self) -> None:
        """Forget final and held candles that are not among their market's newest; they are loaded again on need."""
        for market in self.markets.values():
            market.evict()


def due(state: PartitionState, *, log_time: Micros | None, timing: Timing) -> bool:
    """Return whether a step without records would change something: a job over or silent, a candle past its grace."""
    if log_time is None:
        return False
    if any(job_is_over(job, log_time=log_time, timing=timing) for job in state.jobs.values()):
        return True
    limit = log_time - timing.grace
    return any(market.next_close() <= limit for market in state.markets.values())


def job_is_over(job: Job, *, log_time: Micros | None, timing: Timing) -> bool:
    """Return whether the job said that it ended, or has been without records for longer than `timing.job_silence`."""
    if job.ended_time is not None:
        return True
    return log_time is not None and log_time - job.last_append_time > timing.job_silence
