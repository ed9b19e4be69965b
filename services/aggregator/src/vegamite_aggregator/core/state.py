"""What one partition's owner keeps in memory: a copy of committed rows, never ahead of them.

Of each market the owner always knows the coverage, what its gaps are, and when it has to look at a candle again. The
candles themselves are in memory while the market is busy; the least recently touched markets let theirs go, and what is
needed of them is read again on demand.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from vegamite_aggregator.core.allowance import SetApart
from vegamite_aggregator.core.candle_cache import FOREVER, NEVER, NOTHING, CandleCache
from vegamite_aggregator.core.demand import Loaded, Wants
from vegamite_aggregator.core.horizon import NOTHING_EXPIRED, Horizon
from vegamite_aggregator.core.rows import CandleKey, GapRow, Job, OpenSpan, SpanRow, StoredCandle
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe

if TYPE_CHECKING:
    from vegamite_aggregator.core.changes import Changes, MarketChanges


class MarketState:
    """One market in memory.

    `contract` (None for spot) and `history_from` (None while untracked) are reference data; assign them when it changes.
    `gaps`, by `from_time`, are the rows that are open or unfillable, and the filled ones that touch an open one; they were
    projected with `projected_from` as the start of tracking.

    `candles` are copies of stored rows, those that happen to be in memory. Of the others this is known: the open ones
    (neither final nor held by a job) end at or after `open_close_time`; the final, free and incomplete ones open before
    `incomplete_before`; none opens at or after `resident_from(timeframe)`; and `newest_event_time` is the greatest event
    time of the market's trades.
    """

    __slots__ = (
        "_cache",
        "contract",
        "coverage",
        "end_causes",
        "gaps",
        "history_from",
        "incomplete_before",
        "newest_event_time",
        "open_close_time",
        "projected_from",
    )

    def __init__(
        self,
        *,
        contract: Contract | None,
        history_from: Micros | None,
        coverage: Iterable[SpanRow] = (),
        gaps: Iterable[GapRow] = (),
        newest_event_time: Micros = FOREVER,
        open_close_time: Micros = NEVER,
    ) -> None:
        """Take what the store has: all coverage; gap rows, see above; no candles, but what is known of them.

        `newest_event_time` is `NEVER` for a market without candles, and `FOREVER` where it isn't known: then each candle is
        asked for. `open_close_time` is the least close time of those that are neither final nor held, `FOREVER` without
        any, and `NEVER` where it isn't known: then they are asked for at once.
        """
        rows = list(coverage)
        self.contract = contract
        self.history_from = history_from
        self.coverage = SpanSet(Span(row.from_time, row.to_time) for row in rows)
        self.end_causes = {row.to_time: row.end_cause for row in rows if row.end_cause is not None}
        self.projected_from: Micros | None = FOREVER
        self.gaps = {gap.from_time: gap for gap in gaps}
        self.newest_event_time = newest_event_time
        self.open_close_time = open_close_time
        self.incomplete_before = (
            newest_event_time if newest_event_time in (NEVER, FOREVER) else newest_event_time + 1
        )
        self._cache = NOTHING

    @property
    def candles(self) -> Mapping[CandleKey, StoredCandle]:
        """The rows in memory."""
        return self._cache.candles

    @property
    def unsettled(self) -> Mapping[CandleKey, Micros]:
        """Close times of those in memory that are neither final nor held by a job."""
        return self._cache.unsettled

    @property
    def incomplete(self) -> Iterable[CandleKey]:
        """Keys of those in memory that are final, held by no job, and not complete."""
        return self._cache.incomplete

    @property
    def unprojected(self) -> bool:
        """Whether the gaps have yet to be projected with the start of tracking as it is now."""
        return self.history_from is not None and self.history_from != self.projected_from

    def resident_from(self, timeframe: Timeframe) -> Micros:
        """Return the open time from which on every stored candle of the timeframe is in memory."""
        if self._cache is not NOTHING:
            return self._cache.resident_from[timeframe]
        newest = self.newest_event_time
        return newest if newest in (NEVER, FOREVER) else timeframe.open_time(newest) + 1

    def next_close(self) -> Micros:
        """Return an instant before which no candle ends that is neither final nor held; `FOREVER` where there is none."""
        return min(self.open_close_time, self._cache.next_close())

    def _own_cache(self) -> CandleCache:
        if self._cache is NOTHING:
            self._cache = CandleCache(
                {timeframe: self.resident_from(timeframe) for timeframe in Timeframe}
            )
        return self._cache

    def admit(self, rows: Iterable[StoredCandle]) -> None:
        """Take in all stored candles that are neither final nor held: committed rows, so this needs no commit."""
        rows = list(rows)
        if rows:
            cache = self._own_cache()
            for stored in rows:
                cache.keep(stored)
        self.open_close_time = FOREVER

    def apply(self, changes: "MarketChanges") -> None:
        """Take over what was committed."""
        if changes.candles:
            cache = self._own_cache()
            for stored in changes.candles:
                cache.keep(stored)
            if self.newest_event_time != FOREVER:
                newest = max(stored.candle.last_event_time for stored in changes.candles)
                self.newest_event_time = max(self.newest_event_time, newest)
        if self._cache is not NOTHING:
            for key in changes.candles_deleted:
                self._cache.drop(key)
            self._incomplete_left(self._cache.trim())
        if changes.coverage_after is not None:
            self.coverage = changes.coverage_after
            self.end_causes = dict(changes.end_causes_after)
        if changes.gaps_after is not None:
            self.gaps = dict(changes.gaps_after)
            self.projected_from = changes.projected_from

    def forget_candles(self) -> None:
        """Let every candle go; what a decision has to know of them stays."""
        self.open_close_time = self.next_close()
        self._incomplete_left(self._cache.incomplete)
        self._cache = NOTHING

    def _incomplete_left(self, keys: Iterable[CandleKey]) -> None:
        for _, open_time in keys:
            self.incomplete_before = max(self.incomplete_before, open_time + 1)


class PartitionState:
    """One partition in memory, as of its last committed step.

    `version` is the fence's, which each commit raises by one. `jobs` are those whose row says `open`. `markets` has every
    market of the partition that the store knows; one that a batch mentions first is loaded and put there before `prepare`.
    `horizons` has every market of the partition of which something expired, in `markets` or not; since a horizon moves only
    together with the fence's version, it holds as long as the state does.
    `set_apart` counts the latest dead letters.
    """

    __slots__ = (
        "_resident",
        "epoch",
        "horizons",
        "jobs",
        "last_append_time",
        "markets",
        "next_offset",
        "open_spans",
        "partition",
        "resident_candles",
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
        self.jobs = {job.job: job for job in jobs}
        self.markets: dict[Market, MarketState] = dict(markets or {})
        self.open_spans: dict[tuple[str, Market], OpenSpan] = {}
        for span in open_spans:
            reached = self.markets[span.market].coverage.reach(span.from_time)
            self.open_spans[span.writer, span.market] = replace(span, to_time=reached)
        self.set_apart = set_apart or SetApart()
        self.horizons: Mapping[Market, Horizon] = dict(horizons or {})
        self.resident_candles = 0
        # Markets with candles in memory, the least recently touched first.
        self._resident: dict[Market, None] = {}

    def horizon(self, market: Market) -> Horizon:
        """Return up to where the market's trades and candles have expired."""
        return self.horizons.get(market, NOTHING_EXPIRED)

    @property
    def resident_markets(self) -> int:
        """How many markets have candles in memory; `resident_candles` counts those."""
        return len(self._resident)

    def admit(self, wants: Wants, loaded: Loaded) -> None:
        """Take in the open candles that were wanted, as they are stored, before `decide`."""
        for asked in wants.open_candles:
            known = self.markets[asked.market]
            before = len(known.candles)
            known.admit(loaded.open_candles.get(asked.market, ()))
            self._touched(asked.market, len(known.candles) - before)

    def _touched(self, market: Market, more: int) -> None:
        self.resident_candles += more
        self._resident.pop(market, None)
        if self.markets[market].candles:
            self._resident[market] = None

    def apply(self, changes: "Changes") -> None:
        """Take over what was committed, and count the commit in `version`."""
        self.version += 1
        self.epoch = changes.epoch
        self.next_offset = changes.next_offset
        self.last_append_time = changes.last_append_time
        self.set_apart = changes.set_apart or self.set_apart
        for key in changes.open_spans_deleted:
            self.open_spans.pop(key, None)
        for span in (*changes.open_spans, *changes.open_spans_extended):
            self.open_spans[(span.writer, span.market)] = span
        for job in changes.jobs:
            if job.state == "open":
                self.jobs[job.job] = job
            else:
                self.jobs.pop(job.job, None)
        for market, market_changes in changes.markets.items():
            known = self.markets[market]
            before = len(known.candles)
            known.apply(market_changes)
            if market_changes.candles or market_changes.candles_deleted:
                self._touched(market, len(known.candles) - before)

    def evict(self, limit: int) -> int:
        """Forget the candles of the least recently touched markets until at most `limit` are left; return of how many markets."""
        evicted = 0
        while self.resident_candles > limit:
            market = next(iter(self._resident))
            known = self.markets[market]
            before = len(known.candles)
            known.forget_candles()
            self._touched(market, -before)
            evicted += 1
        return evicted


def due(state: PartitionState, *, log_time: Micros | None, timing: Timing) -> bool:
    """Return whether a step without records would change something: a job over or silent, a candle past its grace."""
    if log_time is None:
        return False
    if any(
        job_is_over(state, job, log_time=log_time, timing=timing) for job in state.jobs.values()
    ):
        return True
    limit = log_time - timing.grace
    return any(market.next_close() <= limit for market in state.markets.values())


def job_is_over(
    state: PartitionState, job: Job, *, log_time: Micros | None, timing: Timing
) -> bool:
    """Return whether the job said that it ended, or has been without records for longer than `timing` allows it.

    One that restores expired time may pause for longer: once it is over, what it brought may be dropped.
    """
    if job.ended_time is not None:
        return True
    if log_time is None:
        return False
    restoring = job.restores is not None and job.restores[0] < state.horizon(job.market).trades
    silence = timing.restore_silence if restoring else timing.job_silence
    return log_time - job.last_append_time > silence
