"""The last pure word of a step: all rows and records that follow from what was read, inserted and loaded."""

from collections.abc import Container, Iterable, Mapping

from msgspec.structs import replace

from vegamite_aggregator.core.changes import Changes, MarketChanges, OutboxRecord, Statistics
from vegamite_aggregator.core.demand import Loaded
from vegamite_aggregator.core.gap_projection import Projection, project_gaps
from vegamite_aggregator.core.ledger import MarketLedger
from vegamite_aggregator.core.plan import Plan
from vegamite_aggregator.core.publication import (
    publish_candles,
    publish_dead_letters,
    publish_gaps,
)
from vegamite_aggregator.core.rows import Job, OpenSpan, SpanRow
from vegamite_aggregator.core.settlement import Settlement
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.core.tally import exactly
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros


def decide(state: PartitionState, plan: Plan, loaded: Loaded, *, now: Micros) -> Changes:
    """Return everything that the step changes, given what `plan.wants` asked for; `now` is our clock in microseconds."""
    markets: dict[Market, MarketChanges] = {}
    outbox: list[OutboxRecord] = []
    late_in_coverage: dict[Market, int] = {}
    late = finals = revisions = 0
    with exactly():
        for market in _concerned(state, plan, loaded):
            ledger = plan.ledger.markets.get(market) or MarketLedger(state.markets[market])
            if _only_covered(state.markets[market], ledger, plan.deltas, loaded, market):
                markets[market] = _with_coverage(MarketChanges(), state.markets[market], ledger)
                continue
            settlement = _settle(state, market, ledger, plan, loaded, now)
            gaps = _gaps(state.markets[market], ledger, state.horizon(market).trades, now)
            changes = _market_changes(state.markets[market], ledger, settlement, gaps)
            if changes is not None:
                markets[market] = changes
            outbox += publish_candles(market, settlement.told, settlement.corrected, now)
            outbox += publish_gaps(market, gaps or Projection(), now)
            late += settlement.late
            finals += sum(told.change == "final" for told in settlement.told)
            revisions += sum(told.change == "revision" for told in settlement.told)
            if ledger.late_in_coverage:
                late_in_coverage[market] = ledger.late_in_coverage
    outbox += publish_dead_letters(
        plan.intake.refused, epoch=state.epoch, partition=state.partition
    )
    open_spans, extended, open_spans_deleted = _open_spans(state, plan.ledger.open_spans)
    jobs = _jobs(state, plan, loaded, now)
    offered = sum(len(batch.trades) for batch in plan.intake.trades)
    return Changes(
        epoch=state.epoch,
        next_offset=plan.intake.next_offset,
        last_append_time=plan.intake.last_append_time,
        changed=bool(
            plan.intake.next_offset != state.next_offset
            or any(_has_rows(changes) for changes in markets.values())
            or jobs
        ),
        markets=markets,
        open_spans=open_spans,
        open_spans_deleted=open_spans_deleted,
        open_spans_extended=extended,
        jobs=jobs,
        outbox=outbox,
        set_apart=state.set_apart.plus(
            len(plan.intake.refused), now=now, window=plan.timing.letter_window
        ),
        statistics=Statistics(
            inserted=plan.inserted,
            duplicate=offered - plan.inserted + plan.intake.repeated,
            late=late,
            expired=sum(plan.intake.expired.values()),
            late_in_coverage=late_in_coverage,
            finals=finals,
            revisions=revisions,
        ),
    )


def _concerned(state: PartitionState, plan: Plan, loaded: Loaded) -> Iterable[Market]:
    """Return the markets that the batch touched, that something was loaded for, or for which it is time."""
    concerned = dict.fromkeys((*plan.deltas, *plan.ledger.markets, *loaded.candles))
    limit = None if plan.log_time is None else plan.log_time - plan.timing.grace
    for market, market_state in state.markets.items():
        if market_state.unprojected or (limit is not None and market_state.next_close() <= limit):
            concerned[market] = None
    return concerned


def _only_covered(
    state: MarketState,
    ledger: MarketLedger,
    deltas: Container[Market],
    loaded: Loaded,
    market: Market,
) -> bool:
    """Whether nothing follows but longer coverage: the common case, each second for each quiet market."""
    return not (
        ledger.coverage is ledger.before
        or market in deltas
        or market in loaded.candles
        or ledger.rebuilds
        or ledger.restored
        or ledger.reshaped
        or ledger.recovered
        or ledger.unfillable
        or state.unprojected
        or state.candles
    )


def _settle(
    state: PartitionState,
    market: Market,
    ledger: MarketLedger,
    plan: Plan,
    loaded: Loaded,
    now: Micros,
) -> Settlement:
    settlement = Settlement(
        market,
        state.markets[market],
        plan=plan,
        loaded=loaded,
        coverage=ledger.coverage,
        epoch=state.epoch,
        now=now,
    )
    for asked, fold in zip(plan.wants.rebuilds, loaded.rebuilt, strict=True):
        if asked.market == market:
            settlement.rebuild(asked, fold)
    settlement.settle(newly_covered=ledger.coverage is not ledger.before)
    return settlement


