"""vegamite: candles of all timeframes for each market, exact, without a database.

Usage: python vegamite_fold.py BOOTSTRAP TOPIC FORMAT TRADES

FORMAT is `line`, a JSON document a trade, or `burst`, our wire format. One process, one thread: the services' own reader
(aiokafka's `getmany` below it), the core's own way of packing trades that msgspec has read, or of reading our format, and the
aggregator's own fold (`core/fold.py`) of some 20,000 trades at a time, market by market, merged into the candles of all 16
timeframes so far. Every sum is exact, and what no trade can have is refused, as in the service. It tells of each finished
candle of a minute, and of all timeframes at the end of its trades.
"""

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeAlias

import msgspec
import progress
import uvloop

from vegamite_aggregator.core.block_reader import read_block
from vegamite_aggregator.core.fold import Series, fold_records
from vegamite_aggregator.core.packed_trades import PackedTrades
from vegamite_aggregator.core.tally import Tally, exactly, merge, merge_all
from vegamite_aggregator.core.text_record import TextTrade, pack_trades
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import Message
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection

POLL_RECORDS = {"line": 2_000, "burst": 200}
"""Most records that the reader is asked for at once: no more than the processor's cache holds."""

FOLD_TRADES = 20_000
"""So many trades are folded together, or what there is when no more come."""

Trades: TypeAlias = dict[str, list[PackedTrades]]
"""Trades by their market, not folded yet."""


class Line(TextTrade, frozen=True, gc=False, kw_only=True):
    """A trade and its market, as the topic with a record a trade has it."""

    market: str


class Candles:
    """What the trades so far add up to, market by market, in every timeframe."""

    def __init__(self) -> None:
        self.markets: dict[str, dict[Timeframe, Series]] = {}
        self._newest: dict[str, int] = {}

    def add(self, market: str, records: Sequence[Sequence[Trade]]) -> None:
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
    by_market: dict[str, list[Line]] = {}
    for record in records:
        line = decode(record.value)
        known = by_market.get(line.market)
        if known is None:
            by_market[line.market] = [line]
        else:
            known.append(line)
    for market, some in by_market.items():
        block = pack_trades(some)
        assert block is not None
        trades.setdefault(market, []).append(PackedTrades(block))
    return len(records)


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
            fetched = await reader.poll(max_records=most, timeout=0.05)
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
