"""How many trades a second the candle engine takes on one core, into all 16 timeframes, with exact decimals.

Usage: python benchmarks/engine_fold.py [--markets N] [--trades N] [--repeats N]

Three figures for each load, each the median of the repeats, on the one thread of this process, by its processor time:

- `fold`: decoded trades to the tallies of every interval of every timeframe;
- `step`: decoded trades to rows, outbox records and memory (`prepare`, `decide`, `apply`), coverage and finality included;
- `read`: bytes of the log to checked, decoded trades (`read_batch`).

The baseline, in the same run, folds each trade into each timeframe with `decimal` alone; `ratio` is fold / baseline.
The store is not part of it: what it costs is told by the benchmark of the whole path.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from decimal import Decimal, localcontext

import msgspec

from vegamite_aggregator.config import AggregatorSection
from vegamite_aggregator.core.candle_cache import FOREVER, NEVER
from vegamite_aggregator.core.decision import decide
from vegamite_aggregator.core.demand import Loaded
from vegamite_aggregator.core.facts import Intake
from vegamite_aggregator.core.fold import fold_records
from vegamite_aggregator.core.intake import read_batch
from vegamite_aggregator.core.plan import prepare
from vegamite_aggregator.core.state import MarketState, PartitionState
from vegamite_aggregator.core.timing import Timing
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import EXACT
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import Heartbeat, SpanOpened, TradesRecord, encode_trades

START = 1_700_000_000 * SECOND
BATCH_TRADES = 10_000
TARGET = 250_000


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of the log, as the bus gives it."""

    offset: int
    append_time: int
    key: bytes | None
    value: bytes


class Load:
    """A stretch of the log: `rate` trades a second on each market, one record a market and second, and heartbeats."""

    def __init__(self, *, markets: int, rate: int, trades: int) -> None:
        rng = random.Random(7)
        self.markets = [Market("binance", f"COIN{number}/USDT") for number in range(markets)]
        self.rate = rate
        self.seconds = trades // (markets * rate)
        self.count = self.seconds * markets * rate
        self.trades: dict[Market, list[Trade]] = {
            market: [_trade(rng, number, rate) for number in range(self.seconds * rate)]
            for market in self.markets
        }
        self.batches = self._batches()

    def _batches(self) -> list[list[Record]]:
        batches: list[list[Record]] = [[]]
        offset = 0
        taken = 0

        def append(key: bytes | None, value: bytes, at: int) -> None:
            nonlocal offset
            batches[-1].append(Record(offset, at, key, value))
            offset += 1

        for market in self.markets:
            opened = SpanOpened(
                exchange=market.exchange, symbol=market.symbol, writer="w", from_time=START
            )
            append(market.key.encode(), encode_trades(opened), START)
        for second in range(self.seconds):
            now = START + (second + 1) * SECOND
            for market in self.markets:
                frame = self.trades[market][second * self.rate : (second + 1) * self.rate]
                record = TradesRecord(
                    exchange=market.exchange,
                    symbol=market.symbol,
                    received_time=now,
                    origin=Origin.LIVE,
                    trades=tuple(frame),
                )
                append(market.key.encode(), encode_trades(record), now)
                taken += len(frame)
            append(None, encode_trades(Heartbeat(writer="w", to_time=now - SECOND)), now)
            if taken >= BATCH_TRADES:
                taken = 0
                batches.append([])
        return [batch for batch in batches if batch]

    def new_state(self) -> PartitionState:
        """Return the state of a partition that has read nothing yet."""
        return PartitionState(
            partition=0,
            epoch=0,
            version=0,
            next_offset=0,
            last_append_time=None,
            markets={
                market: MarketState(
                    contract=None,
                    history_from=START,
                    newest_event_time=NEVER,
                    open_close_time=FOREVER,
                )
                for market in self.markets
            },
        )


