"""The monoid and the roll-up, against a plain fold of each trade into each timeframe."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, Inexact, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vegamite_aggregator.core.fold import Series, TradeFold, fold_records, roll_series
from vegamite_aggregator.core.tally import (
    Standing,
    Tally,
    candle_of,
    exactly,
    merge,
    merge_all,
    tally_of,
)
from vegamite_common.domain.market import Contract
from vegamite_common.domain.time import DAY, SECOND, parse_time
from vegamite_common.domain.timeframe import SOURCES, Timeframe
from vegamite_common.domain.trade import Trade

START = parse_time("2024-02-28T23:59:30Z")
STANDING = Standing(epoch=0, as_of=0, updated_at=0)

decimals = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(-exponent),
    st.integers(1, 10**18),
    st.integers(0, 20),
)


@st.composite
def trade_lists(draw: st.DrawFn, *, span: int = 400 * DAY) -> list[Trade]:
    count = draw(st.integers(1, 40))
    times = st.integers(START, START + span) | st.integers(START, START + 3 * SECOND)
    return [
        Trade(
            trade_id=draw(st.text("09aZé", min_size=1, max_size=3)) + f"-{number}",
            sequence=draw(st.integers(-2, 2)),
            event_time=draw(times),
            price=draw(decimals),
            amount=draw(decimals),
            taker_side=draw(st.sampled_from(["buy", "sell", None])),
        )
        for number in range(count)
    ]


contracts = st.none() | st.builds(
    Contract, st.sampled_from([Decimal("0.001"), Decimal(1), Decimal(100)]), st.booleans()
)


def numbers(folded: dict[Timeframe, Series], numbers_of: Callable[..., Any]) -> dict[Any, Any]:
    with exactly():
        return {
            (timeframe, at): numbers_of(candle_of(timeframe, at, tally, STANDING))
            for timeframe, series in folded.items()
            for at, tally in series.items()
        }


def merged(parts: Iterable[dict[Timeframe, Series]]) -> dict[Timeframe, Series]:
    collected: dict[Timeframe, dict[int, list[Tally]]] = {}
    for part in parts:
        for timeframe, series in part.items():
            for at, tally in series.items():
                collected.setdefault(timeframe, {}).setdefault(at, []).append(tally)
    with exactly():
        return {
            timeframe: {at: merge_all(tallies) for at, tallies in series.items()}
            for timeframe, series in collected.items()
        }


@given(trades=trade_lists(), contract=contracts)
def test_every_timeframe_equals_the_plain_fold_of_its_trades(
    trades: list[Trade],
    contract: Contract | None,
    fold_plainly: Callable[..., Any],
    numbers_of: Callable[..., Any],
) -> None:
    folded = numbers(fold_records([trades], contract), numbers_of)

    assert folded == fold_plainly(trades, contract)


@given(trades=trade_lists(), contract=contracts, data=st.data())
def test_any_order_and_any_batches_give_the_same_candles_to_the_last_digit(
    trades: list[Trade],
    contract: Contract | None,
    data: st.DataObject,
    numbers_of: Callable[..., Any],
) -> None:
    expected = numbers(fold_records([trades], contract), numbers_of)
    shuffled = data.draw(st.permutations(trades))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(trades)), max_size=4)))
    bounds = [0, *cuts, len(trades)]
    batches = [shuffled[start:end] for start, end in itertools.pairwise(bounds) if start < end]

    parts = [fold_records([batch], contract) for batch in data.draw(st.permutations(batches))]

    assert numbers(merged(parts), numbers_of) == expected


@given(trades=trade_lists(span=2 * SECOND), data=st.data())
def test_merge_is_associative_and_commutative(trades: list[Trade], data: st.DataObject) -> None:
    if len(trades) < 3:
        trades = [*trades, *trades, *trades]
        trades = [
            Trade(f"{t.trade_id}{n}", t.sequence, t.event_time, t.price, t.amount, t.taker_side)
            for n, t in enumerate(trades)
        ]
    cut = sorted(data.draw(st.sets(st.integers(1, len(trades) - 1), min_size=2, max_size=2)))
    one, two, three = (
        _total(part) for part in (trades[: cut[0]], trades[cut[0] : cut[1]], trades[cut[1] :])
    )
    with exactly():
        assert merge(one, two) == merge(two, one)
        assert merge(merge(one, two), three) == merge(one, merge(two, three))
        assert merge_all([three, one, two]) == _total(trades)


def _total(trades: Sequence[Trade]) -> Tally:
    with exactly():
        return merge_all(fold_records([trades], None)[Timeframe.S1].values())


@given(trades=trade_lists())
@settings(max_examples=40)
def test_each_timeframe_is_the_merge_of_its_source_whatever_the_source(trades: list[Trade]) -> None:
    folded = fold_records([trades], None)
    with exactly():
        for timeframe, source in SOURCES.items():
            if source is not None:
                assert roll_series(folded[source], timeframe) == folded[timeframe]
                assert roll_series(folded[Timeframe.S1], timeframe) == folded[timeframe]


@given(trades=trade_lists(), data=st.data())
@settings(max_examples=40)
def test_adding_portion_by_portion_totals_the_same(
    trades: list[Trade], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(trades)))
    fold = TradeFold(None)
    fold.add(trades[cut:])
    fold.add(trades[:cut])

    assert fold.total() == fold_records([trades], None)


@given(trades=trade_lists())
def test_a_candle_gives_back_the_tally_it_was_made_of(trades: list[Trade]) -> None:
    with exactly():
        for timeframe, series in fold_records([trades], None).items():
            for at, tally in series.items():
                candle = candle_of(timeframe, at, tally, STANDING)
                assert tally_of(candle) == tally


@pytest.mark.parametrize(
    ("sequences", "opens", "closes"),
    [((3, 1, 2), "b", "a"), ((10, 9, 8), "c", "a"), ((1, 1, 1), "a", "c"), ((-1, 0, -2), "c", "b")],
)
def test_open_and_close_follow_the_total_order_inside_one_instant(
    sequences: tuple[int, int, int], opens: str, closes: str
) -> None:
    prices = dict(zip("abc", (Decimal(5), Decimal(7), Decimal(6)), strict=True))
    trades = [
        Trade(trade_id, sequence, START, prices[trade_id], Decimal(1))
        for trade_id, sequence in zip("abc", sequences, strict=True)
    ]
    tally = fold_records([trades], None)[Timeframe.S1][START]

    assert (tally.open, tally.close) == (prices[opens], prices[closes])
    assert (tally.first_trade_id, tally.last_trade_id) == (opens, closes)


def test_ids_of_one_instant_order_by_their_bytes_not_their_numbers() -> None:
    trades = [Trade(name, 0, START, Decimal(1), Decimal(1)) for name in ("9", "10", "é", "z")]
    tally = fold_records([trades], None)[Timeframe.S1][START]

    assert (tally.first_trade_id, tally.last_trade_id) == ("10", "é")


@pytest.mark.parametrize(
    ("timeframe", "at", "opens"),
    [
        (Timeframe.W1, "2024-03-03T23:59:59Z", "2024-02-26T00:00:00Z"),
        (Timeframe.W1, "2024-03-04T00:00:00Z", "2024-03-04T00:00:00Z"),
        (Timeframe.MO1, "2024-02-29T23:59:59.999999Z", "2024-02-01T00:00:00Z"),
        (Timeframe.MO1, "2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        (Timeframe.D3, "2024-02-28T23:59:59Z", "2024-02-26T00:00:00Z"),
        (Timeframe.D3, "2024-03-02T12:00:00Z", "2024-02-29T00:00:00Z"),
    ],
)
def test_long_candles_open_where_the_calendar_says(
    timeframe: Timeframe, at: str, opens: str
) -> None:
    trade = Trade("1", 1, parse_time(at), Decimal(1), Decimal(1))

    assert list(fold_records([[trade]], None)[timeframe]) == [parse_time(opens)]


def test_a_contract_counts_base_and_quote_by_its_size() -> None:
    trade = Trade("1", 1, START, Decimal("3"), Decimal("10"), "buy")
    linear = fold_records([[trade]], Contract(Decimal("0.01")))[Timeframe.S1][START]
    inverse = fold_records([[trade]], Contract(Decimal(100), inverse=True))[Timeframe.S1][START]

    assert (linear.volume, linear.quote_volume) == (Decimal("0.1"), Decimal("0.3"))
    assert inverse.quote_volume == Decimal(1000)
    assert inverse.volume == Decimal("333.333333333333333333")


def test_sums_of_the_widest_allowed_numbers_lose_no_digit() -> None:
    wide, narrow = Decimal("9" * 30), Decimal(1).scaleb(-30)
    trades = [
        Trade("1", 1, START, wide, wide),
        Trade("2", 2, START, narrow, narrow),
    ]
    tally = fold_records([trades], None)[Timeframe.S1][START]

    with localcontext(prec=400):
        assert tally.quote_volume == wide * wide + narrow * narrow


def test_what_cannot_be_exact_raises_instead_of_rounding() -> None:
    with pytest.raises(Inexact), exactly():
        Decimal("1e150") + Decimal("1e-150")


def test_numbers_of_a_candle_are_canonical() -> None:
    trades = [
        Trade("1", 1, START, Decimal("100.00"), Decimal("0.50")),
        Trade("2", 2, START, Decimal("2E+2"), Decimal("0.5")),
    ]
    with exactly():
        candle = candle_of(
            Timeframe.S1, START, fold_records([trades], None)[Timeframe.S1][START], STANDING
        )

    assert [str(candle.open), str(candle.high), str(candle.volume)] == ["100", "200", "1"]
    assert [str(candle.quote_volume), str(candle.buy_volume)] == ["150", "0"]
