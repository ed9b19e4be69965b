import itertools
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.time import LATEST_EVENT, MINUTE, SECOND
from vegamite_common.domain.timeframe import Timeframe

OPEN = 1_570_752_000 * SECOND
POSSIBLE: dict[str, Any] = {
    "timeframe": Timeframe.M1,
    "open_time": OPEN,
    "open": Decimal(10),
    "high": Decimal(12),
    "low": Decimal(9),
    "close": Decimal(11),
    "volume": Decimal(5),
    "quote_volume": Decimal(50),
    "buy_volume": Decimal(2),
    "buy_quote_volume": Decimal(20),
    "trade_count": 3,
    "first_event_time": OPEN,
    "first_sequence": 1,
    "first_trade_id": "1",
    "last_event_time": OPEN + MINUTE - 1,
    "last_sequence": 3,
    "last_trade_id": "3",
    "epoch": 0,
    "as_of": 7,
    "updated_at": OPEN + MINUTE,
}


def candle(**changes: Any) -> Candle:
    return Candle(**{**POSSIBLE, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"final": True, "complete": True, "revision": 3},
        {"high": Decimal(10), "low": Decimal(10), "open": Decimal(10), "close": Decimal(10)},
        {
            "volume": Decimal(0),
            "buy_volume": Decimal(0),
            "quote_volume": Decimal(0),
            "buy_quote_volume": Decimal(0),
        },
        {"buy_volume": Decimal(5), "buy_quote_volume": Decimal(50)},
        {"trade_count": 1, "last_event_time": OPEN},
        {"timeframe": Timeframe.S1, "last_event_time": OPEN + SECOND - 1},
    ],
)
def test_what_can_be_is_accepted(changes: dict[str, Any]) -> None:
    assert candle(**changes).close_time > OPEN


@pytest.mark.parametrize(
    "changes",
    [
        {"low": Decimal("10.5")},
        {"low": Decimal(11), "open": Decimal(12), "close": Decimal(10)},
        {"high": Decimal("10.5")},
        {"high": Decimal(9), "low": Decimal(9), "close": Decimal(9)},
        {"low": Decimal(0)},
        {"low": Decimal(-1)},
        {"open": Decimal("NaN")},
        {"high": Decimal("Infinity")},
        {"close": Decimal("sNaN")},
        {"volume": Decimal("Infinity")},
        {"quote_volume": Decimal("NaN")},
        {"volume": Decimal(-1), "buy_volume": Decimal(-1)},
        {"buy_volume": Decimal("5.1")},
        {"buy_volume": Decimal("-0.1")},
        {"buy_quote_volume": Decimal("50.1")},
        {"trade_count": 0},
        {"trade_count": -1},
        {"first_event_time": OPEN - 1},
        {"last_event_time": OPEN + MINUTE},
        {"first_event_time": OPEN + 2, "last_event_time": OPEN + 1},
        {"open_time": OPEN + 1},
        {"open_time": OPEN + SECOND, "timeframe": Timeframe.M5},
        {"open_time": -MINUTE, "first_event_time": -MINUTE, "last_event_time": -MINUTE},
        {"open_time": LATEST_EVENT},
        {"open_time": 2**62, "timeframe": Timeframe.MO1},
        {"revision": -1},
        {"revision": 1},
        {"epoch": -1},
    ],
)
def test_what_no_trades_can_give_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"candle|volume|time|revisions"):
        candle(**changes)


def test_states_of_one_candle_are_ordered_by_epoch_offset_finality_and_revision() -> None:
    ordered = [
        candle(),
        candle(final=True),
        candle(final=True, revision=1),
        candle(as_of=8),
        candle(as_of=8, final=True, revision=1),
        candle(epoch=1, as_of=0),
    ]
    assert all(a.state_order < b.state_order for a, b in itertools.pairwise(ordered))


def test_vwap_is_derived_and_absent_without_volume() -> None:
    assert candle().vwap == Decimal(10)
    assert candle(volume=Decimal(3), buy_volume=Decimal(0)).vwap == Decimal("16.666666666666666667")
    none = Decimal(0)
    assert (
        candle(volume=none, buy_volume=none, quote_volume=none, buy_quote_volume=none).vwap is None
    )


@pytest.mark.parametrize(
    ("open_time", "days"),
    [(1_704_067_200, 31), (1_706_745_600, 29), (1_675_209_600, 28), (1_733_011_200, 31)],
)
def test_a_months_candle_ends_where_the_next_month_begins(open_time: int, days: int) -> None:
    opened = open_time * SECOND
    month = candle(
        timeframe=Timeframe.MO1, open_time=opened, first_event_time=opened, last_event_time=opened
    )
    assert month.close_time - opened == days * 86400 * SECOND


def test_a_candle_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        candle().final = True  # type: ignore[misc] # what is refused


def test_a_broken_candle_is_not_decoded() -> None:
    told = msgspec.to_builtins(candle())
    with pytest.raises(msgspec.ValidationError, match="prices contradict"):
        msgspec.convert({**told, "high": "1"}, Candle)
