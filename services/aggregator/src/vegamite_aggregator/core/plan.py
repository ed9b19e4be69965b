"""What a step is about, before the store is read: folded trades, walked events, and what memory lacks to decide."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from vegamite_aggregator.core.candle_cache import FOREVER, NEVER
from vegamite_aggregator.core.demand import IncompleteRange, OpenCandles, RebuildRange, Wants
from vegamite_aggregator.core.facts import Intake, TradeBatch
from vegamite_aggregator.core.fold import Series, fold_records
from vegamite_aggregator.core.horizon import Horizon
from vegamite_aggregator.core.ledger import Ledger, MarketLedger
from vegamite_aggregator.core.reason import reason_of, weightier
from vegamite_aggregator.core.rows import CandleKey
from vegamite_aggregator.core.state import MarketState, PartitionState, job_is_over
from vegamite_aggregator.core.tally import Tally, exactly, merge
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.market import Contract, Market
from vegamite_common.domain.time import DAY, MINUTE, SECOND, Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.candles import RevisionReason
from vegamite_common.messages.trades import Rebuild

LONG = (Timeframe.D3, Timeframe.W1, Timeframe.MO1)
"""The timeframes above a day, each rolled up from days."""


class Delta(NamedTuple):
    """What the step's new trades add to one candle, the jobs that brought them, and the reason they give."""

    tally: Tally
    jobs: frozenset[str]
    reason: RevisionReason


class Plan(msgspec.Struct, frozen=True):
    """A step about to be decided: what to load for it (`wants`), its new trades folded, and its events walked.

    `over` are the jobs that ended or went silent, whose candles are released.
    """

    intake: Intake
    ledger: Ledger
    deltas: dict[Market, dict[CandleKey, Delta]]
    over: frozenset[str]
    wants: Wants
    inserted: int
    log_time: Micros | None
    timing: Timing


def prepare(
    state: PartitionState,
    intake: Intake,
    inserted: Sequence[TradeBatch],
    *,
    log_time: Micros | None,
    timing: Timing,
) -> Plan:
    """Return the step's plan, given the trades that the store inserted and T; `state` has every market of the intake."""
    ledger = Ledger(state)
    ledger.walk(intake, inserted)
    if log_time is not None:
        ledger.forget_spans(log_time - timing.span_silence)
    deltas = {
        market: _fold_market(batches, state.markets[market].contract)
        for market, batches in _by_market(inserted).items()
    }
    over = frozenset(
        job.job
        for job in ledger.jobs.values()
        if job.job in ledger.over or job_is_over(state, job, log_time=log_time, timing=timing)
    )
    return Plan(
        intake=intake,
        ledger=ledger,
        deltas=deltas,
        over=over,
        wants=_wants(
            state, ledger, deltas, over, NEVER if log_time is None else log_time - timing.grace
        ),
        inserted=sum(len(batch.trades) for batch in inserted),
        log_time=log_time,
        timing=timing,
    )


def _by_market(batches: Iterable[TradeBatch]) -> dict[Market, list[TradeBatch]]:
    grouped: dict[Market, list[TradeBatch]] = {}
    for batch in batches:
        if not batch.restored:  # those are folded when they are whole
            grouped.setdefault(batch.market, []).append(batch)
    return grouped


def _fold_market(
    batches: Sequence[TradeBatch], contract: Contract | None
) -> dict[CandleKey, Delta]:
    """Return what the trades add to each candle; those of each job and reason are folded apart, then merged."""
    groups: dict[tuple[str | None, RevisionReason], list[Sequence[Trade]]] = {}
    for batch in batches:
        group = groups.setdefault((batch.job, reason_of(batch.origin, batch.job)), [])
        group.append(batch.trades)
    deltas: dict[CandleKey, Delta] = {}
    for (job, reason), trades in groups.items():
        jobs = frozenset() if job is None else frozenset((job,))
        _add(deltas, fold_records(trades, contract), jobs, reason)
    return deltas


def _add(
    deltas: dict[CandleKey, Delta],
    folded: dict[Timeframe, Series],
    jobs: frozenset[str],
    reason: RevisionReason,
) -> None:
    if not deltas:
        for timeframe, series in folded.items():
            for open_time, tally in series.items():
                deltas[(timeframe, open_time)] = Delta(tally, jobs, reason)
        return
    with exactly():
        for timeframe, series in folded.items():
            for open_time, tally in series.items():
                key = (timeframe, open_time)
                other = deltas.get(key)
                deltas[key] = (
                    Delta(tally, jobs, reason)
                    if other is None
                    else Delta(
                        merge(other.tally, tally),
                        other.jobs | jobs,
                        weightier(other.reason, reason) or reason,
                    )
                )