def _gaps(
    state: MarketState, ledger: MarketLedger, horizon: Micros, now: Micros
) -> Projection | None:
    """Return the market's gaps anew; None where nothing that they follow from has changed, or it isn't tracked."""
    same = not ledger.reshaped and not ledger.recovered and not ledger.unfillable
    if state.history_from is None or (same and state.history_from == state.projected_from):
        return None
    return project_gaps(
        state.gaps,
        coverage=ledger.coverage,
        history_from=state.history_from,
        end_causes=ledger.end_causes,
        unfillable=ledger.unfillable,
        recovered=ledger.recovered,
        horizon=horizon,
        now=now,
    )


def _market_changes(
    state: MarketState, ledger: MarketLedger, settlement: Settlement, gaps: Projection | None
) -> MarketChanges | None:
    covered = ledger.coverage is not ledger.before or ledger.end_causes is not state.end_causes
    if not (settlement.changed or settlement.deleted or covered or gaps is not None):
        return None
    changes = MarketChanges(
        candles=tuple(settlement.changed.values()),
        candles_new=settlement.new,
        candles_deleted=tuple(settlement.deleted),
        streamed=tuple(settlement.streamed),
    )
    if covered:
        changes = _with_coverage(changes, state, ledger)
    if gaps is not None:
        changes = replace(
            changes,
            gaps_deleted=gaps.deleted,
            gaps=gaps.upserted,
            gaps_after=gaps.remembered,
            projected_from=state.history_from,
        )
    return changes


def _with_coverage(
    changes: MarketChanges, state: MarketState, ledger: MarketLedger
) -> MarketChanges:
    last = ledger.coverage.last
    quiet = ledger.end_causes is state.end_causes and ledger.before.end not in state.end_causes
    if last is not None and quiet and not ledger.reshaped:
        # The common case, each second for each market, takes no look at the other spans.
        return replace(
            changes,
            coverage=(SpanRow(last.from_time, last.to_time),),
            coverage_after=ledger.coverage,
            end_causes_after=state.end_causes,
        )
    ends = {span.to_time for span in ledger.coverage}
    causes = {at: cause for at, cause in ledger.end_causes.items() if at in ends}
    before = _span_rows(state.coverage, state.end_causes)
    after = _span_rows(ledger.coverage, causes)
    return replace(
        changes,
        coverage_deleted=tuple(start for start in before if start not in after),
        coverage=tuple(row for start, row in after.items() if before.get(start) != row),
        coverage_after=ledger.coverage,
        end_causes_after=causes,
    )


def _span_rows(coverage: SpanSet, causes: Mapping[Micros, str]) -> dict[Micros, SpanRow]:
    return {
        span.from_time: SpanRow(span.from_time, span.to_time, causes.get(span.to_time))
        for span in coverage
    }


def _has_rows(changes: MarketChanges) -> bool:
    return bool(
        changes.candles
        or changes.candles_deleted
        or changes.coverage
        or changes.coverage_deleted
        or changes.gaps
        or changes.gaps_deleted
    )


def _open_spans(
    state: PartitionState, after: Mapping[tuple[str, Market], OpenSpan]
) -> tuple[list[OpenSpan], list[OpenSpan], list[tuple[str, Market]]]:
    """Return the spans that are new, those that only reach further, and the keys of those that are gone."""
    new: list[OpenSpan] = []
    extended: list[OpenSpan] = []
    for key, span in after.items():
        before = state.open_spans.get(key)
        if before is None or before.from_time != span.from_time:
            new.append(span)
        elif before.to_time != span.to_time:
            extended.append(span)
    return new, extended, [key for key in state.open_spans if key not in after]


def _jobs(state: PartitionState, plan: Plan, loaded: Loaded, now: Micros) -> list[Job]:
    """Return the rows of jobs that changed; one that is over stays open until it holds nothing in the store."""
    stored = {job.job: job for job in loaded.jobs}
    changed: list[Job] = []
    for name, job in plan.ledger.jobs.items():
        earlier = stored.get(name)
        if earlier is not None:
            job = replace(
                job,
                origin=earlier.origin,
                opened_time=earlier.opened_time,
                trades=earlier.trades + job.trades,
                expired=earlier.expired + job.expired,
            )
        if name in plan.ledger.over:
            over = plan.ledger.over[name]
            job = replace(job, last_append_time=over.append_time, ended_time=now)
        if name in plan.over and not loaded.release_rest:
            said = job.ended_time is not None
            job = replace(
                job,
                state="ended" if said else "silent",
                ended_time=job.ended_time if said else now,
            )
        if state.jobs.get(name) != job:
            changed.append(job)
    return changed
