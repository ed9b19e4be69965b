"""What a step does to the candles of one market: content, finality, completeness, revision, and who holds them.

A candle that no open job holds is final once its interval is covered, or once T is past its end by the grace. A final candle
is revised when its content changed, or when its interval is covered only now. A job that is over holds nothing.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from vegamite_aggregator.core.demand import Loaded, RebuildRange
from vegamite_aggregator.core.fold import TradeFold, roll_series
from vegamite_aggregator.core.plan import LONG, Delta, Plan
from vegamite_aggregator.core.publication import Told
from vegamite_aggregator.core.reason import reason_of, weightier
from vegamite_aggregator.core.rows import CandleKey, StoredCandle
from vegamite_aggregator.core.state import NEVER, MarketState
from vegamite_aggregator.core.tally import Standing, Tally, candle_of, merge, tally_of
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, Micros
from vegamite_common.domain.timeframe import LENGTHS, Timeframe
from vegamite_common.messages.candles import RevisionReason

_UP_TO_A_DAY = [tf for tf in Timeframe if LENGTHS.get(tf, DAY + 1) <= DAY]


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
        self.deleted: list[CandleKey] = []
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
        for timeframe in _UP_TO_A_DAY:
            self._replace(timeframe, totals[timeframe], asked.from_time, asked.to_time)
        for key in self._deltas:
            # Days beside the asked ones are parts of the same longer candles.
            beside = key[0] is Timeframe.D1 and asked.days_from <= key[1] < asked.days_to
            if beside and key not in self._settled:
                self._settle(key)
        days = {
            open_time: tally_of(stored.candle)
            for open_time in range(asked.days_from, asked.days_to, DAY)
            if (stored := self._find((Timeframe.D1, open_time))) is not None
        }
        for timeframe in LONG:
            first = timeframe.open_time(asked.from_time)
            end = timeframe.close_time(timeframe.open_time(asked.to_time - 1))
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
            self.deleted += gone
            self._settled.update(gone)
            self.corrected.append((timeframe, from_time, to_time))

    def _find(self, key: CandleKey) -> StoredCandle | None:
        if key in self.deleted:
            return None
        return self.changed.get(key) or self._state.candles.get(key) or self._loaded.get(key)

    def _settle(self, key: CandleKey) -> None:
        self._settled.add(key)
        stored = self._find(key)
        delta = self._deltas.get(key)
        candle, reason = self._content(key, stored, delta)
        if candle is None:
            return
        before = stored.candle if stored is not None else None
        held_before = stored.held_by if stored is not None else ()
        held = set(held_before)
        if delta is not None:
            held |= delta.jobs
            if before is not None and before.final and key[0] is Timeframe.S1 and not delta.jobs:
                self.late += delta.tally.trade_count
        held_by = tuple(sorted(held - self._plan.over))
        pending = stored.pending if stored is not None else None
        if candle.final and reason is not None:
            pending = weightier(pending, reason)
        if not held_by:
            candle, pending = self._decide(candle, pending, released=held - set(held_by))
        if stored is None or (candle, held_by, pending) != (before, held_before, stored.pending):
            self.changed[key] = StoredCandle(candle, held_by, pending)
        if (
            candle is not before
            and not candle.final
            and (not held_by or candle.close_time > self._past)
        ):
            self.streamed.append(candle)

    def _content(
        self, key: CandleKey, stored: StoredCandle | None, delta: Delta | None
    ) -> tuple[Candle | None, RevisionReason | None]:
        """Return the candle with the step's content, not yet decided, and why its content changed, if it did."""
        exact = self._exact.get(key)
        if stored is None:
            tally = exact or (delta.tally if delta is not None else None)
            return (None if tally is None else candle_of(*key, tally, self._standing)), None
        reason: RevisionReason | None = delta.reason if delta is not None else None
        if exact is not None:
            tally = exact
            reason = reason or "correction"
        elif delta is not None:
            tally = merge(tally_of(stored.candle), delta.tally)
        else:
            return stored.candle, None
        old = stored.candle
        standing = replace(
            self._standing, final=old.final, complete=old.complete, revision=old.revision
        )
        candle = candle_of(*key, tally, standing)
        if exact is not None and tally_of(candle) == tally_of(old):
            return old, None
        return candle, reason

    def _decide(
        self, candle: Candle, pending: RevisionReason | None, *, released: Iterable[str]
    ) -> tuple[Candle, RevisionReason | None]:
        """Return the candle that no open job holds, final or revised where it is due, and why it still waits (never)."""
        covered = self._coverage.covers(candle.open_time, candle.close_time)
        if not candle.final:
            if not covered and candle.close_time > self._past:
                return candle, None
            candle = self._mark(candle, complete=covered, revision=0)
            reason = self._held_reason(released)
            self.told.append(Told(candle, "final", reason, bulk=reason is not None))
        elif pending is not None or (covered and not candle.complete):
            candle = self._mark(candle, complete=covered, revision=candle.revision + 1)
            self.told.append(Told(candle, "revision", pending or "coverage", bulk=True))
        return candle, None

    def _mark(self, candle: Candle, *, complete: bool, revision: int) -> Candle:
        return replace(
            candle,
            final=True,
            complete=complete,
            revision=revision,
            epoch=self._standing.epoch,
            as_of=self._standing.as_of,
            updated_at=self._standing.updated_at,
        )

    def _held_reason(self, released: Iterable[str]) -> RevisionReason | None:
        reason: RevisionReason | None = None
        for name in released:
            job = self._plan.ledger.jobs.get(name)
            if job is not None:
                reason = weightier(reason, reason_of(job.origin, name))
        return reason
