"""A made-up market whose trades are a pure function of (seed, symbol, time), so that any window can be told again.

Time is cut into blocks of ten minutes with the same number of trades each. So a trade's id follows from its block and
its place there, ids rise by one without a hole, and both addresses, id and time, lead to a block without counting
from the start. Inside a block, trades come in bursts, many of one millisecond, in quieter and busier minutes.
"""

import hashlib
import random
from bisect import bisect_left, bisect_right
from collections import OrderedDict

from vegamite_common.testing.fake_exchange.feed import AggregateTrade, Listing, split_symbol

BLOCK_MS = 600_000
LISTED_MS = 1_500_000_000_000
"""2017-07-14 02:40 UTC: the first generated trade is never older."""

_FILLS_PER_TRADE = 2
_CACHED_BLOCKS = 64
_BURST_SIZES = (1, 1, 1, 1, 1, 2, 2, 3, 5, 12)
# How the price moves: (length of a leg in ms, most it adds or takes, in 1/10,000 of the price).
_LEGS = (
    (604_800_000, 1500),
    (86_400_000, 500),
    (21_600_000, 200),
    (3_600_000, 80),
    (600_000, 30),
    (60_000, 12),
)


class GeneratedFeed:
    """An endless market with about `rate` trades a second; equal seed, symbol and rate give equal trades everywhere."""

    def __init__(self, symbol: str, *, seed: int, rate: float = 1.0) -> None:
        base, quote = split_symbol(symbol)
        self.listing = Listing(
            base, quote, price_increment="0.01000000", amount_increment="0.00001000"
        )
        self.block_size = max(1, round(rate * BLOCK_MS / 1000))
        self._name = f"{seed}/{symbol}"
        self._price_cents = int(10 ** (3 + self._digest("magnitude", 0, 4))) + self._digest(
            "price", 0, 900_000
        )
        self._blocks: OrderedDict[int, list[AggregateTrade]] = OrderedDict()

    def from_id(self, trade_id: int, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the first `limit` trades with at least this id that happened by `until`."""
        block, place = divmod(max(0, trade_id), self.block_size)
        return self._collect(block, place, until, limit)

    def from_time(self, start: int, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the first `limit` trades at or after `start` that happened by `until`."""
        block = max(0, (start - LISTED_MS) // BLOCK_MS)
        place = bisect_left(self._block(block), start, key=_time_of)
        return self._collect(block, place, until, limit)

    def latest(self, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the last `limit` trades that happened by `until`."""
        block = (until - LISTED_MS) // BLOCK_MS
        if block < 0:
            return []
        end = block * self.block_size + bisect_right(self._block(block), until, key=_time_of)
        return self.from_id(end - limit, until=until, limit=min(limit, end))

    def _collect(self, block: int, place: int, until: int, limit: int) -> list[AggregateTrade]:
        found: list[AggregateTrade] = []
        while len(found) < limit and LISTED_MS + block * BLOCK_MS <= until:
            trades = self._block(block)
            end = bisect_right(trades, until, key=_time_of)
            found += trades[place : min(end, place + limit - len(found))]
            block, place = block + 1, 0
        return found

    def _block(self, number: int) -> list[AggregateTrade]:
        trades = self._blocks.get(number)
        if trades is None:
            trades = self._blocks[number] = self._generate(number)
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return trades

    def _generate(self, number: int) -> list[AggregateTrade]:
        rng = random.Random(f"{self._name}/{number}")
        first_id = number * self.block_size
        fill_id = first_id * _FILLS_PER_TRADE
        fills = _shares(rng, self.block_size)
        trades: list[AggregateTrade] = []
        buyer_is_maker = False
        for place, offset in enumerate(self._offsets(rng)):
            time_ms = LISTED_MS + number * BLOCK_MS + offset
            if not trades or trades[-1].time_ms != time_ms:
                buyer_is_maker = rng.random() < 0.5
            cents = self._level(time_ms) + (-1 if buyer_is_maker else 1) * rng.randrange(1, 4)
            steps = rng.randrange(1, 10 ** rng.randrange(1, 7))
            trades.append(
                AggregateTrade(
                    trade_id=first_id + place,
                    price=f"{cents // 100}.{cents % 100:02d}000000",
                    amount=f"{steps // 100_000}.{steps % 100_000:05d}000",
                    first_fill_id=fill_id,
                    last_fill_id=fill_id + fills[place] - 1,
                    time_ms=time_ms,
                    buyer_is_maker=buyer_is_maker,
                )
            )
            fill_id += fills[place]
        return trades

    def _offsets(self, rng: random.Random) -> list[int]:
        """Return the rising milliseconds of one block's trades since its start."""
        minutes = BLOCK_MS // 60_000
        busy = [rng.randrange(1, 12) for _ in range(minutes)]
        offsets: list[int] = []
        while len(offsets) < self.block_size:
            at = rng.choices(range(minutes), busy)[0] * 60_000 + rng.randrange(60_000)
            for _ in range(min(rng.choice(_BURST_SIZES), self.block_size - len(offsets))):
                offsets.append(at)
                if rng.random() < 0.3:
                    at = min(at + rng.randrange(1, 4), BLOCK_MS - 1)
        return sorted(offsets)

    def _level(self, time_ms: int) -> int:
        """Return the price in cents around which the market trades then, in whole-number arithmetic."""
        level = self._price_cents
        for length, share in _LEGS:
            leg, passed = divmod(time_ms, length)
            reach = self._price_cents * share // 10_000
            start, end = (
                self._digest(f"leg{length}", edge, 2 * reach + 1) - reach for edge in (leg, leg + 1)
            )
            level += start + (end - start) * passed // length
        return level

    def _digest(self, purpose: str, number: int, below: int) -> int:
        """Return a whole number in [0, below) that only the arguments and the seed decide."""
        digest = hashlib.blake2b(
            f"{self._name}/{purpose}/{number}".encode(), digest_size=8
        ).digest()
        return int.from_bytes(digest, "big") % below


def _time_of(trade: AggregateTrade) -> int:
    return trade.time_ms


def _shares(rng: random.Random, trades: int) -> list[int]:
    """Return how many fills each trade aggregates, at least one, `_FILLS_PER_TRADE` on average."""
    shares = [1] * trades
    for _ in range(trades * (_FILLS_PER_TRADE - 1)):
        shares[rng.randrange(trades)] += 1
    return shares
