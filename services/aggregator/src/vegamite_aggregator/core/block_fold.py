"""Packed trades added up, second by second, in whole numbers without their points. Compiled with `trade_block`."""

from decimal import Decimal
from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

from vegamite_aggregator.core.tally import Tally
from vegamite_aggregator.core.trade_block import BUY, ENTRY, SMALL, TradeBlock
from vegamite_common.domain.time import SECOND


def tallies_of(blocks: list[TradeBlock]) -> dict[int, Tally]:
    """Return what the trades of one market add up to in each second, by its open time, in order; within `exactly()`.

    The blocks are ordered, each begins after the one before it, and there is at least one; amounts are of the base currency.
    """
    price_decimals: i64 = 0
    amount_decimals: i64 = 0
    for block in blocks:
        price_decimals = max(price_decimals, block.price_decimals)
        amount_decimals = max(amount_decimals, block.amount_decimals)
    second = _Second(blocks[0], 0)
    tallies: dict[int, Tally] = {}
    close_time: i64 = 0
    for block in blocks:
        entries = block.entries
        end = block.count * ENTRY
        at: i64 = 0
        while at < end:
            event_time = read_i64_le(entries, at)
            if event_time >= close_time:
                if close_time:
                    tallies[close_time - SECOND] = second.tally(price_decimals, amount_decimals)
                second = _Second(block, at)
                close_time = event_time - event_time % SECOND + SECOND
            small = read_i64_le(entries, at + SMALL)
            price: int = read_i64_le(entries, at + 16)
            amount: int = read_i64_le(entries, at + 24)
            missing = price_decimals - (small & 31)
            if missing:
                price *= _POWERS[missing]
            missing = amount_decimals - ((small >> 5) & 31)
            if missing:
                amount *= _POWERS[missing]
            second.add(price, amount, small >> 10)
            second.last_block = block
            second.last = at
            at += ENTRY
    tallies[close_time - SECOND] = second.tally(price_decimals, amount_decimals)
    return tallies


_POWERS: Final = [10**power for power in range(17)]


class _Second:
    """The trades of one second: numbers without their points, which all stand alike."""

    def __init__(self, block: TradeBlock, at: i64) -> None:
        self.count: i64 = 0
        self.open: int = 0
        self.high: int = 0
        self.low: int = 0
        self.close: int = 0
        self.volume: int = 0
        self.quote_volume: int = 0
        self.buy_volume: int = 0
        self.buy_quote_volume: int = 0
        self.first_block: Final = block
        self.first: i64 = at
        self.last_block = block
        self.last: i64 = at

    def add(self, price: int, amount: int, side: i64) -> None:
        """Take the next trade."""
        if self.count == 0:
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        cost = price * amount
        self.volume += amount
        self.quote_volume += cost
        if side == BUY:
            self.buy_volume += amount
            self.buy_quote_volume += cost
        self.count += 1

    def tally(self, price_decimals: i64, amount_decimals: i64) -> Tally:
        """Return what the second's trades add up to."""
        prices: int = -price_decimals
        amounts: int = -amount_decimals
        costs = prices + amounts
        first = self.first_block
        last = self.last_block
        return Tally(
            Decimal(self.open).scaleb(prices),
            Decimal(self.high).scaleb(prices),
            Decimal(self.low).scaleb(prices),
            Decimal(self.close).scaleb(prices),
            Decimal(self.volume).scaleb(amounts),
            Decimal(self.quote_volume).scaleb(costs),
            Decimal(self.buy_volume).scaleb(amounts),
            Decimal(self.buy_quote_volume).scaleb(costs),
            self.count,
            read_i64_le(first.entries, self.first),
            read_i64_le(first.entries, self.first + 8),
            first.id_at(self.first),
            read_i64_le(last.entries, self.last),
            read_i64_le(last.entries, self.last + 8),
            last.id_at(self.last),
        )
