"""What a batch's events make of spans, coverage and jobs, in log order, on copies of the state.

The coverage of an open span is [from, to): `to` begins at `from` and follows its writer's heartbeats. A repeated
`span_opened` means nothing while the span is open; heartbeats of a writer without one claim nothing.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from vegamite_aggregator.core.facts import (
    QUARANTINED,
    Claim,
    Intake,
    JobOver,
    JobSeen,
    SpanBroken,
    TradeBatch,
    TradesArrived,
)
from vegamite_aggregator.core.packed_trades import earliest, event_times, latest
from vegamite_aggregator.core.rows import Job, OpenSpan
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_common.domain.coverage import GapState, SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.messages.trades import (
    Heartbeat,
    Rebuild,
    SpanClosed,
    SpanOpened,
    Unfillable,
)


class MarketLedger:
    """One market's coverage after the batch, and what its trades met on the way.

    `recovered` counts trades of jobs by the `from_time` of the gap row that they fell into; `late_in_coverage` those for
    time that was covered when they came. `reshaped`: more than the end of the last span has moved.
    """

    def __init__(self, state: MarketState) -> None:
        self.before = state.coverage
        self.coverage: SpanSet = state.coverage
        self.end_causes = state.end_causes
        self.unfillable: list[Unfillable] = []
        self.recovered: dict[Micros, int] = {}
        self.late_in_coverage = 0
        self.reshaped = False
        self.rebuilds: list[tuple[Micros, Micros]] = []
        self.restored: list[Rebuild] = []

    def cover(self, from_time: Micros, to_time: Micros) -> None:
        """Add [from_time, to_time) to the coverage."""
        before = self.coverage
        end = before.end
        self.coverage = before.add(from_time, to_time)
        lengthens = end is not None and from_time <= end and before.covers(from_time, end)
        if self.coverage is not before and not lengthens:
            self.reshaped = True

    def end(self, to_time: Micros, cause: str) -> None:
        """Remember why coverage ended at `to_time`, if it does."""
        self.end_causes = {**self.end_causes, to_time: cause}


class Ledger:
    """Walks the events of one batch; afterwards its attributes say what is to be written."""

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self.markets: dict[Market, MarketLedger] = {}
        self.open_spans: dict[tuple[str, Market], OpenSpan] = dict(state.open_spans)
        self.jobs: dict[str, Job] = dict(state.jobs)
        self.new_jobs: set[str] = set()
        self.over: dict[str, JobOver] = {}

    def market(self, market: Market) -> MarketLedger:
        """Return the market's ledger, begun at its state."""
        found = self.markets.get(market)
        if found is None:
            found = self.markets[market] = MarketLedger(self._state.markets[market])
        return found

    def walk(self, intake: Intake, inserted: Iterable[TradeBatch]) -> None:
        """Apply the events in order; `inserted` has the trades that are new."""
        arrived = {(batch.offset, batch.restored): batch for batch in inserted}
        for event in intake.events:
            match event:
                case TradesArrived(offset=offset, restored=restored):
                    if (offset, restored) in arrived:
                        self._trades(arrived[offset, restored])
                case JobSeen():
                    self._job_seen(event)
                case JobOver():
                    self._job_over(event)
                case Rebuild():
                    self._rebuild(event)
                case _:
                    self._span(event)

    def forget_spans(self, limit: Micros) -> None:
        """Close open spans that end before `limit` where they stand: nobody extends them any more."""
        for key in [key for key, span in self.open_spans.items() if span.to_time < limit]:
            del self.open_spans[key]

    def _span(self, event: Heartbeat | Claim | SpanOpened | SpanClosed | SpanBroken) -> None:
        match event:
            case Heartbeat():
                self._beat(event.writer, event.to_time)
            case Claim():
                self.market(event.market).cover(event.from_time, event.to_time)
            case SpanOpened():
                self._open(event)
            case SpanClosed():
                self._close(event)
            case SpanBroken():
                self._break(event.market)

    def _trades(self, batch: TradeBatch) -> None:
        ledger = self.market(batch.market)
        first, last = earliest(batch.trades), latest(batch.trades)
        coverage = ledger.coverage
        if coverage.end is not None and first < coverage.end and not batch.restored:
            ledger.late_in_coverage += sum(map(coverage.contains, event_times(batch.trades)))
        if batch.job is not None:
            job = self.jobs[batch.job]
            self.jobs[batch.job] = replace(job, trades=job.trades + len(batch.trades))
            for gap in self._state.markets[batch.market].gaps.values():
                if (
                    gap.from_time <= last
                    and first < gap.to_time
                    and gap.state is not GapState.FILLED
                ):
                    ledger.recovered[gap.from_time] = ledger.recovered.get(gap.from_time, 0) + sum(
                        gap.from_time <= time < gap.to_time for time in event_times(batch.trades)
                    )

    def _beat(self, writer: str, to_time: Micros) -> None:
        for key, span in self.open_spans.items():
            if span.writer == writer and to_time > span.to_time:
                self.open_spans[key] = OpenSpan(writer, span.market, span.from_time, to_time)
                self.market(span.market).cover(span.from_time, to_time)

    def _open(self, event: SpanOpened) -> None:
        key = (event.writer, event.market)
        if key not in self.open_spans:
            self.open_spans[key] = OpenSpan(*key, event.from_time, event.from_time)

    def _close(self, event: SpanClosed) -> None:
        span = self.open_spans.pop((event.writer, event.market), None)
        if span is None:
            return
        ledger = self.market(event.market)
        if event.to_time > span.to_time:
            ledger.cover(span.from_time, event.to_time)
        ledger.end(max(span.to_time, event.to_time), event.cause)

    def _break(self, market: Market) -> None:
        for key in [key for key in self.open_spans if key[1] == market]:
            self.market(market).end(self.open_spans.pop(key).to_time, QUARANTINED)

    def _job_seen(self, event: JobSeen) -> None:
        self.over.pop(event.job, None)
        job = self.jobs.get(event.job)
        if job is None:
            self.new_jobs.add(event.job)
            job = Job(
                job=event.job,
                market=event.market,
                origin=event.origin,
                opened_time=event.append_time,
                last_append_time=event.append_time,
            )
        self.jobs[event.job] = replace(
            job,
            last_append_time=event.append_time,
            state="open",
            ended_time=None,
            expired=job.expired + event.expired,
            restores=event.restores or job.restores,
        )

    def _rebuild(self, event: Rebuild) -> None:
        """Take what is asked; expired time only while a job that restores it is open: nobody else knows that it is whole.

        What it covers of expired time becomes so in the same step as its trades are folded, never before.
        """
        ledger = self.market(event.market)
        if event.restored_since is None:
            ledger.rebuilds.append((event.from_time, event.to_time))
        elif any(
            job.market == event.market
            and job.restores is not None
            and job.restores[0] <= event.restored_since
            and event.to_time <= job.restores[1]
            for job in self.jobs.values()
        ):
            ledger.restored.append(event)
            begin, end = self._state.horizon(event.market).expired_days(
                event.from_time, event.to_time
            )
            for from_time, to_time in event.covered:
                if max(from_time, begin) < min(to_time, end):
                    ledger.cover(max(from_time, begin), min(to_time, end))

    def _job_over(self, event: JobOver) -> None:
        if event.unfillable is not None:
            self.market(event.market).unfillable.append(event.unfillable)
        if event.job in self.jobs:
            self.over[event.job] = event
