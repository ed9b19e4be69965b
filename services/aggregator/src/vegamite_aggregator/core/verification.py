"""Stored candles against what stored trades add up to: the comparison, portion after portion, in bounded memory.

What is right for a candle is the fold of its trades; where those have expired, the merge of its shorter candles; where
those have expired too, the candle itself, which then can only be looked at by its limits. `3d`, `1w` and `1M` reach over
the compared days: their days beside those are taken as they are stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from vegamite_aggregator.core.fold import Series, roll_series
from vegamite_aggregator.core.tally import Tally, exactly
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.time import DAY, HOUR, Micros, format_time
from vegamite_common.domain.timeframe import LENGTHS, Timeframe

LONG: Final = tuple(tf for tf in Timeframe if LENGTHS.get(tf, DAY + 1) > DAY)
"""The timeframes that reach over a day."""

SHORT: Final = tuple(tf for tf in Timeframe if LENGTHS.get(tf, HOUR + 1) <= HOUR)
"""The timeframes that divide an hour."""


class StoredState(NamedTuple):
    """A row of `candle` as it is, whatever somebody may have done to it; `held`: by an open job."""

    open_time: Micros
    tally: Tally
    final: bool
    complete: bool
    revision: int
    held: bool


class Difference(msgspec.Struct, frozen=True):
    """One thing that isn't as it has to be; `stored` and `computed` are texts, None where there is nothing.

    `field` names a column of `candle`; `candle` where a whole one is missing or has no trades; `limits` where no trades
    can give the row; `trade`, without a timeframe, for a stored trade that can't be (`open_time` is its event time).
    """

    timeframe: Timeframe | None
    open_time: Micros
    field: str
    stored: str | None
    computed: str | None


class Scope(msgspec.Struct, frozen=True):
    """What of a market is compared: candles of whole days [from_time, to_time), and the longer ones over these days.

    Of `LONG` those that open before `to_time`. `trades_from` is where stored trades begin, `candles_from` where the
    stored candles of a timeframe do: whatever is older has expired. `continued`: the days before were compared already, and
    with them whatever opens there.
    """

    from_time: Micros
    to_time: Micros
    timeframes: frozenset[Timeframe] = frozenset(Timeframe)
    trades_from: Micros = 0
    candles_from: Mapping[Timeframe, Micros] = {}
    continued: bool = False

    def __post_init__(self) -> None:
        if self.from_time % DAY or self.to_time % DAY or self.from_time >= self.to_time:
            raise ValueError("whole days, at least one")

    def read_from(self, timeframe: Timeframe) -> Micros:
        """Return the open time from which on stored candles of the timeframe are to be read."""
        if timeframe in LONG:
            return self.compared_from(timeframe)
        if timeframe is Timeframe.D1:
            return min([self.from_time, *map(self.compared_from, self._long)])
        return self.from_time

    def compared_from(self, timeframe: Timeframe) -> Micros:
        """Return the open time of the timeframe's first candle that is compared."""
        if self.continued:
            return _aligned(timeframe, self.from_time)
        return timeframe.open_time(self.from_time)

    def read_to(self, timeframe: Timeframe) -> Micros:
        """Return the exclusive open time up to which stored candles of the timeframe are to be read."""
        return self.days_to if timeframe is Timeframe.D1 else self.to_time

    @property
    def days_to(self) -> Micros:
        """The end of the days that candles of this scope reach over."""
        ends = [tf.close_time(tf.open_time(self.to_time - 1)) for tf in self._long]
        return max(ends, default=self.to_time)

    @property
    def _long(self) -> list[Timeframe]:
        return [tf for tf in LONG if tf in self.timeframes]


class _Level:
    """One timeframe on the way up: what is right for its candles, and what is read of it."""

    def __init__(
        self, timeframe: Timeframe, scope: Scope, *, computed_from: Micros, stored_from: Micros
    ) -> None:
        self.timeframe = timeframe
        self.stored_from = stored_from
        self.compared = timeframe in scope.timeframes
        self.computed_from = computed_from
        self.begin = scope.compared_from(timeframe)
        self.end = scope.to_time
        self._parts: Series = {}

    def only_computed(self, series: Series) -> Series:
        """Return those of the candles whose parts are all there."""
        if not series or next(iter(series)) >= self.computed_from:
            return series
        return {at: tally for at, tally in series.items() if at >= self.computed_from}

    def roll(self, source: Series, cut: Micros) -> Series:
        """Take what is right of the source, and return the candles before `cut`, in order."""
        parts = self._parts
        parts.update(source)
        closed = {at: part for at, part in parts.items() if at < cut}
        for at in closed:
            del parts[at]
        return roll_series(self.only_computed(closed), self.timeframe)


