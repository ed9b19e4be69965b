"""What is measured of the partitions that this process owns: how far behind they are, how fresh and how whole their markets.

Each partition keeps its figures up to date with what its steps change, nothing for each trade; a look at all of them now
and then makes the metrics.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import nan

import msgspec

from vegamite_aggregator import metrics
from vegamite_aggregator.core.candle_cache import FOREVER, NEVER
from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.core.rows import GapRow, StoredCandle
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.ports import Upkeep
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.metrics import replace_values

CAUGHT_UP_SECONDS = 1.0
"""A look at the log's end may be so old (real seconds) before it says nothing of now any more."""

Age = Callable[[Micros], float]


class GapFigures(msgspec.Struct, frozen=True):
    """A market's gaps: how many are open and unfillable; of the open ones, when the first was opened, and all their length."""

    open: int = 0
    unfillable: int = 0
    opened_time: Micros | None = None
    length: Micros = 0


class MarketFigures(msgspec.Struct, frozen=True):
    """A tracked market: up to when it is covered (None where it isn't at all), and its gaps."""

    market: Market
    covered: Micros | None
    gaps: GapFigures


def gap_figures(gaps: Iterable[GapRow]) -> GapFigures:
    """Return the figures of one market's rows."""
    rows = list(gaps)
    waiting = [row for row in rows if row.state is GapState.OPEN]
    return GapFigures(
        open=len(waiting),
        unfillable=sum(row.state is GapState.UNFILLABLE for row in rows),
        opened_time=min((row.opened_time for row in waiting), default=None),
        length=sum(row.to_time - row.from_time for row in waiting),
    )


class PartitionMeasure:
    """The figures of one partition as of its last commit; while its state can't be had they stay what they were."""

    def __init__(self) -> None:
        self.lag_records = 0
        self.committed_through: Micros | None = None
        """All that the log had at this instant is committed; None before anything is known."""
        self.trades: dict[str, Micros] = {}
        """The event time of each exchange's newest trade."""
        self.candles: dict[str, Micros] = {}
        """The close time of each exchange's newest final candle of one minute."""
        self._gaps: dict[Market, GapFigures] = {}
        self._state: PartitionState | None = None

    def loaded(self, state: PartitionState) -> None:
        """Take the state that the partition goes on with."""
        self._state = state
        self._gaps.clear()
        for market, known in state.markets.items():
            newest = known.newest_event_time
            if NEVER < newest < FOREVER:
                _raise_to(self.trades, market.exchange, newest)
                close_time = Timeframe.M1.close_time(Timeframe.M1.open_time(newest))
                if close_time < known.open_close_time:
                    _raise_to(self.candles, market.exchange, close_time)

    def committed(self, changes: Changes) -> None:
        """Follow a commit."""
        for market, change in changes.markets.items():
            self._note_candles(market.exchange, change.candles)
            if change.gaps_after is not None:
                self._gaps[market] = gap_figures(change.gaps_after.values())

    def look(self, *, end_offset: int, fetched_time: Micros) -> None:
        """Compare what is committed with the log's end as it was at `fetched_time`; 0 where nobody has looked since the load."""
        state = self._state
        if state is None:
            return
        through = state.last_append_time
        if fetched_time:
            self.lag_records = max(0, end_offset - state.next_offset)
            if not self.lag_records:
                through = fetched_time
        if through is not None:
            self.committed_through = max(through, self.committed_through or through)

    @property
    def residents(self) -> tuple[int, int]:
        """How many candles are in memory, and of how many markets."""
        state = self._state
        return (0, 0) if state is None else (state.resident_candles, state.resident_markets)

    def markets(self) -> Iterator[MarketFigures]:
        """Yield the figures of each tracked market."""
        for market, known in self._state.markets.items() if self._state else ():
            if known.history_from is not None:
                if market not in self._gaps:
                    self._gaps[market] = gap_figures(known.gaps.values())
                yield MarketFigures(market, known.coverage.end, self._gaps[market])

    def _note_candles(self, exchange: str, candles: Iterable[StoredCandle]) -> None:
        for stored in candles:
            candle = stored.candle
            _raise_to(self.trades, exchange, candle.last_event_time)
            if candle.final and candle.timeframe is Timeframe.M1:
                _raise_to(self.candles, exchange, candle.close_time)


