"""What a step writes, as absolute values: rows of the store, records for the outbox, and the candles to stream."""

from collections.abc import Mapping, Sequence

import msgspec

from vegamite_aggregator.core.state import CandleKey, GapRow, Job, OpenSpan, SpanRow, StoredCandle
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros


class OutboxRecord(msgspec.Struct, frozen=True):
    """A record to be published after the commit: topic, key (the market's), encoded value; order is the list's."""

    topic: str
    key: bytes
    value: bytes


class MarketChanges(msgspec.Struct, frozen=True):
    """One market's rows: candles and gaps to upsert and to delete by key, coverage rows to delete by `from_time` then insert.

    `streamed` are the changed candles still in progress, for `update` records (the newest state, at most one in 250 ms).
    """

    candles: Sequence[StoredCandle] = ()
    candles_deleted: Sequence[CandleKey] = ()
    coverage_deleted: Sequence[Micros] = ()
    coverage: Sequence[SpanRow] = ()
    gaps_deleted: Sequence[Micros] = ()
    gaps: Sequence[GapRow] = ()
    streamed: Sequence[Candle] = ()


class Statistics(msgspec.Struct, frozen=True):
    """Counts of one step: trades inserted and delivered again; trades for candles already final (`late`), and for time
    already covered (`late_in_coverage`, by market: its settling time was too short); candles made final and revised.
    """

    inserted: int = 0
    duplicate: int = 0
    late: int = 0
    late_in_coverage: Mapping[Market, int] = {}
    finals: int = 0
    revisions: int = 0


class Changes(msgspec.Struct, frozen=True):
    """All that one step changes. Upserts are whole rows; `jobs` and `open_spans` too.

    Written with `version` + 1, `next_offset` and `last_append_time` in the fence row. Then `state.apply(changes)`.
    """

    next_offset: int
    last_append_time: Micros | None
    markets: Mapping[Market, MarketChanges]
    open_spans: Sequence[OpenSpan]
    open_spans_deleted: Sequence[tuple[str, Market]]
    jobs: Sequence[Job]
    outbox: Sequence[OutboxRecord]
    statistics: Statistics

    @property
    def empty(self) -> bool:
        """Whether the step changes nothing at all, the offset included; such a step needs no commit."""