def _wants(
    state: PartitionState,
    ledger: Ledger,
    deltas: dict[Market, dict[CandleKey, Delta]],
    over: frozenset[str],
    past: Micros,
) -> Wants:
    keys = {
        market: missing
        for market, touched in deltas.items()
        if (missing := _missing_keys(state.markets[market], touched))
    }
    incomplete: list[IncompleteRange] = []
    rebuilds: list[RebuildRange] = []
    for market, changed in ledger.markets.items():
        if changed.coverage is not changed.before:
            incomplete += _incomplete(market, state.markets[market], changed)
        if changed.rebuilds:
            rebuilds += _rebuilds(market, changed.rebuilds, state.horizon(market))
        if changed.restored:
            rebuilds += _restored(market, changed.restored, state.horizon(market))
    return Wants(
        open_candles=tuple(_open_candles(state, ledger, past)),
        keys=keys,
        incomplete=tuple(incomplete),
        released=over,
        rebuilds=tuple(rebuilds),
        jobs=frozenset(ledger.new_jobs),
    )


def _open_candles(state: PartitionState, ledger: Ledger, past: Micros) -> Iterator[OpenCandles]:
    """Yield the markets of which a candle out of memory may be final now: its grace is over, or coverage has come so far."""
    for market, known in state.markets.items():
        reached = past
        changed = ledger.markets.get(market)
        if changed is not None and changed.coverage is not changed.before:
            reached = max(past, changed.coverage.end or NEVER)
        if known.open_close_time <= reached:
            yield OpenCandles(market, known.open_close_time, known.newest_event_time)


def _missing_keys(market: MarketState, touched: Iterable[CandleKey]) -> list[CandleKey]:
    candles = market.candles
    return [key for key in touched if key not in candles and key[1] < market.resident_from(key[0])]


def _incomplete(
    market: Market, state: MarketState, changed: MarketLedger
) -> Iterator[IncompleteRange]:
    """Yield where candles may lie that are covered only now and aren't in memory.

    Such a candle lies inside a span of the new coverage and meets a hole of the old one.
    """
    last = changed.coverage.last
    spans = [last] if last is not None and not changed.reshaped else changed.coverage
    for span in spans:
        if changed.before.covers(span.from_time, span.to_time):
            continue
        for hole in changed.before.missing(span.from_time, span.to_time):
            begin = hole.from_time
            if (
                state.incomplete_before <= begin - begin % SECOND
                and span.to_time < begin + -begin % MINUTE
            ):
                continue  # the common case, each second for each market: no candle but of one second can end in there
            for timeframe in Timeframe:
                from_time = max(timeframe.open_time(hole.from_time), span.from_time)
                to_time = min(
                    hole.to_time,
                    timeframe.open_time(span.to_time),
                    state.incomplete_before,
                )
                if from_time < to_time:
                    yield IncompleteRange(market, timeframe, from_time, to_time)


def _rebuilds(
    market: Market, asked: Iterable[tuple[Micros, Micros]], horizon: Horizon
) -> Iterator[RebuildRange]:
    """Yield the asked times as disjoint ranges of whole days, without those whose trades have expired."""
    days = SpanSet(
        Span(from_time - from_time % DAY, to_time + -to_time % DAY) for from_time, to_time in asked
    )
    for span in days.within(horizon.whole_day, FOREVER):
        yield _rebuild(market, span, long_from=horizon.of_candles(Timeframe.D1))


def _restored(market: Market, asked: Iterable[Rebuild], horizon: Horizon) -> Iterator[RebuildRange]:
    """Yield the whole days among the asked times whose trades had expired and are there again."""
    for rebuild in asked:
        from_time, to_time = horizon.expired_days(rebuild.from_time, rebuild.to_time)
        if from_time < to_time:
            since = rebuild.restored_since or from_time
            yield _rebuild(market, Span(from_time, to_time), long_from=since, restored=True)


def _rebuild(
    market: Market, span: Span, *, long_from: Micros, restored: bool = False
) -> RebuildRange:
    last = span.to_time - 1
    return RebuildRange(
        market=market,
        from_time=span.from_time,
        to_time=span.to_time,
        days_from=min(timeframe.open_time(span.from_time) for timeframe in LONG),
        days_to=max(timeframe.close_time(timeframe.open_time(last)) for timeframe in LONG),
        long_from=long_from,
        restored=restored,
    )
