"""What memory keeps and forgets."""

from decimal import Decimal
from typing import Any

import pytest

from vegamite_aggregator.core.candle_cache import FOREVER, KEPT_OTHERS, KEPT_SECONDS, NEVER
from vegamite_aggregator.core.changes import Changes, MarketChanges
from vegamite_aggregator.core.demand import Loaded, OpenCandles, Wants
from vegamite_aggregator.core.rows import Job, OpenSpan, SpanRow, StoredCandle
from vegamite_aggregator.core.state import MarketState, PartitionState, due
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.coverage import Span, SpanSet
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, SECOND, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin

NOON = parse_time("2024-02-29T12:00:00Z")
MARKET = Market("kraken", "BTC/USD")


def stored(
    number: int,
    *,
    timeframe: Timeframe = Timeframe.S1,
    final: bool = True,
    complete: bool = False,
    held_by: tuple[str, ...] = (),
) -> StoredCandle:
    at = timeframe.open_time(NOON) + number * (timeframe.length or 0)
    one = Decimal(1)
    candle = Candle(
        timeframe=timeframe,
        open_time=at,
        open=one,
        high=one,
        low=one,
        close=one,
        volume=one,
        quote_volume=one,
        buy_volume=one,
        buy_quote_volume=one,
        trade_count=1,
        first_event_time=at,
        first_sequence=0,
        first_trade_id="1",
        last_event_time=at,
        last_sequence=0,
        last_trade_id="1",
        epoch=0,
        as_of=0,
        updated_at=NOON,
        final=final,
        complete=complete,
    )
    return StoredCandle(candle, held_by)


def new_market() -> MarketState:
    """Return a market of which nothing is stored."""
    return MarketState(
        contract=None, history_from=None, newest_event_time=NEVER, open_close_time=FOREVER
    )


def market_with(*candles: StoredCandle) -> MarketState:
    market = new_market()
    market.apply(MarketChanges(candles=candles))
    return market


def partition(market: MarketState, **more: Any) -> PartitionState:
    fields: dict[str, Any] = {"markets": {MARKET: market}, **more}
    return PartitionState(
        partition=0, epoch=0, version=5, next_offset=7, last_append_time=NOON, **fields
    )


def test_a_busy_market_keeps_its_newest_and_knows_what_is_resident() -> None:
    seconds = [stored(number) for number in range(300)]
    minutes = [stored(number, timeframe=Timeframe.M1) for number in range(10)]
    market = market_with(*seconds, *minutes)

    kept = [stored.key for stored in (*seconds[-KEPT_SECONDS:], *minutes[-KEPT_OTHERS:])]
    assert sorted(market.candles) == sorted(kept)
    dropped = seconds[-KEPT_SECONDS - 1].candle.open_time
    assert market.resident_from(Timeframe.S1) == dropped + 1
    assert market.resident_from(Timeframe.M1) == minutes[-KEPT_OTHERS - 1].candle.open_time + 1
    assert market.resident_from(Timeframe.H1) < NOON
    assert market.incomplete_before > dropped


def test_a_busy_market_never_drops_what_still_waits_for_its_end() -> None:
    waiting = [stored(number, final=False) for number in range(0, 300, 30)]
    others = [stored(number) for number in range(300) if number % 30]
    market = market_with(*waiting, *others)

    assert len(market.candles) < 100
    assert {row.key for row in waiting} <= market.candles.keys()
    assert market.unsettled.keys() == {row.key for row in waiting}
    assert market.open_close_time == FOREVER


def test_a_held_candle_can_be_dropped_though_it_is_not_final() -> None:
    held = stored(0, final=False, held_by=("j",))
    market = market_with(held, *(stored(number) for number in range(1, 300)))

    assert held.key not in market.candles
    assert market.resident_from(Timeframe.S1) > held.candle.open_time


def test_few_candles_are_all_kept() -> None:
    assert len(market_with(*(stored(number) for number in range(200))).candles) == 200


def test_a_market_that_let_its_candles_go_knows_what_it_has_to_look_at_again() -> None:
    market = market_with(
        stored(0),
        stored(1, complete=True),
        stored(2, final=False),
        stored(3, final=False, held_by=("j",)),
        stored(0, timeframe=Timeframe.H1, final=False),
    )
    market.forget_candles()

    assert not market.candles
    assert not market.unsettled
    assert market.next_close() == NOON + 3 * SECOND
    assert market.incomplete_before == NOON + 1
    assert market.newest_event_time == NOON + 3 * SECOND
    assert market.resident_from(Timeframe.S1) == NOON + 3 * SECOND + 1
    assert market.resident_from(Timeframe.D1) == Timeframe.D1.open_time(NOON) + 1

    market.admit([stored(2, final=False), stored(0, timeframe=Timeframe.H1, final=False)])
    assert len(market.unsettled) == 2
    assert market.open_close_time == FOREVER
    assert market.resident_from(Timeframe.S1) == NOON + 3 * SECOND + 1


