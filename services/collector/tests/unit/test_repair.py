"""The repair of a gap, page by page, against an exchange whose whole history is known."""

from dataclasses import replace
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_collector.core.profile import ExchangeProfile, profile_for
from vegamite_collector.core.repair import (
    Page,
    PageRequest,
    RepairPlan,
    newest_first,
    split_records,
)
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.time import HOUR, MINUTE, SECOND
from vegamite_common.domain.trade import Trade

BEGIN = 1_600_000_000 * SECOND
MS = 1000
Backfill = Literal["by_id", "by_time", "recent_n", "none"]


def trade(number: int, event_time: int) -> Trade:
    return Trade(str(number), number, event_time, Decimal(100), Decimal(1), "buy")


class Venue:
    """REST of an exchange with a fixed history and real limits."""

    def __init__(self, trades: list[Trade], *, settled: int) -> None:
        self.trades = trades
        self.now = settled
        self.asked = 0

    def answer(self, request: PageRequest) -> Page:
        assert request.limit is not None
        self.asked += 1
        assert self.asked < 5_000, "the plan doesn't end"
        if request.from_id is not None:
            found = [t for t in self.trades if t.sequence >= request.from_id][: request.limit]
        elif request.since is not None:
            until = request.until if request.until is not None else 1 << 62
            found = [t for t in self.trades if request.since <= t.event_time < until][
                : request.limit
            ]
        else:
            found = self.trades[-request.limit :]
        return Page(tuple(found), len(found), self.now)


def profile(
    backfill: Backfill, *, limit: int, resolution: int, window: int | None = None
) -> ExchangeProfile:
    return ExchangeProfile(
        exchange="x",
        ids_numeric=True,
        time_resolution=resolution,
        backfill=backfill,
        page_limit=limit,
        page_window=window,
    )


def run(plan: RepairPlan, venue: Venue) -> tuple[dict[str, Trade], SpanSet]:
    """Follow the plan to its end; checks at each step that a claim's trades are there before it."""
    published: dict[str, Trade] = {}
    covered = SpanSet()
    while not plan.done:
        proven = plan.take(venue.answer(plan.next_request()))
        if proven is None:
            continue
        published.update({item.trade_id: item for item in proven.trades})
        if proven.covered is not None:
            low, high = proven.covered
            assert plan.gap.from_time <= low < high <= plan.gap.to_time
            missing = [
                t
                for t in venue.trades
                if low <= t.event_time < high and t.trade_id not in published
            ]
            assert missing == [], "claimed, but not published"
            covered = covered.add(low, high)
    return published, covered


histories = st.lists(st.integers(0, 40), max_size=120).map(
    lambda steps: [
        trade(number + 1, BEGIN + sum(steps[: number + 1]) * 250 * MS)
        for number in range(len(steps))
    ]
)


@given(
    history=histories,
    gap=st.tuples(st.integers(-5, 900), st.integers(1, 900)),
    limit=st.integers(2, 30),
    resolution=st.sampled_from([MS, 250 * MS, SECOND]),
    window=st.sampled_from([None, 7 * SECOND, HOUR]),
    backfill=st.sampled_from(["by_id", "by_time", "recent_n"]),
)
def test_every_instant_of_a_gap_is_claimed_with_its_trades_or_given_up_with_a_reason(
    history: list[Trade],
    gap: tuple[int, int],
    limit: int,
    resolution: int,
    window: int | None,
    backfill: Backfill,
) -> None:
    floored = [replace_time(t, t.event_time - t.event_time % resolution) for t in history]
    begin = BEGIN + gap[0] * 137 * MS
    span = Span(begin, begin + gap[1] * 173 * MS)
    venue = Venue(floored, settled=BEGIN + 10_000 * SECOND)
    plan = RepairPlan(
        gap=span,
        profile=profile(backfill, limit=limit, resolution=resolution, window=window),
        settling=SECOND,
    )
    _, covered = run(plan, venue)
    given_up = plan.unfillable
    if given_up is None:
        assert list(covered) == [span]
        return
    assert given_up.reason in {"last_trades_only", "page_limit"}
    together = covered.add(given_up.from_time, given_up.to_time)
    # A page full of one instant ends the job there; what lies behind it is another gap.
    end = span.to_time if given_up.reason == "last_trades_only" else given_up.to_time
    assert together.covers(span.from_time, end)


def replace_time(item: Trade, event_time: int) -> Trade:
    return Trade(item.trade_id, item.sequence, event_time, item.price, item.amount, item.taker_side)


