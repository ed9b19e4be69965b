import itertools
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.domain.time import EARLIEST, LATEST_EVENT
from vegamite_common.domain.trade import InvalidTradeError, Trade

POSSIBLE: dict[str, Any] = {
    "trade_id": "1",
    "sequence": 1,
    "event_time": EARLIEST,
    "price": Decimal("1.5"),
    "amount": Decimal(2),
    "taker_side": "buy",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"taker_side": None},
        {"trade_id": "x" * 128},
        {"trade_id": "é" * 64},
        {"sequence": 2**63 - 1},
        {"sequence": -(2**63)},
        {"event_time": LATEST_EVENT - 1},
        {"price": Decimal("1e-30"), "amount": Decimal("9" * 30)},
    ],
)
def test_what_can_be_is_accepted(changes: dict[str, Any]) -> None:
    assert Trade(**{**POSSIBLE, **changes}).order[0] >= EARLIEST


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", Decimal(0)),
        ("price", Decimal("-1")),
        ("price", Decimal("NaN")),
        ("price", Decimal("sNaN")),
        ("price", Decimal("Infinity")),
        ("price", Decimal("-Infinity")),
        ("price", Decimal("1e30")),
        ("price", Decimal("1e-31")),
        ("price", Decimal("1e999999")),
        ("amount", Decimal(0)),
        ("amount", Decimal("-0.1")),
        ("amount", Decimal("NaN")),
        ("amount", Decimal("Infinity")),
        ("amount", Decimal("1." + "1" * 31)),
        ("event_time", EARLIEST - 1),
        ("event_time", LATEST_EVENT),
        ("event_time", 0),
        ("event_time", -1),
        ("trade_id", ""),
        ("trade_id", "x" * 129),
        ("trade_id", "é" * 65),
        ("trade_id", "a\x00b"),
        ("sequence", 2**63),
        ("sequence", -(2**63) - 1),
    ],
)
def test_what_can_not_be_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidTradeError) as refused:
        Trade(**{**POSSIBLE, field: value})
    assert refused.value.reason == field
    assert len(str(refused.value)) < 250


def test_a_text_that_is_no_unicode_is_no_trade_id() -> None:
    with pytest.raises(ValueError, match=r"trade id|surrogates"):
        Trade(**{**POSSIBLE, "trade_id": "\ud800"})


def trade(event_time: int, sequence: int, trade_id: str) -> Trade:
    return Trade(trade_id, sequence, EARLIEST + event_time, Decimal(1), Decimal(1))


def test_order_is_time_then_sequence_then_the_bytes_of_the_id() -> None:
    ordered = [
        trade(0, 9, "9"),
        trade(1, -5, "z"),
        trade(1, 9, "9"),
        trade(1, 10, "10"),
        trade(1, 11, "Z"),
        trade(1, 11, "a"),
        trade(1, 11, "é"),
        trade(1, 11, "\uffff"),
        trade(1, 11, "\U00010000"),
    ]
    assert all(a.order < b.order for a, b in itertools.pairwise(ordered))


def test_the_order_of_ids_is_that_of_postgres_collate_c_not_of_utf16() -> None:
    assert trade(0, 0, "\uffff").order < trade(0, 0, "\U00010000").order


@given(
    st.builds(
        trade,
        st.integers(0, 3),
        st.integers(0, 3),
        st.text(
            st.characters(exclude_characters="\x00", exclude_categories=["Cs"]),
            min_size=1,
            max_size=4,
        ),
    ),
)
def test_order_is_total_and_names_one_trade(one: Trade) -> None:
    time, sequence, trade_id = one.order
    assert (time, sequence, trade_id.decode()) == (one.event_time, one.sequence, one.trade_id)


def test_a_trade_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        Trade(**POSSIBLE).price = Decimal(2)  # type: ignore[misc] # what is refused


def test_an_absent_side_is_absent_in_json() -> None:
    told = msgspec.json.decode(msgspec.json.encode(Trade(**{**POSSIBLE, "taker_side": None})))
    assert "taker_side" not in told
    assert told["price"] == "1.5"