class Comparison:
    """Compares one market's candles of a scope, given both sides in order of time, a portion at a time."""

    def __init__(self, scope: Scope, coverage: SpanSet) -> None:
        self.scope = scope
        self.candles = 0
        self._coverage = coverage
        self._levels: dict[Timeframe, _Level] = {}
        right_from: dict[Timeframe, Micros] = {}
        for timeframe in Timeframe:
            source = timeframe.source
            below = scope.trades_from if source is None else right_from[source]
            computed_from = _aligned(timeframe, below)
            stored_from = _aligned(timeframe, scope.candles_from.get(timeframe, 0))
            right_from[timeframe] = min(computed_from, stored_from)
            self._levels[timeframe] = _Level(
                timeframe, scope, computed_from=computed_from, stored_from=stored_from
            )

    @property
    def needed(self) -> list[Timeframe]:
        """The timeframes whose stored candles have to be given to `take`, shortest first."""
        wanted = self.scope.timeframes
        up_to = max((list(Timeframe).index(tf) for tf in wanted), default=0)
        return [
            timeframe
            for number, timeframe in enumerate(Timeframe)
            if timeframe in wanted
            or (
                number < up_to
                and self._levels[timeframe].computed_from > self.scope.read_from(timeframe)
            )
            or (timeframe is Timeframe.D1 and any(tf in wanted for tf in LONG))
        ]

    def take(
        self,
        bound: Micros,
        seconds: Series,
        stored: Mapping[Timeframe, Sequence[StoredState]],
    ) -> list[Difference]:
        """Return what differs up to `bound`, the start of an hour; it only grows from call to call.

        `seconds` are the folded trades, `stored` each needed timeframe's candles before `timeframe.open_time(bound)`; both
        in order, and without what was given before.
        """
        found: list[Difference] = []
        right: dict[Timeframe, Series] = {}
        with exactly():
            for timeframe, level in self._levels.items():
                cut = timeframe.open_time(bound)
                source = timeframe.source
                computed = (
                    level.only_computed(seconds)
                    if source is None
                    else level.roll(right[source], cut)
                )
                rows = stored.get(timeframe, ())
                right[timeframe] = self._right(level, rows, computed)
                if level.compared:
                    found += self._collate(level, rows, computed)
        found.sort(key=_place)
        return found

    def _right(self, level: _Level, rows: Sequence[StoredState], computed: Series) -> Series:
        """Return the computed candles, and the stored ones where nothing better is."""
        scope = self.scope
        if level.timeframe in LONG:
            return computed
        trusted = {
            row.open_time: row.tally
            for row in rows
            if (
                row.open_time < level.computed_from
                or not scope.from_time <= row.open_time < scope.to_time
            )
            # What can't be can't be added up either; it is told, where it is compared.
            and not any(_limits(level.timeframe, row))
        }
        return dict(sorted({**computed, **trusted}.items())) if trusted else computed

    def _collate(
        self, level: _Level, rows: Sequence[StoredState], computed: Series
    ) -> Iterator[Difference]:
        timeframe = level.timeframe
        stored = {row.open_time: row for row in rows if level.begin <= row.open_time < level.end}
        self.candles += len(stored)
        for open_time, row in stored.items():
            tally = computed.get(open_time)
            if tally is None and open_time >= level.computed_from:
                yield Difference(timeframe, open_time, "candle", _count(row.tally), None)
                continue
            if tally is None or tally != row.tally:
                yield from _unequal(timeframe, row, tally)
            elif row.revision < 0 or (row.revision > 0 and not row.final):
                yield from _limits(timeframe, row)
            yield from self._flags(timeframe, row)
        for open_time, tally in computed.items():
            wanted = max(level.begin, level.stored_from) <= open_time < level.end
            if wanted and open_time not in stored:
                yield Difference(timeframe, open_time, "candle", None, _count(tally))

    def _flags(self, timeframe: Timeframe, row: StoredState) -> Iterator[Difference]:
        covered = self._coverage.covers(row.open_time, timeframe.close_time(row.open_time))
        if row.complete:
            if not (covered and row.final):
                yield Difference(timeframe, row.open_time, "complete", "true", "false")
        elif covered and not row.held:
            # Whatever is covered is final at that moment; and coverage that comes late is a revision.
            flag = "complete" if row.final else "final"
            yield Difference(timeframe, row.open_time, flag, "false", "true")


def _aligned(timeframe: Timeframe, instant: Micros) -> Micros:
    """Return the first open time from `instant` on."""
    opened = timeframe.open_time(instant)
    return opened if opened == instant else timeframe.close_time(opened)


def _place(difference: Difference) -> tuple[Micros, int]:
    timeframe = difference.timeframe
    return (difference.open_time, -1 if timeframe is None else _RANKS[timeframe])


_RANKS = {timeframe: rank for rank, timeframe in enumerate(Timeframe)}
_INSTANTS = ("first_event_time", "last_event_time")


def _unequal(timeframe: Timeframe, row: StoredState, tally: Tally | None) -> Iterator[Difference]:
    """Yield the fields that differ from the trades', where they are known, and what makes the row impossible."""
    if tally is not None:
        for name in Tally.__struct_fields__:
            stored, computed = getattr(row.tally, name), getattr(tally, name)
            if stored != computed:
                yield Difference(
                    timeframe, row.open_time, name, _text(name, stored), _text(name, computed)
                )
    yield from _limits(timeframe, row)


def _limits(timeframe: Timeframe, row: StoredState) -> Iterator[Difference]:
    try:
        Candle(
            timeframe=timeframe,
            open_time=row.open_time,
            epoch=0,
            as_of=0,
            updated_at=0,
            final=row.final,
            complete=row.complete,
            revision=row.revision,
            **msgspec.structs.asdict(row.tally),
        )
    except (ValueError, ArithmeticError) as error:
        yield Difference(timeframe, row.open_time, "limits", str(error), None)


def _count(tally: Tally) -> str:
    return f"{tally.trade_count} trade{'' if tally.trade_count == 1 else 's'}"


def _text(name: str, value: object) -> str:
    if name in _INSTANTS:
        assert isinstance(value, int)
        return format_time(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format_decimal(value)
    return str(value)
