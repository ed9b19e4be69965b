"""vegamite: candles of all timeframes for each market, exact, without a database.

Usage: python vegamite_fold.py BOOTSTRAP TOPIC FORMAT TRADES

FORMAT is `line`, a JSON document a trade, or `burst`, our wire format. One process, one thread: the services' own reader
(aiokafka's `getmany` below it), msgspec or the core's own reader of our format, and the aggregator's own fold (`core/fold.py`) of some
20,000 trades at a time, market by market, merged into the candles of all 16 timeframes so far. Prices, amounts and every sum are decimals; what no
trade can have is refused, as in the service. It tells of each finished candle of a minute, and of all timeframes at the end
of its trades.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import repeat
from operator import attrgetter
from typing import Annotated, Any, TypeAlias

import msgspec
import progress
import uvloop

from vegamite_aggregator.core.block_reader import read_block
from vegamite_aggregator.core.fold import Series, fold_records
from vegamite_aggregator.core.packed_trades import PackedTrades
from vegamite_aggregator.core.tally import Tally, exactly, merge, merge_all
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import Message
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import FINEST, ZERO, at_finest, format_decimal
from vegamite_common.domain.time import EARLIEST, LATEST_EVENT
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import MAX_TRADE_ID_BYTES, TakerSide, Trade
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection

POLL_RECORDS = {"line": 1_000, "burst": 200}
"""Most records that the reader is asked for at once: no more than the processor's cache holds."""

FOLD_TRADES = 20_000
"""So many trades are folded together, or what there is when no more come."""


Trades: TypeAlias = dict[str, list[Sequence[Any]]]
"""Trades by their market, some at a time, not folded yet: packed, `Trade`, or what has all that it has."""

_PRICE, _AMOUNT, _ID = attrgetter("price"), attrgetter("amount"), attrgetter("trade_id")


class Line(msgspec.Struct, frozen=True, gc=False):
    """A trade and its market, as the topic with a record a trade has it; with `check`, no other than a `Trade` can be."""

    trade_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TRADE_ID_BYTES // 4)]
    sequence: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    event_time: Annotated[int, msgspec.Meta(ge=EARLIEST, lt=LATEST_EVENT)]
    price: Decimal
    amount: Decimal
    market: str
    taker_side: TakerSide | None = None


def check(trades: Sequence[Line]) -> None:
    """Raise `ArithmeticError` or `ValueError` unless all prices, amounts and ids are such as trades can have."""
    prices = map(at_finest, map(_PRICE, trades), repeat(FINEST))
    amounts = map(at_finest, map(_AMOUNT, trades), repeat(FINEST))
    if not (min(prices) > ZERO and min(amounts) > ZERO):
        raise ValueError("a price or an amount is not above 0")
    if "\x00" in "".join(map(_ID, trades)):
        raise ValueError("a trade id has a character that can't be stored")


class Candles:
    """What the trades so far add up to, market by market, in every timeframe."""

    def __init__(self) -> None:
        self.markets: dict[str, dict[Timeframe, Series]] = {}
        self._newest: dict[str, int] = {}

    def add(self, market: str, records: Iterable[Sequence[Trade]]) -> None:
        """Fold more trades of a market, and tell of the minutes that are over."""
        folded = fold_records(records, None)
        known = self.markets.get(market)
        if known is None:
            self.markets[market] = folded
        else:
            with exactly():
                for timeframe, series in folded.items():
                    candles = known[timeframe]
                    for open_time, tally in series.items():
                        before = candles.get(open_time)
                        candles[open_time] = tally if before is None else merge(before, tally)
        self._tell(market, max(folded[Timeframe.M1]))

    def _tell(self, market: str, newest: int) -> None:
        before = self._newest.setdefault(market, newest)
        if newest > before:
            self._newest[market] = newest
            for open_time, tally in self.markets[market][Timeframe.M1].items():
                if before <= open_time < newest:
                    _tell(market, open_time, tally)

    def totals(self) -> dict[str, tuple[int, int, str]]:
        """Return of each timeframe how many candles there are, how many trades they count, and their volume."""
        totals = {}
        with exactly():
            for timeframe in Timeframe:
                tallies = [
                    tally for known in self.markets.values() for tally in known[timeframe].values()
                ]
                total = merge_all(tallies)
                volume = format_decimal(total.volume)
                totals[timeframe.value] = (len(tallies), total.trade_count, volume)
        return totals


def _tell(market: str, open_time: int, tally: Tally) -> None:
    numbers: tuple[Decimal, ...] = (tally.open, tally.high, tally.low, tally.close, tally.volume)
    progress.candle(market, open_time // 1000, *map(format_decimal, numbers), tally.trade_count)


def take_lines(records: Sequence[Message], trades: Trades) -> int:
    """Sort the trades of records of one trade each by their market; return how many there were."""
    decode = _LINES.decode
    lines = [decode(record.value) for record in records]
    if lines:
        check(lines)
    by_market: dict[str, list[Line]] = {}
    for line in lines:
        known = by_market.get(line.market)
        if known is None:
            by_market[line.market] = [line]
        else:
            known.append(line)
    for market, some in by_market.items():
        trades.setdefault(market, []).append(some)
    return len(lines)


def take_bursts(records: Sequence[Message], trades: Trades) -> int:
    """Sort the trades of records of our wire format by their market; return how many there were."""
    count = 0
    for record in records:
        packed = read_block(record.value)
        assert packed is not None
        market = Market(packed.exchange, packed.symbol)
        trades.setdefault(market.key, []).append(PackedTrades(packed.trades))
        count += packed.trades.count
    return count


_LINES = msgspec.json.Decoder(Line)
_FORMATS: dict[str, Callable[[Sequence[Message], Trades], int]] = {
    "line": take_lines,
    "burst": take_bursts,
}


async def main(bootstrap: str, topic: str, form: str, trades: int) -> None:
    """Read the topic's trades from the first on, and stop after so many."""
    section = KafkaSection.model_validate({"bootstrap_servers": bootstrap})
    bus = KafkaBus(section, SystemClock())
    await bus.start()
    try:
        reader = await bus.reader(topic)
        await reader.seek({0: 0})
        candles, progressed = Candles(), progress.Progress(trades)
        take, most = _FORMATS[form], POLL_RECORDS[form]
        waiting: Trades = {}
        count = 0
        while progressed.taken < trades:
            fetched = await reader.poll(max_records=most, timeout=1.0)
            for each in fetched:
                count += take(each.messages, waiting)
            if count >= FOLD_TRADES or not any(each.messages for each in fetched):
                for market, some in waiting.items():
                    candles.add(market, some)
                progressed.took(count)
                waiting, count = {}, 0
        progress.say({"timeframes": candles.totals()})
    finally:
        await bus.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
