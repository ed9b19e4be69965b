"""Gap rows from coverage: what is opened, filled, split and given up."""

import random
from typing import Any

import pytest

from vegamite_aggregator.core.gap_projection import Projection, project_gaps
from vegamite_aggregator.core.rows import GapRow
from vegamite_common.domain.coverage import GapState, Span, SpanSet
from vegamite_common.messages.trades import Unfillable


def covered(*spans: tuple[int, int]) -> SpanSet:
    return SpanSet(Span(*span) for span in spans)


def row(from_time: int, to_time: int, state: GapState = GapState.OPEN, **more: Any) -> GapRow:
    fields: dict[str, Any] = {"cause": "silence", "opened_time": 1, **more}
    return GapRow(from_time=from_time, to_time=to_time, state=state, **fields)


def project(
    before: list[GapRow],
    coverage: SpanSet,
    *,
    history_from: int = 0,
    end_causes: dict[int, str] | None = None,
    unfillable: list[Unfillable] | None = None,
    recovered: dict[int, int] | None = None,
    horizon: int = -1,
) -> Projection:
    return project_gaps(
        {gap.from_time: gap for gap in before},
        coverage=coverage,
        history_from=history_from,
        end_causes=end_causes or {},
        unfillable=unfillable or [],
        recovered=recovered or {},
        horizon=horizon,
        now=99,
    )


def shape(rows: Any) -> list[tuple[int, int, str]]:
    return sorted((gap.from_time, gap.to_time, gap.state.value) for gap in rows)


@pytest.mark.parametrize(
    ("coverage", "history_from", "holes"),
    [
        (covered(), 0, []),
        (covered((0, 10)), 0, []),
        (covered((5, 10)), 0, [(0, 5, "history")]),
        (covered((0, 10), (20, 30)), 0, [(10, 20, "lost")]),
        (covered((0, 10), (20, 30)), 15, [(15, 20, "history")]),
        (covered((0, 10), (20, 30)), 25, []),
        (covered((0, 10), (20, 30)), 50, []),
        (covered((0, 10), (20, 30), (31, 40)), 0, [(10, 20, "lost"), (30, 31, "silence")]),
    ],
)
def test_holes_open_from_the_start_of_tracking_to_the_end_of_coverage(
    coverage: SpanSet, history_from: int, holes: list[tuple[int, int, str]]
) -> None:
    result = project([], coverage, history_from=history_from, end_causes={10: "lost"})

    assert [(gap.from_time, gap.to_time, gap.cause) for gap in result.upserted] == holes
    assert result.opened == result.upserted
    assert all(gap.opened_time == 99 and gap.closed_time is None for gap in result.opened)


def test_a_hole_covered_at_once_is_filled_with_what_was_recovered() -> None:
    result = project([row(10, 20, recovered=2)], covered((0, 30)), recovered={10: 3})

    (filled,) = result.upserted
    assert filled == row(10, 20, GapState.FILLED, recovered=5, closed_time=99)
    assert result.filled == (filled,)
    assert result.remembered == {}


def test_a_hole_covered_from_the_left_moves_on_and_its_filled_part_grows() -> None:
    first = project([row(10, 20)], covered((0, 13), (20, 30)), recovered={10: 1})
    assert shape(first.upserted) == [(10, 13, "filled"), (13, 20, "open")]
    assert first.filled == first.opened == ()

    second = project(list(first.remembered.values()), covered((0, 16), (20, 30)), recovered={13: 2})
    assert shape(second.upserted) == [(10, 16, "filled"), (16, 20, "open")]
    assert second.deleted == (13,)

    last = project(list(second.remembered.values()), covered((0, 30)))
    assert shape(last.upserted) == [(10, 20, "filled")]
    assert last.deleted == (16,)
    assert [gap.recovered for gap in last.filled] == [3]


def test_a_hole_covered_from_the_right_keeps_its_row() -> None:
    result = project([row(10, 20)], covered((0, 10), (15, 30)))

    assert shape(result.upserted) == [(10, 15, "open"), (15, 20, "filled")]
    assert result.deleted == ()


