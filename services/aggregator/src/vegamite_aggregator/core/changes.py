"""What a step writes, as absolute values: rows of the store, records for the outbox, and the candles to stream."""

from collections.abc import Mapping, Sequence, Set

import msgspec

from vegamite_aggregator.core.allowance import SetApart
from vegamite_aggregator.core.rows import CandleKey, GapRow, Job, OpenSpan, SpanRow, StoredCandle
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros


class OutboxRecord(msgspec.Struct, frozen=True):
    """A record to be published after the commit: topic, key (the market's, if any), value; the order is the list's."""

    topic: str
    key: bytes | None
    value: bytes


class MarketChanges(msgspec.Struct, frozen=True):
    """One market's rows: candles to upsert (`candles_new` are the keys of those that aren't stored), and to delete by key; gaps and coverage to delete, then upsert, by `from_time`.

    `streamed` are the changed candles still in progress, for `update` records (the newest state, at most one in 250 ms).
    `…_after` is for memory: the whole coverage, the causes of its ends and the gaps to remember, None where unchanged, with the start of tracking that they were projected from.
    """

    candles: Sequence[StoredCandle] = ()
    candles_new: Set[CandleKey] = frozenset()
    candles_deleted: Sequence[CandleKey] = ()
    coverage_deleted: Sequence[Micros] = ()
    coverage: Sequence[SpanRow] = ()
    gaps_deleted: Sequence[Micros] = ()
    gaps: Sequence[GapRow] = ()
    streamed: Sequence[Candle] = ()
    coverage_after: SpanSet | None = None
    end_causes_after: Mapping[Micros, str] = {}
    gaps_after: Mapping[Micros, GapRow] | None = None
    projected_from: Micros | None = None


class Statistics(msgspec.Struct, frozen=True):
    """Counts of one step: trades inserted, and delivered again; trades for candles already final (`late`), and for time
    already covered (`late_in_coverage`, by market: its settling time was too short); trades older than their market's
    horizon, not stored (`expired`); candles made final, and revised.
    """

    inserted: int = 0
    duplicate: int = 0
    late: int = 0
    expired: int = 0
    late_in_coverage: Mapping[Market, int] = {}
    finals: int = 0
    revisions: int = 0


class Changes(msgspec.Struct, frozen=True):
    """All that one step changes; upserts are whole rows. Delete before upserting: a key may be in both.

    Written with the fence row: `version` + 1, `epoch`, `next_offset`, `last_append_time`, `set_apart` (None: as it was). `changed` says whether anything
    differs, the offset included: a step without it needs no commit. `open_spans_extended` is for memory alone: how far a
    span reaches is what the market's coverage says.
    """

    epoch: int
    next_offset: int
    last_append_time: Micros | None
    changed: bool
    markets: Mapping[Market, MarketChanges] = {}
    open_spans: Sequence[OpenSpan] = ()
    open_spans_deleted: Sequence[tuple[str, Market]] = ()
    open_spans_extended: Sequence[OpenSpan] = ()
    jobs: Sequence[Job] = ()
    outbox: Sequence[OutboxRecord] = ()
    set_apart: SetApart | None = None
    statistics: Statistics = Statistics()
