"""What a step does to the candles of one market: content, finality, completeness, revision, and who holds them.

A candle that no open job holds is final once its interval is covered, or once T is past its end by the grace. A final candle
is revised when its content changed, or when its interval is covered only now. A job that is over holds nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from vegamite_aggregator.core.candle_cache import NEVER
from vegamite_aggregator.core.demand import Loaded, RebuildRange
from vegamite_aggregator.core.fold import TradeFold, roll_series
from vegamite_aggregator.core.plan import LONG, Delta, Plan
from vegamite_aggregator.core.publication import Told
from vegamite_aggregator.core.reason import reason_of, weightier
from vegamite_aggregator.core.rows import CandleKey, StoredCandle
from vegamite_aggregator.core.state import MarketState
from vegamite_aggregator.core.tally import (
    Standing,
    Tally,
    candle_of,
    merge,
    restated,
    tally_of,
)
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros
from vegamite_common.domain.timeframe import LENGTHS, Timeframe
from vegamite_common.messages.candles import ChangeType, RevisionReason

_UP_TO_A_DAY = [tf for tf in Timeframe if LENGTHS.get(tf, DAY + 1) <= DAY]


class _Verdict(NamedTuple):
    """What a candle is after the step, and what is told of it: `change` None where nothing is."""

    final: bool
    complete: bool
    revision: int
    change: ChangeType | None = None
    reason: RevisionReason | None = None


def _long_range(asked: RebuildRange, timeframe: Timeframe) -> tuple[Micros, Micros]:
    """Return between which open times candles above a day are computed again from their days; may be empty."""
    first = timeframe.open_time(asked.from_time)
    if first < asked.long_from:
        first = timeframe.close_time(first)
    if asked.restored:
        return first, timeframe.open_time(asked.to_time)
    return first, timeframe.close_time(timeframe.open_time(asked.to_time - 1))


class Settlement:
    """One market's candles in one step; afterwards its attributes say what became of them. Within `exactly()`."""

    def __init__(
        self,
        market: Market,
        state: MarketState,
        *,
        plan: Plan,
        loaded: Loaded,
        coverage: SpanSet,
        epoch: int,
        now: Micros,
    ) -> None:
        self.changed: dict[CandleKey, StoredCandle] = {}
        self.new: set[CandleKey] = set()  # of those changed, what the store doesn't have
        self.deleted: set[CandleKey] = set()
        self.told: list[Told] = []
        self.streamed: list[Candle] = []
        self.corrected: list[tuple[Timeframe, Micros, Micros]] = []
        self.late = 0
        self._settled: set[CandleKey] = set()
        self._state = state
        self._plan = plan
        self._deltas: Mapping[CandleKey, Delta] = plan.deltas.get(market, {})
        self._loaded = {stored.key: stored for stored in loaded.candles.get(market, ())}
        self._exact: dict[CandleKey, Tally] = {}
        self._exact_reason: RevisionReason = "correction"
        self._lost: set[CandleKey] = set()  # in memory, but found missing in the store
        self._coverage = coverage
        self._standing = Standing(epoch=epoch, as_of=plan.intake.next_offset - 1, updated_at=now)
        self._past = NEVER if plan.log_time is None else plan.log_time - plan.timing.grace

    def settle(self, *, newly_covered: bool) -> None:
        """Decide every candle that the step touched or loaded, or that still waits for its end or for coverage.

        `newly_covered`: the market's coverage grew in this step.
        """
        keys = dict.fromkeys(self._deltas)
        keys.update(dict.fromkeys(self._loaded))
        keys.update(dict.fromkeys(self._state.unsettled))
        if newly_covered:
            keys.update(dict.fromkeys(self._state.incomplete))
        for key in keys:
            if key not in self._settled:
                self._settle(key)

    def rebuild(self, asked: RebuildRange, fold: TradeFold) -> None:
        """Decide the candles of whole days by all their stored trades; before `settle`."""
        totals = fold.total()
        self._exact_reason = "import" if asked.restored else "correction"
        self._lost |= {
            key
            for key in self._state.candles
            if asked.from_time <= key[1] < asked.to_time and key not in self._loaded
        }
        for timeframe in _UP_TO_A_DAY:
            self._replace(timeframe, totals[timeframe], asked.from_time, asked.to_time)
        for key in self._deltas:
            # Days beside the asked ones are parts of the same longer candles.
            beside = key[0] is Timeframe.D1 and asked.days_from <= key[1] < asked.days_to
            beside = beside and not asked.restored
            if beside and key not in self._settled:
                self._settle(key)
        days = {
            open_time: tally_of(stored.candle)
            for open_time in range(asked.days_from, asked.days_to, DAY)
            if (stored := self._find((Timeframe.D1, open_time))) is not None
        }
        for timeframe in LONG:
            first, end = _long_range(asked, timeframe)
            inside = {at: tally for at, tally in days.items() if first <= at < end}
            self._replace(timeframe, roll_series(inside, timeframe), first, end)

    def _replace(
        self,
        timeframe: Timeframe,
        series: Mapping[Micros, Tally],
        from_time: Micros,
        to_time: Micros,
    ) -> None:
        for open_time, tally in series.items():
            key = (timeframe, open_time)
            self._exact[key] = tally
            self._settle(key)
        gone = [
            key
            for key in {*self._loaded, *self._state.candles}
            if key[0] is timeframe and from_time <= key[1] < to_time and key[1] not in series
        ]
        if gone:
            self.deleted.update(gone)
            self._settled.update(gone)
            self.corrected.append((timeframe, from_time, to_time))

    def _find(self, key: CandleKey) -> StoredCandle | None:
        if key in self.deleted:
            return None
        # What was loaded in this step is the row itself; memory is a copy of it.
        found = self.changed.get(key) or self._loaded.get(key)
        if found is None and key not in self._lost:
            found = self._state.candles.get(key)
        return found

    def _settle(self, key: CandleKey) -> None:
        self._settled.add(key)
        stored = self._find(key)
        delta = self._deltas.get(key)
        tally, reason = self._content(key, stored, delta)
        if stored is None:
            if tally is not None:
                self._settle_new(key, tally, frozenset() if delta is None else delta.jobs)
            return
        old = stored.candle
        held = frozenset(stored.held_by)
        if delta is not None:
            held |= delta.jobs
            if old.final and key[0] is Timeframe.S1 and not delta.jobs:
                self.late += delta.tally.trade_count
        pending = weightier(stored.pending, reason) if old.final else None
        verdict = self._verdict(key, held, pending, old)
        held_by = self._holders(held)
        candle = old
        if tally is not None or verdict.change is not None:
            standing = self._standing_of(verdict)
            candle = (
                candle_of(*key, tally, standing) if tally is not None else restated(old, standing)
            )
        if candle is not old or held_by != stored.held_by:
            self._put(StoredCandle(candle, held_by, pending if held_by else None), verdict)
            if tally is not None:
                self._stream(candle, held_by)

    def _settle_new(self, key: CandleKey, tally: Tally, held: frozenset[str]) -> None:
        verdict = self._verdict(key, held, None, None)
        candle = candle_of(*key, tally, self._standing_of(verdict))
        held_by = self._holders(held)
        self.new.add(key)
        self._put(StoredCandle(candle, held_by), verdict)
        self._stream(candle, held_by)

    def _content(
        self, key: CandleKey, stored: StoredCandle | None, delta: Delta | None
    ) -> tuple[Tally | None, RevisionReason | None]:
        """Return what the candle's trades add up to now, and why that differs; Nones where it doesn't."""
        exact = self._exact.get(key)
        if exact is not None:
            if stored is not None and tally_of(stored.candle) == exact:
                return None, None
            return exact, delta.reason if delta is not None else self._exact_reason
        if delta is None:
            return None, None
        if stored is None:
            return delta.tally, delta.reason
        return merge(tally_of(stored.candle), delta.tally), delta.reason

    def _holders(self, held: frozenset[str]) -> tuple[str, ...]:
        return tuple(sorted(held - self._plan.over)) if held else ()

    def _verdict(
        self,
        key: CandleKey,
        held: frozenset[str],
        pending: RevisionReason | None,
        old: Candle | None,
    ) -> _Verdict:
        """Return what the candle is after the step, given the jobs that held it or that touched it now."""
        final, complete, revision = (
            (False, False, 0) if old is None else (old.final, old.complete, old.revision)
        )
        if held - self._plan.over:
            return _Verdict(final, complete, revision)
        close_time = key[0].close_time(key[1])
        covered = self._coverage.covers(key[1], close_time)
        change: ChangeType | None = None
        reason: RevisionReason | None = None
        if not final and (covered or close_time <= self._past):
            final, complete, change, reason = True, covered, "final", self._held_reason(held)
        elif final and (pending is not None or (covered and not complete)):
            complete, revision, change = covered, revision + 1, "revision"
            reason = pending or "coverage"
        elif final and complete and not covered and key in self._exact:
            # Coverage is never taken back: somebody else said so, and a rebuild takes nothing on trust.
            complete, revision, change = False, revision + 1, "revision"
            reason = self._exact_reason
        return _Verdict(final, complete, revision, change, reason)

    def _standing_of(self, verdict: _Verdict) -> Standing:
        step = self._standing
        return Standing(
            step.epoch,
            step.as_of,
            step.updated_at,
            verdict.final,
            verdict.complete,
            verdict.revision,
        )

    def _put(self, stored: StoredCandle, verdict: _Verdict) -> None:
        self.changed[stored.key] = stored
        if verdict.change is not None:
            bulk = verdict.change == "revision" or verdict.reason is not None
            self.told.append(Told(stored.candle, verdict.change, verdict.reason, bulk=bulk))

    def _stream(self, candle: Candle, held_by: tuple[str, ...]) -> None:
        """Have a changed candle in progress streamed; a job's history is nobody's progress."""
        if not candle.final and (not held_by or candle.close_time > self._past):
            self.streamed.append(candle)

    def _held_reason(self, held: frozenset[str]) -> RevisionReason | None:
        reason: RevisionReason | None = None
        for name in held:
            job = self._plan.ledger.jobs.get(name)
            if job is not None:
                reason = weightier(reason, reason_of(job.origin, name))
        return reason