def test_what_comes_after_a_market_let_its_candles_go_does_not_make_older_ones_resident() -> None:
    market = market_with(stored(0), stored(0, final=False, timeframe=Timeframe.M1))
    market.forget_candles()
    market.apply(MarketChanges(candles=[stored(90, final=False)]))

    assert market.resident_from(Timeframe.S1) == NOON + 1
    assert market.newest_event_time == NOON + 90 * SECOND
    assert market.open_close_time == market.next_close() == NOON + MINUTE


def test_the_markets_touched_last_stay_in_memory() -> None:
    names = [Market("kraken", f"{letter}/USD") for letter in "ABC"]
    state = partition(new_market(), markets={name: new_market() for name in names})

    def touch(name: Market, number: int) -> None:
        changes = MarketChanges(candles=[stored(number, final=False)])
        state.apply(Changes(0, number, NOON, changed=True, markets={name: changes}))

    for number, name in enumerate((*names, names[0])):
        touch(name, number)
    covered = MarketChanges(coverage_after=SpanSet([Span(NOON, NOON + SECOND)]))
    state.apply(Changes(0, 9, NOON, changed=True, markets={names[1]: covered}))

    assert (state.resident_candles, state.resident_markets) == (4, 3)
    assert state.evict(4) == 0
    assert state.evict(3) == 1
    assert [bool(state.markets[name].candles) for name in names] == [True, False, True]
    assert state.evict(2) == 1
    assert [bool(state.markets[name].candles) for name in names] == [True, False, False]
    assert state.evict(0) == 1
    assert (state.resident_candles, state.resident_markets) == (0, 0)

    wants = Wants(open_candles=[OpenCandles(names[1], NOON, NOON)])
    state.admit(wants, Loaded(open_candles={names[1]: [stored(1, final=False)]}))
    assert (state.resident_candles, state.resident_markets) == (1, 1)
    assert state.markets[names[1]].unsettled == {stored(1).key: NOON + 2 * SECOND}


@pytest.mark.parametrize(
    ("row", "waits", "incomplete"),
    [
        (stored(0, final=False), True, False),
        (stored(0, final=False, held_by=("j",)), False, False),
        (stored(0), False, True),
        (stored(0, held_by=("j",)), False, False),
        (stored(0, complete=True), False, False),
    ],
)
def test_what_waits_is_known_by_its_state(row: StoredCandle, waits: bool, incomplete: bool) -> None:
    for market in (
        market_with(row),
        market_with(stored(0, final=False), row),
        market_with(stored(0), row),
    ):
        assert (row.key in market.unsettled) is waits
        assert (row.key in market.incomplete) is incomplete
        assert market.next_close() == (NOON + SECOND if waits else FOREVER)


def test_where_nothing_is_known_everything_is_asked_for() -> None:
    unknown = MarketState(contract=None, history_from=None)

    assert {unknown.resident_from(timeframe) for timeframe in Timeframe} == {FOREVER}
    assert unknown.incomplete_before == FOREVER
    assert unknown.next_close() == NEVER
    assert {new_market().resident_from(timeframe) for timeframe in Timeframe} == {NEVER}


def test_memory_takes_over_what_was_committed_and_counts_the_commit() -> None:
    span = OpenSpan("w", MARKET, NOON, NOON)
    job = Job("j", MARKET, Origin.IMPORT, NOON, NOON)
    state = partition(market_with(stored(0)), open_spans=[span], jobs=[job])
    coverage = SpanSet([Span(NOON, NOON + SECOND)])
    state.apply(
        Changes(
            epoch=1,
            next_offset=9,
            last_append_time=NOON + 1,
            changed=True,
            markets={
                MARKET: MarketChanges(
                    candles=[stored(1)],
                    candles_deleted=[stored(0).key],
                    coverage=[SpanRow(NOON, NOON + SECOND, "stop")],
                    coverage_after=coverage,
                    end_causes_after={NOON + SECOND: "stop"},
                )
            },
            open_spans_deleted=[("w", MARKET)],
            jobs=[
                Job("j", MARKET, Origin.IMPORT, NOON, NOON, "ended", NOON),
                Job("k", MARKET, Origin.IMPORT, NOON, NOON),
            ],
        )
    )

    market = state.markets[MARKET]
    assert (state.version, state.epoch, state.next_offset) == (6, 1, 9)
    assert state.last_append_time == NOON + 1
    assert (list(state.jobs), state.open_spans) == (["k"], {})
    assert list(market.candles) == [stored(1).key]
    assert (market.coverage, market.end_causes) == (coverage, {NOON + SECOND: "stop"})


@pytest.mark.parametrize(
    ("log_time", "expected"),
    [
        (None, False),
        (NOON + SECOND + Timing().grace - 1, False),
        (NOON + SECOND + Timing().grace, True),
    ],
)
def test_a_step_is_due_when_the_first_candle_has_had_its_grace(
    log_time: int | None, expected: bool
) -> None:
    state = partition(market_with(stored(0, final=False), stored(1, final=False)))

    assert due(state, log_time=log_time, timing=Timing()) is expected


def test_a_step_is_due_while_a_job_that_is_over_still_holds_something() -> None:
    job = Job("j", MARKET, Origin.IMPORT, NOON, NOON, ended_time=NOON)
    state = partition(market_with(), jobs=[job])

    assert due(state, log_time=NOON, timing=Timing())
