"""The candle as it is stored, published and served."""

from decimal import Decimal
from typing import TypeAlias

import msgspec

from vegamite_common.domain.number import quotient
from vegamite_common.domain.time import LATEST_EVENT, Micros
from vegamite_common.domain.timeframe import Timeframe

StateOrder: TypeAlias = tuple[int, int, bool, int]
"""(epoch, as_of, final, revision): of two states of one candle the greater one is the newer."""


class Candle(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One state of one market's candle; raises `ValueError` for a state that no trades can give.

    Times in microseconds; prices in quote; `volume` in base, `quote_volume` in quote, `buy_*` the part whose taker bought.
    The first and last trades are named by the whole order triple, so that states merge. `as_of` is the offset in the
    trades log, of log epoch `epoch`, up to which the state was computed; `updated_at` is our clock.
    """

    timeframe: Timeframe
    open_time: Micros
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    buy_quote_volume: Decimal
    trade_count: int
    first_event_time: Micros
    first_sequence: int
    first_trade_id: str
    last_event_time: Micros
    last_sequence: int
    last_trade_id: str
    epoch: int
    as_of: int
    updated_at: Micros
    final: bool = False
    complete: bool = False
    revision: int = 0

    def __post_init__(self) -> None:
        numbers = (
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.buy_volume,
            self.buy_quote_volume,
        )
        if not all(map(Decimal.is_finite, numbers)):
            raise ValueError("a candle's prices and volumes are finite numbers")
        if not 0 < self.low <= min(self.open, self.close) or max(self.open, self.close) > self.high:
            raise ValueError(
                f"candle prices contradict: o={self.open} h={self.high} l={self.low} c={self.close}"
            )
        if self.trade_count < 1:
            raise ValueError(f"a candle has at least one trade, not {self.trade_count}")
        if (
            not 0 <= self.buy_volume <= self.volume
            or not 0 <= self.buy_quote_volume <= self.quote_volume
        ):
            raise ValueError("the buyers' part of a volume lies between 0 and the volume")
        if not 0 <= self.open_time < LATEST_EVENT:
            raise ValueError(f"open time out of range: {self.open_time} us")
        if not self.open_time <= self.first_event_time <= self.last_event_time < self.close_time:
            raise ValueError("a candle's trades lie inside its interval, in order")
        if self.timeframe.open_time(self.open_time) != self.open_time:
            raise ValueError(f"{self.open_time} us opens no {self.timeframe.value} candle")
        if self.revision < 0 or self.epoch < 0 or (self.revision > 0 and not self.final):
            raise ValueError("only a final candle has revisions, counted from 0")

    @property
    def close_time(self) -> Micros:
        """The exclusive end of the interval."""
        return self.timeframe.close_time(self.open_time)

    @property
    def vwap(self) -> Decimal | None:
        """Volume-weighted average price, rounded half to even to 18 decimals; None where the volume is 0."""
        return quotient(self.quote_volume, self.volume) if self.volume else None

    @property
    def state_order(self) -> StateOrder:
        """The state's rank among the states of the same candle."""
        return (self.epoch, self.as_of, self.final, self.revision)