def export_measures(measures: Mapping[int, PartitionMeasure], clock: Clock) -> None:
    """Make the metrics say what the partitions' figures say now; ages are real seconds, whatever the clock's speed."""
    now = clock.now()

    def age(instant: Micros) -> float:
        return max(0.0, (now - instant) / SECOND / clock.speed)

    _export_lag(measures, age)
    residents = [each.residents for each in measures.values()]
    metrics.RESIDENT_CANDLES.set(sum(candles for candles, _ in residents))
    metrics.RESIDENT_MARKETS.set(sum(markets for _, markets in residents))
    for gauge, newest in (
        (metrics.NEWEST_TRADE, _greatest(each.trades for each in measures.values())),
        (metrics.NEWEST_CANDLE, _greatest(each.candles for each in measures.values())),
    ):
        replace_values(gauge, {(exchange,): age(at) for exchange, at in newest.items()})
    markets: dict[str, list[MarketFigures]] = {}
    for each in measures.values():
        for figures in each.markets():
            markets.setdefault(figures.market.exchange, []).append(figures)
    _export_coverage(markets, age)


def export_upkeep(upkeep: Upkeep, clock: Clock) -> None:
    """Make the metrics say what the store says of its maintenance; lengths of time are the clock's."""
    now = clock.now()
    for gauge, length in (
        (metrics.HEADROOM, _length(now, upkeep.tables_until)),
        (metrics.MAINTENANCE_AGE, _length(upkeep.completed_time, now)),
        (metrics.HORIZON_AGE, _length(upkeep.least_horizon, now)),
    ):
        gauge.set(length)
    for kind, total in (
        ("archived_files", upkeep.archived_files),
        ("archived_trades", upkeep.archived_trades),
        ("dropped_tables", upkeep.dropped_tables),
        ("deleted_candles", upkeep.deleted_candles),
    ):
        metrics.UPKEEP.labels(kind).set(total)


def _length(begin: Micros | None, end: Micros | None) -> float:
    return nan if begin is None or end is None else (end - begin) / SECOND


def _export_lag(measures: Mapping[int, PartitionMeasure], age: Age) -> None:
    behind = {
        (partition,): age(each.committed_through)
        for partition, each in measures.items()
        if each.committed_through is not None
    }
    replace_values(metrics.LAG, {(key,): each.lag_records for key, each in measures.items()})
    replace_values(
        metrics.LAG_SECONDS,
        {key: lag if lag >= CAUGHT_UP_SECONDS else 0.0 for key, lag in behind.items()},
    )


def _export_coverage(markets: Mapping[str, list[MarketFigures]], age: Age) -> None:
    behind: dict[tuple[str], float] = {}
    counts: dict[tuple[str, str], float] = {}
    oldest: dict[tuple[str], float] = {}
    lengths: dict[tuple[str], float] = {}
    for exchange, figures in markets.items():
        gaps = [each.gaps for each in figures]
        ends = [each.covered for each in figures if each.covered is not None]
        if ends:
            behind[(exchange,)] = age(min(ends))
        opened = [each.opened_time for each in gaps if each.opened_time is not None]
        oldest[(exchange,)] = age(min(opened)) if opened else 0.0
        counts[exchange, "open"] = sum(each.open for each in gaps)
        counts[exchange, "unfillable"] = sum(each.unfillable for each in gaps)
        lengths[(exchange,)] = sum(each.length for each in gaps) / SECOND
    replace_values(metrics.COVERAGE_LAG, behind)
    replace_values(metrics.GAPS, counts)
    replace_values(metrics.OLDEST_GAP, oldest)
    replace_values(metrics.OPEN_GAP_SECONDS, lengths)


def _raise_to(newest: dict[str, Micros], exchange: str, instant: Micros) -> None:
    if instant > newest.get(exchange, NEVER):
        newest[exchange] = instant


def _greatest(parts: Iterable[Mapping[str, Micros]]) -> dict[str, Micros]:
    newest: dict[str, Micros] = {}
    for part in parts:
        for exchange, instant in part.items():
            _raise_to(newest, exchange, instant)
    return newest
