"""One fill, its identity and its place in a market's total order."""

from decimal import Decimal
from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from vegamite_common.domain.number import FINEST, MAX_DIGITS, ZERO, at_finest
from vegamite_common.domain.time import EARLIEST, LATEST_EVENT, Micros

TakerSide: TypeAlias = Literal["buy", "sell"]
TradeOrder: TypeAlias = tuple[Micros, int, bytes]
"""(event_time, sequence, trade_id as UTF-8): the total order of one market's trades."""

MAX_TRADE_ID_BYTES = 128
_INT64 = 2**63


class InvalidTradeError(ValueError):
    """A trade that can't be: `reason` is a short word for counters, the text says what was wrong."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Origin(StrEnum):
    """How a trade reached us."""

    LIVE = "live"
    BACKFILL = "backfill"
    IMPORT = "import"
    SIMULATED = "simulated"


class Trade(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One fill on one market; raises `InvalidTradeError` for a value that no trade can have.

    `trade_id` is the exchange's (or a synthetic one), 1 to 128 bytes; `sequence` a signed 64-bit number that orders equal
    event times; `event_time` the exchange's clock in microseconds; `price` in quote and `amount` in base (contracts, for
    derivatives), both above 0; `taker_side` absent where the exchange doesn't say.
    """

    trade_id: str
    sequence: int
    event_time: Micros
    price: Decimal
    amount: Decimal
    taker_side: TakerSide | None = None

    def __post_init__(self) -> None:
        # In one expression and without calls of ours: this runs for every trade that is decoded.
        try:
            possible = (
                at_finest(self.price, FINEST) > ZERO and at_finest(self.amount, FINEST) > ZERO
            )
        except ArithmeticError:
            possible = False
        if not possible:
            raise _impossible_number(self.price, self.amount)
        if not EARLIEST <= self.event_time < LATEST_EVENT:
            raise InvalidTradeError("event_time", f"event time out of range: {self.event_time} us")
        if (
            not self.trade_id
            or len(self.trade_id) > MAX_TRADE_ID_BYTES
            or (not self.trade_id.isascii() and len(self.trade_id.encode()) > MAX_TRADE_ID_BYTES)
            or "\x00" in self.trade_id
        ):
            raise InvalidTradeError(
                "trade_id", f"trade id must have 1 to {MAX_TRADE_ID_BYTES} bytes"
            )
        if not -_INT64 <= self.sequence < _INT64:
            raise InvalidTradeError("sequence", "sequence must fit 64 bits")

    @property
    def order(self) -> TradeOrder:
        """The trade's place in its market: (event_time, sequence, trade_id as UTF-8)."""
        return (self.event_time, self.sequence, self.trade_id.encode())


def _impossible_number(price: Decimal, amount: Decimal) -> InvalidTradeError:
    """Return the error for a pair of which at least one can't be."""
    try:
        price_possible = at_finest(price, FINEST) > 0
    except ArithmeticError:
        price_possible = False
    name, value = ("amount", amount) if price_possible else ("price", price)
    return InvalidTradeError(
        name,
        f"{name} must be above 0, of at most {MAX_DIGITS} digits before and after the point, not {str(value)[:80]}",
    )