def _trade(rng: random.Random, number: int, rate: int) -> Trade:
    return Trade(
        trade_id=str(100_000_000 + number),
        sequence=100_000_000 + number,
        event_time=START + number * SECOND // rate,
        price=Decimal(rng.randint(10**6, 2 * 10**6)).scaleb(-2).normalize() + 0,
        amount=Decimal(rng.randint(1, 10**8)).scaleb(-6).normalize() + 0,
        taker_side=rng.choice(("buy", "sell")),
    )


def measure_fold(load: Load) -> float:
    """Return trades a second from decoded trades to tallies, market by market, in batches."""
    share = max(1, BATCH_TRADES // len(load.markets))
    began = time.process_time()
    for trades in load.trades.values():
        for start in range(0, len(trades), share):
            fold_records([trades[start : start + share]], None)
    return load.count / (time.process_time() - began)


def measure_steps(load: Load) -> tuple[float, float]:
    """Return trades a second of reading, and of preparing, deciding and applying."""
    state = load.new_state()
    timing = Timing()
    reading = deciding = 0.0
    for batch in load.batches:
        began = time.process_time()
        intake: Intake = read_batch(state, batch, partition_of=lambda _: 0, timing=timing)
        read = time.process_time()
        log_time = intake.last_append_time
        plan = prepare(state, intake, intake.trades, log_time=log_time, timing=timing)
        if not plan.wants.empty:
            raise SystemExit("the load is in order, so nothing should have to be loaded")
        changes = decide(state, plan, Loaded(), now=START)
        state.apply(changes)
        state.evict(AggregatorSection().resident_candles)
        deciding += time.process_time() - read
        reading += read - began
    return load.count / reading, load.count / deciding


def measure_baseline(load: Load) -> float:
    """Return trades a second of the plain way: each trade into each timeframe's candle, one by one."""
    sample = {
        market: trades[: max(1, 20_000 // len(load.markets))]
        for market, trades in load.trades.items()
    }
    count = sum(map(len, sample.values()))
    began = time.process_time()
    with localcontext(EXACT):
        for trades in sample.values():
            candles: dict[tuple[Timeframe, int], list[Decimal | int]] = {}
            for trade in trades:
                _fold_plainly(candles, trade)
    return count / (time.process_time() - began)


def _fold_plainly(candles: dict[tuple[Timeframe, int], list[Decimal | int]], trade: Trade) -> None:
    price, amount = trade.price, trade.amount
    cost = price * amount
    bought = trade.taker_side == "buy"
    for timeframe in Timeframe:
        key = (timeframe, timeframe.open_time(trade.event_time))
        candle = candles.get(key)
        if candle is None:
            zero = Decimal(0)
            candle = candles[key] = [price, price, price, price, zero, zero, zero, zero, 0]
        candle[1] = max(candle[1], price)
        candle[2] = min(candle[2], price)
        candle[3] = price
        candle[4] += amount
        candle[5] += cost
        if bought:
            candle[6] += amount
            candle[7] += cost
        candle[8] += 1


def figures_of(load: Load) -> tuple[float, float, float, float]:
    """Return one measurement of fold, read, step and baseline, in trades a second."""
    gc.collect()
    fold = measure_fold(load)
    read, step = measure_steps(load)
    return fold, read, step, measure_baseline(load)


def main() -> None:
    """Measure both loads and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=20)
    parser.add_argument("--trades", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{'trades/s a market':>18} {'fold':>12} {'step':>12} {'read':>12} {'baseline':>12} {'ratio':>7}"
    )
    for rate in (50, 1):
        load = Load(markets=arguments.markets, rate=rate, trades=arguments.trades)
        figures = [figures_of(load) for _ in range(arguments.repeats)]
        fold, read, step, baseline = (
            statistics.median(column) for column in zip(*figures, strict=True)
        )
        print(
            f"{rate:>18} {fold:>12,.0f} {step:>12,.0f} {read:>12,.0f} {baseline:>12,.0f} {fold / baseline:>6.1f}x"
        )
        if rate == 50:
            verdict = "above" if step >= TARGET else "BELOW"
            print(f"{'':>18} the step is {verdict} the {TARGET:,} trades/s that are asked for")


if __name__ == "__main__":
    main()
