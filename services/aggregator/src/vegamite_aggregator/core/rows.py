"""Rows of the store that a partition's owner writes, as values."""

from typing import Literal, TypeAlias

import msgspec

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import GapState
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin
from vegamite_common.messages.candles import RevisionReason

CandleKey: TypeAlias = tuple[Timeframe, Micros]
"""(timeframe, open_time): a candle's key inside its market."""

JobState: TypeAlias = Literal["open", "ended", "silent"]


class StoredCandle(msgspec.Struct, frozen=True, gc=False):
    """A row of `candle`: the published state, the open jobs that hold it back (sorted), and why it waits to be revised.

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
    """A row of `open_span`: coverage that a writer's heartbeats extend; empty while `to_time` equals `from_time`.

    The row is written once, when the span opens: up to where it was extended is read from the coverage that it lies in.
    """

    writer: str
    market: Market
    from_time: Micros
    to_time: Micros


class Job(msgspec.Struct, frozen=True):
    """A row of `job`; opened and last append time are the log's, `ended_time` our clock's, in microseconds.

    An open job with `ended_time` set said that it ended but still holds candles, which the next steps release, a portion
    each. `trades` counts its trades that were stored, `expired` those that were not, being older than the horizon and
    outside [from, to) in `restores`.
    """

    job: str
    market: Market
    origin: Origin
    opened_time: Micros
    last_append_time: Micros
    state: JobState = "open"
    ended_time: Micros | None = None
    trades: int = 0
    expired: int = 0
    restores: tuple[Micros, Micros] | None = None


class GapRow(msgspec.Struct, frozen=True):
    """A row of `gap`: a hole between spans, or what became of it; times in microseconds.

    `closed_time` is when it was filled or found unfillable.
    """

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