def test_a_hole_covered_in_the_middle_becomes_two() -> None:
    result = project([row(10, 20)], covered((0, 10), (13, 15), (20, 30)))

    assert shape(result.remembered.values()) == [
        (10, 13, "open"),
        (13, 15, "filled"),
        (15, 20, "open"),
    ]
    assert result.opened == ()


def test_what_is_gone_is_cut_out_of_the_open_rows_alone() -> None:
    result = project(
        [row(10, 20), row(30, 40, GapState.UNFILLABLE, reason="old", closed_time=5)],
        covered((0, 10), (20, 30), (40, 50)),
        unfillable=[Unfillable(5, 15, "expired"), Unfillable(25, 50, "expired")],
    )

    assert shape(result.upserted) == [(10, 15, "unfillable"), (15, 20, "open")]
    assert [(gap.reason, gap.closed_time) for gap in result.unfillable] == [("expired", 99)]


def test_what_was_given_up_can_still_be_filled() -> None:
    gone = row(10, 20, GapState.UNFILLABLE, reason="expired", closed_time=5)
    result = project([gone], covered((0, 30)))

    assert result.upserted == (row(10, 20, GapState.FILLED, closed_time=99),)
    assert result.filled == result.upserted


def test_a_new_hole_that_is_given_up_at_once_is_never_told_to_be_open() -> None:
    result = project([], covered((5, 10)), unfillable=[Unfillable(0, 3, "no history")])

    assert [(gap.from_time, gap.to_time) for gap in result.opened] == [(3, 5)]
    assert [(gap.from_time, gap.to_time) for gap in result.unfillable] == [(0, 3)]


def test_what_precedes_a_later_start_of_tracking_is_forgotten() -> None:
    result = project([row(0, 5), row(10, 20)], covered((5, 10), (20, 30)), history_from=12)

    assert result.deleted == (0, 10)
    assert shape(result.upserted) == [(12, 20, "open")]
    assert result.filled == ()


def test_nothing_is_written_where_nothing_changed() -> None:
    before = [row(10, 20), row(30, 40, GapState.UNFILLABLE, reason="gone")]
    result = project(before, covered((0, 10), (20, 30), (40, 50)))

    assert (result.deleted, result.upserted, result.opened, result.unfillable) == ((), (), (), ())
    assert sorted(result.remembered) == [10, 30]


@pytest.mark.parametrize("seed", range(200))
def test_rows_follow_any_growth_of_coverage(seed: int) -> None:
    rng = random.Random(seed)
    coverage = SpanSet()
    table: dict[int, GapRow] = {}
    remembered: list[GapRow] = []
    counted = 0
    for _ in range(rng.randint(1, 25)):
        for _ in range(rng.randint(0, 2)):
            start = rng.randint(0, 60)
            coverage = coverage.add(start, start + rng.randint(1, 12))
        gone = []
        if rng.random() < 0.3:
            start = rng.randint(0, 60)
            gone.append(Unfillable(start, start + rng.randint(1, 12), "gone"))
        recovered = {
            gap.from_time: rng.randint(0, 3)
            for gap in remembered
            if gap.state is not GapState.FILLED
        }
        counted += sum(recovered.values())
        result = project(remembered, coverage, history_from=5, unfillable=gone, recovered=recovered)
        for start in result.deleted:
            del table[start]
        table.update({gap.from_time: gap for gap in result.upserted})
        remembered = list(result.remembered.values())

        end = coverage.end or 0
        missing = [gap for gap in table.values() if gap.state is not GapState.FILLED]
        assert SpanSet(Span(g.from_time, g.to_time) for g in missing) == coverage.missing(5, end)
        for gap in table.values():
            assert gap.state is not GapState.FILLED or coverage.covers(gap.from_time, gap.to_time)
        assert sum(gap.to_time - gap.from_time for gap in table.values()) == len(
            {at for gap in table.values() for at in range(gap.from_time, gap.to_time)}
        )
        assert {gap.from_time for gap in missing} <= set(result.remembered)
        assert all(table[gap.from_time] == gap for gap in remembered)
    assert sum(gap.recovered for gap in table.values()) == counted
