"""What a writer may claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_collector.core.coverage import (
    ClockProof,
    OpenSpan,
    SkewTimer,
    compare_clocks,
    heartbeat_time,
    late_trade_count,
    raised_settling,
)


def test_a_heartbeat_is_the_least_proof_less_the_settling_time() -> None:
    spans = [OpenSpan(0, 5_000, 1_000), OpenSpan(0, 9_000, 2_000), OpenSpan(0, 8_000, 1_000)]
    assert heartbeat_time(spans, now=10_000, settling=1_000) == 4_000


def test_a_partition_without_spans_beats_behind_its_clock() -> None:
    assert heartbeat_time([], now=10_000, settling=1_000) == 9_000


def test_a_proof_from_the_future_claims_nothing_beyond_the_clock() -> None:
    assert heartbeat_time([OpenSpan(0, 20_000, 1_000)], now=10_000, settling=1_000) == 9_000


def test_an_answer_read_late_proves_only_when_its_ping_was_sent() -> None:
    span = OpenSpan(from_time=100, proven_time=1_000, settling=100)
    span.prove(3_000)
    span.prove(2_000)
    assert span.claim == 2_900


def test_a_span_closes_at_its_own_proof_or_before_what_was_missed() -> None:
    span = OpenSpan(from_time=100, proven_time=1_000, settling=100)
    assert span.closing() == 900
    assert span.closing(500) == 500
    assert span.closing(5_000) == 900


def test_only_trades_of_the_spans_own_claimed_time_are_late() -> None:
    span = OpenSpan(from_time=100, proven_time=1_000, settling=100)
    assert late_trade_count(span, [99, 100, 500, 899, 900, 2_000], claimed=900) == 3


def test_the_settling_time_doubles_up_to_a_limit() -> None:
    assert raised_settling(10, own=10) == 20
    assert raised_settling(160, own=10) == 300
    assert raised_settling(300, own=10) == 300


@pytest.mark.parametrize(
    ("sent", "acked", "append", "expected"),
    [
        (0, 5, 3, ClockProof.AGREES),
        (0, 400, 400, ClockProof.AGREES),
        (0, 5, 406, ClockProof.DIFFERS),
        (0, 5, -401, ClockProof.DIFFERS),
        (0, 2_000, 1_000, ClockProof.UNPROVEN),
        (0, 2_000, 100, ClockProof.UNPROVEN),
    ],
)
def test_clocks_agree_only_where_the_record_proves_it(
    sent: int, acked: int, append: int, expected: ClockProof
) -> None:
    assert (
        compare_clocks(sent_time=sent, acked_time=acked, append_time=append, limit=400) is expected
    )


@given(
    difference=st.integers(-5_000, 5_000),
    before=st.integers(0, 3_000),
    after=st.integers(0, 3_000),
)
def test_no_delay_makes_wrong_clocks_agree_or_right_ones_differ(
    difference: int, before: int, after: int
) -> None:
    append = 1_000_000
    proof = compare_clocks(
        sent_time=append + difference - before,
        acked_time=append + difference + after,
        append_time=append,
        limit=400,
    )
    if proof is ClockProof.AGREES:
        assert abs(difference) <= 400
    if abs(difference) <= 400:
        assert proof is not ClockProof.DIFFERS


def test_the_row_of_disagreements_ends_with_an_agreement_alone() -> None:
    timer = SkewTimer()
    timer.note(ClockProof.DIFFERS, 100)
    timer.note(ClockProof.UNPROVEN, 200)
    timer.note(ClockProof.DIFFERS, 300)
    assert timer.exceeds(200, 300)
    assert not timer.exceeds(201, 300)
    timer.note(ClockProof.AGREES, 400)
    assert not timer.exceeds(0, 500)
