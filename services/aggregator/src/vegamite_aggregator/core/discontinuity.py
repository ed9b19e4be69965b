"""When the log can't go on where it was read to: it lost what was next, or another log takes its place."""

from vegamite_aggregator.core.changes import Changes, MarketChanges
from vegamite_aggregator.core.rows import SpanRow
from vegamite_aggregator.core.state import PartitionState
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros

LOG_LOST = "log_lost"
"""The cause of a gap that records lost with the log left."""


def discontinuity(state: PartitionState, *, next_offset: int, epoch: int | None = None) -> Changes:
    """Return the changes that make reading go on at `next_offset`: every open span ends at its stored `to_time`.

    `epoch` is the new log epoch, None where it stays. Later heartbeats extend nothing; writers open new spans.
    """
    ends: dict[Market, dict[Micros, str]] = {}
    for span in state.open_spans.values():
        ends.setdefault(span.market, {})[span.to_time] = LOG_LOST
    markets: dict[Market, MarketChanges] = {}
    for market, causes in ends.items():
        coverage = state.markets[market].coverage
        rows = [
            SpanRow(span.from_time, span.to_time, causes[span.to_time])
            for span in coverage
            if span.to_time in causes
        ]
        if rows:
            markets[market] = MarketChanges(
                coverage=tuple(rows),
                coverage_after=coverage,
                end_causes_after={
                    **state.markets[market].end_causes,
                    **{row.to_time: LOG_LOST for row in rows},
                },
            )
    return Changes(
        epoch=state.epoch if epoch is None else epoch,
        next_offset=next_offset,
        last_append_time=state.last_append_time,
        changed=True,
        markets=markets,
        open_spans_deleted=tuple(state.open_spans),
    )