def test_trades_that_share_a_pages_last_millisecond_are_all_fetched() -> None:
    history = [trade(n, BEGIN + (n // 4) * MS) for n in range(1, 60)]
    for backfill in ("by_id", "by_time"):
        venue = Venue(history, settled=BEGIN + HOUR)
        plan = RepairPlan(
            gap=Span(BEGIN, BEGIN + SECOND),
            profile=profile(backfill, limit=5, resolution=MS),
            settling=SECOND,
        )
        published, covered = run(plan, venue)
        assert set(published) == {t.trade_id for t in history}
        assert list(covered) == [Span(BEGIN, BEGIN + SECOND)]


def test_pages_by_id_go_on_where_a_millisecond_is_larger_than_a_page() -> None:
    history = [trade(n, BEGIN) for n in range(1, 40)] + [trade(40, BEGIN + 5 * MS)]
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + SECOND),
        profile=profile("by_id", limit=10, resolution=MS),
        settling=SECOND,
    )
    published, _ = run(plan, Venue(history, settled=BEGIN + HOUR))
    assert len(published) == 40
    assert plan.unfillable is None


def test_pages_by_time_give_up_a_millisecond_that_is_larger_than_a_page() -> None:
    history = [trade(n, BEGIN) for n in range(1, 40)]
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + SECOND),
        profile=profile("by_time", limit=10, resolution=MS),
        settling=SECOND,
    )
    _, covered = run(plan, Venue(history, settled=BEGIN + HOUR))
    assert plan.unfillable is not None
    assert plan.unfillable.reason == "page_limit"
    assert (plan.unfillable.from_time, plan.unfillable.to_time) == (BEGIN, BEGIN + MS)
    assert not covered.contains(BEGIN)


def test_a_claim_ends_a_settling_time_before_its_fetch_began() -> None:
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + 10 * SECOND),
        profile=profile("by_time", limit=10, resolution=MS),
        settling=2 * SECOND,
    )
    proven = plan.take(Page((), 0, BEGIN + 5 * SECOND))
    assert proven is not None
    assert proven.covered == (BEGIN, BEGIN + 3 * SECOND)


def test_a_full_page_of_the_last_trades_claims_from_one_resolution_behind_its_oldest() -> None:
    history = [trade(n, BEGIN + n * SECOND) for n in range(1, 30)]
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + 29 * SECOND),
        profile=profile("recent_n", limit=10, resolution=SECOND),
        settling=SECOND,
    )
    _, covered = run(plan, Venue(history, settled=BEGIN + HOUR))
    assert list(covered) == [Span(BEGIN + 21 * SECOND, BEGIN + 29 * SECOND)]
    assert plan.unfillable is not None
    assert plan.unfillable.reason == "last_trades_only"
    assert (plan.unfillable.from_time, plan.unfillable.to_time) == (BEGIN, BEGIN + 21 * SECOND)


def test_an_exchange_without_history_gives_the_gap_up_without_a_question() -> None:
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + SECOND),
        profile=profile("none", limit=10, resolution=MS),
        settling=0,
    )
    assert plan.done
    assert plan.unfillable is not None
    assert plan.unfillable.reason == "no_history"


def test_an_empty_window_is_no_end_of_history() -> None:
    history = [trade(1, BEGIN), trade(2, BEGIN + 5 * HOUR)]
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + 6 * HOUR),
        profile=profile("by_id", limit=10, resolution=MS, window=HOUR),
        settling=SECOND,
    )
    published, covered = run(plan, Venue(history, settled=BEGIN + 7 * HOUR))
    assert set(published) == {"1", "2"}
    assert list(covered) == [Span(BEGIN, BEGIN + 6 * HOUR)]


def test_a_page_with_a_quarantined_trade_claims_nothing_and_says_why() -> None:
    plan = RepairPlan(
        gap=Span(BEGIN, BEGIN + SECOND),
        profile=profile("by_id", limit=10, resolution=MS),
        settling=0,
    )
    proven = plan.take(Page((trade(1, BEGIN),), 2, BEGIN + HOUR, quarantined=1))
    assert proven is not None
    assert proven.covered is None
    assert len(proven.trades) == 1
    assert plan.unfillable is not None
    assert plan.unfillable.reason == "quarantined"


def test_the_wait_for_numbers_of_one_exchange_can_be_set() -> None:
    assert profile_for("binance", settling_seconds=3).settling_seconds == 3
    assert replace(profile_for("binance"), settling_seconds=3) == profile_for(
        "binance", settling_seconds=3
    )


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (1000, [1000]), (2001, [1000, 1000, 1])]
)
def test_records_hold_at_most_a_thousand_trades(count: int, sizes: list[int]) -> None:
    trades = [trade(n, BEGIN + n) for n in range(count)]
    runs = split_records(trades)
    assert [len(part) for part in runs] == sizes
    assert [item for part in runs for item in part] == trades


def test_of_a_long_gap_that_just_ended_the_last_hour_comes_first_then_all_the_rest() -> None:
    day = Span(BEGIN - 24 * HOUR, BEGIN)
    first = newest_first(day, now=BEGIN + 6 * SECOND, recent=30 * SECOND)
    assert first == Span(BEGIN - HOUR, BEGIN)
    rest = Span(day.from_time, first.from_time)
    assert newest_first(rest, now=BEGIN + 9 * SECOND, recent=30 * SECOND) == rest


def test_a_short_gap_and_an_old_one_are_fetched_whole() -> None:
    short = Span(BEGIN - 90 * MINUTE, BEGIN)
    assert newest_first(short, now=BEGIN + 6 * SECOND, recent=30 * SECOND) == short
    old = Span(BEGIN - 24 * HOUR, BEGIN - HOUR)
    assert newest_first(old, now=BEGIN, recent=30 * SECOND) == old
