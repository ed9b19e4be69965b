"""vegamite: candles of all timeframes for each market, exact, without a database.

Usage: python vegamite_fold.py BOOTSTRAP TOPIC FORMAT TRADES

FORMAT is `line`, a JSON document a trade, or `burst`, our wire format. One process, one thread: aiokafka's `getmany`,
msgspec, and the aggregator's own fold (`core/fold.py`) of what each fetch brought, market by market, merged into the
candles of all 16 timeframes so far. Prices, amounts and every sum are decimals; what no trade can have is refused, as in
the service. It tells of each finished candle of a minute, and of all timeframes at the end of its trades.
"""

import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec
import progress
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from vegamite_aggregator.core.fold import Series, fold_trades
from vegamite_aggregator.core.tally import Tally, exactly, merge, merge_all
from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord, decode_trades
from vegamite_common.runtime.section import KafkaSection

MOST_RECORDS = {"line": 10_000, "burst": 1_000}
"""Most records that a fetch is asked for."""


class Line(Trade, frozen=True, gc=False):
    """A trade and its market, as the topic with a record a trade has it."""

    market: str = ""


class Candles:
    """What the trades so far add up to, market by market, in every timeframe."""

    def __init__(self) -> None:
        self.markets: dict[str, dict[Timeframe, Series]] = {}
        self._newest: dict[str, int] = {}

    def add(self, market: str, trades: Iterable[Trade]) -> None:
        """Fold more trades of a market, and tell of the minutes that are over."""
        folded = fold_trades(trades, None)
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


def take_lines(records: Iterable[Any], candles: Candles) -> int:
    """Fold records of one trade each; return how many trades there were."""
    decode = _LINES.decode
    trades: dict[str, list[Trade]] = {}
    for record in records:
        line = decode(record.value)
        known = trades.get(line.market)
        if known is None:
            trades[line.market] = [line]
        else:
            known.append(line)
    return _fold(trades, candles)


def take_bursts(records: Iterable[Any], candles: Candles) -> int:
    """Fold records of our wire format; return how many trades there were."""
    trades: dict[str, list[Trade]] = {}
    for record in records:
        decoded = decode_trades(record.value)
        assert isinstance(decoded, TradesRecord)
        trades.setdefault(decoded.market.key, []).extend(decoded.trades)
    return _fold(trades, candles)


def _fold(trades: dict[str, list[Trade]], candles: Candles) -> int:
    count = 0
    for market, some in trades.items():
        candles.add(market, some)
        count += len(some)
    return count


_LINES = msgspec.json.Decoder(Line)
_FORMATS: dict[str, Callable[[Iterable[Any], Candles], int]] = {
    "line": take_lines,
    "burst": take_bursts,
}


async def main(bootstrap: str, topic: str, form: str, trades: int) -> None:
    """Read the topic's trades from the first on, and stop after so many."""
    section = KafkaSection.model_validate({"bootstrap_servers": bootstrap})
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        fetch_max_bytes=section.fetch_max_bytes,
        max_partition_fetch_bytes=section.fetch_max_bytes,
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        candles, taken = Candles(), progress.Progress(trades)
        take, most = _FORMATS[form], MOST_RECORDS[form]
        while taken.taken < trades:
            for records in (await consumer.getmany(timeout_ms=1_000, max_records=most)).values():
                taken.took(take(records, candles))
        progress.say({"timeframes": candles.totals()})
    finally:
        await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
