"""Pages of latest trades: nothing is proved where two pages may not meet."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from vegamite_collector.core.polling import LONGEST_SECONDS, SHORTEST_SECONDS, LatestPages
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade

BEGIN = 1_600_000_000 * SECOND


def trade(number: int, event_time: int) -> Trade:
    return Trade(str(number), number, event_time, Decimal(1), Decimal(1))


@given(
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=150),
    polls=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    limit=st.integers(1, 10),
    resolution=st.sampled_from([1000, SECOND, 2 * SECOND]),
)
def test_between_pages_that_meet_every_trade_was_brought(
    steps: list[int], polls: list[int], limit: int, resolution: int
) -> None:
    history = []
    at = BEGIN
    for number, step in enumerate(steps):
        at += step * SECOND
        history.append(trade(number, at - at % resolution))
    pages = LatestPages(resolution)
    brought: set[str] = set()
    unproven_from = 0
    known = 0
    for count in [0, *polls]:
        known = min(len(history), known + count)
        page = history[max(0, known - limit) : known]
        polled = pages.take(page, sent=len(page))
        assert brought.isdisjoint({t.trade_id for t in polled.trades}) or not polled.meets
        brought |= {t.trade_id for t in polled.trades}
        if not polled.meets:
            unproven_from = known
        missing = {t.trade_id for t in history[unproven_from:known]} - brought
        assert missing == set(), "pages were said to meet with trades between them"


def test_a_quiet_market_proves_itself_with_the_same_page() -> None:
    pages = LatestPages(SECOND)
    page = [trade(1, BEGIN), trade(2, BEGIN)]
    assert pages.take(page, sent=2).meets
    again = pages.take(page, sent=2)
    assert (again.trades, again.meets) == ((), True)


def test_an_empty_market_proves_itself_but_not_what_came_before_its_first_page() -> None:
    pages = LatestPages(SECOND)
    assert pages.take([], sent=0).meets
    assert pages.take([], sent=0).meets
    first = pages.take([trade(1, BEGIN)], sent=1)
    assert (len(first.trades), first.meets) == (1, False)
    assert pages.take([trade(1, BEGIN), trade(2, BEGIN)], sent=2).meets


def test_pages_without_a_common_trade_do_not_meet() -> None:
    pages = LatestPages(SECOND)
    pages.take([trade(n, BEGIN + n * SECOND) for n in range(5)], sent=5)
    polled = pages.take([trade(n, BEGIN + n * SECOND) for n in range(20, 25)], sent=5)
    assert (len(polled.trades), polled.meets) == (5, False)


def test_a_common_trade_in_a_pages_cut_unit_of_time_is_no_proof() -> None:
    pages = LatestPages(SECOND)
    pages.take([trade(n, BEGIN) for n in range(5)], sent=5)
    polled = pages.take(
        [trade(4, BEGIN), *(trade(n, BEGIN + SECOND) for n in range(9, 13))], sent=5
    )
    assert not polled.meets


def test_busy_pages_are_asked_for_sooner_and_quiet_ones_later() -> None:
    pages = LatestPages(SECOND)
    for n in range(6):
        pages.take([trade(n * 10 + k, BEGIN + n * SECOND) for k in range(10)], sent=10)
    assert pages.wait_seconds == SHORTEST_SECONDS
    last = [trade(50 + k, BEGIN + 5 * SECOND) for k in range(10)]
    for _ in range(6):
        pages.take(last, sent=10)
    assert pages.wait_seconds == LONGEST_SECONDS
