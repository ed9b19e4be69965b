"""How long it takes from a trade in the log to its candle in the log, while the aggregator is caught up.

Usage: python benchmarks/publish_latency.py [--seconds N] [--records-a-second N] [--trades-a-record N]

Real broker, real `vegamite-aggregator` process, real PostgreSQL with `fsync` on. Records of 20 markets are appended evenly
(1,000 trades a second unless told otherwise), with a heartbeat a second and partition. For each record it is timed from
just before it is sent until the first candle that counts its last trade arrives at a consumer of `market.candles.v1`. The
baseline, from the same records in the same run, is a bare round trip: from just before a record is sent until a consumer
of `market.trades.v1` has it. The goal is p99 <= 250 ms (the least time between two states of one series) + 3x the baseline's p99.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal

import asyncpg
from aggregator_pipeline import POSTGRES, running_aggregator
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pipeline_load import PARTITIONS, create_topics, open_producer

from vegamite_aggregator.migrate import migrate_database
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.trades import (
    Heartbeat,
    SpanOpened,
    TradesRecord,
    decode_trades,
    encode_trades,
)
from vegamite_common.runtime.clock import wall_now
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.postgres import PostgresServer

MARKETS = [Market("binance", f"COIN{number}/USDT") for number in range(20)]
LOADED = "SELECT count(*) = $1 FROM partition_fence"
WARM_SECONDS = 5.0
GOAL_SECONDS = 0.25


class Timings:
    """When each record was sent, by market and the sequence of its last trade, and when what was seen again."""

    def __init__(self) -> None:
        self.bare: list[float] = []
        self.candle: list[float] = []
        self._waiting_bare: dict[tuple[Market, int], float] = {}
        self._waiting_candle: defaultdict[Market, deque[tuple[int, float]]] = defaultdict(deque)
        self.counts = False

    def sent(self, market: Market, sequence: int) -> None:
        """A record is about to be sent."""
        now = time.perf_counter()
        if self.counts:
            self._waiting_bare[market, sequence] = now
            self._waiting_candle[market].append((sequence, now))

    def record(self, value: bytes) -> None:
        """A record of the trades topic was received."""
        now = time.perf_counter()
        decoded = decode_trades(value)
        if isinstance(decoded, TradesRecord):
            began = self._waiting_bare.pop((decoded.market, decoded.trades[-1].sequence), None)
            if began is not None:
                self.bare.append(now - began)

    def candles(self, value: bytes) -> None:
        """A record of the candles topic was received."""
        now = time.perf_counter()
        decoded = decode_candles(value)
        newest = max(candle.last_sequence for candle in decoded.candles)
        waiting = self._waiting_candle[decoded.market]
        while waiting and waiting[0][0] <= newest:
            self.candle.append(now - waiting.popleft()[1])

    @property
    def waiting(self) -> int:
        """How many records' candles haven't come."""
        return sum(map(len, self._waiting_candle.values()))


async def consume(bootstrap: str, topic: str, take: Callable[[bytes], None]) -> None:
    """Hand every record from now on to `take`, for ever."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=200
    )
    await consumer.start()
    try:
        async for message in consumer:
            take(message.value)
    finally:
        await consumer.stop()


class Source:
    """Appends records evenly, as a collector with many small frames does."""

    def __init__(self, producer: AIOKafkaProducer, timings: Timings, *, trades: int) -> None:
        self._producer = producer
        self._timings = timings
        self._trades = trades
        self._sequence = 1_000_000_000

    async def open(self) -> None:
        """Begin the spans, so that candles are final as in service."""
        for market in MARKETS:
            opened = SpanOpened(
                exchange=market.exchange,
                symbol=market.symbol,
                writer="benchmark",
                from_time=wall_now(),
            )
            await self._send(encode_trades(opened), market)

    async def send_record(self, market: Market) -> None:
        """Append one record of trades of this moment."""
        now = wall_now()
        trades = tuple(self._trade(now) for _ in range(self._trades))
        record = TradesRecord(
            exchange=market.exchange,
            symbol=market.symbol,
            received_time=now,
            origin=Origin.LIVE,
            trades=trades,
        )
        value = encode_trades(record)
        self._timings.sent(market, trades[-1].sequence)
        await self._send(value, market)

    async def beat(self) -> None:
        """Append a heartbeat to every partition."""
        value = encode_trades(Heartbeat(writer="benchmark", to_time=wall_now() - SECOND))
        for partition in range(PARTITIONS):
            await self._producer.send(TRADES, value, partition=partition)

    def _trade(self, now: Micros) -> Trade:
        self._sequence += 1
        return Trade(
            trade_id=str(self._sequence),
            sequence=self._sequence,
            event_time=now,
            price=Decimal(60_000 + self._sequence % 97),
            amount=Decimal("0.125"),
            taker_side="buy" if self._sequence % 2 else "sell",
        )

    async def _send(self, value: bytes, market: Market) -> None:
        key = market.key.encode()
        await self._producer.send(TRADES, value, key=key, partition=partition_for(key, PARTITIONS))


async def _evenly(count: int, a_second: float, act: Callable[[int], Awaitable[None]]) -> None:
    """Do something `count` times at an even rate, whatever the single time takes."""
    began = time.perf_counter()
    for number in range(count):
        delay = began + number / a_second - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        await act(number)


def _p(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def measure(arguments: argparse.Namespace) -> None:
    """Start everything, warm up, measure, print."""
    timings = Timings()
    with KafkaServer() as kafka, PostgresServer(settings=POSTGRES) as postgres:
        await create_topics(kafka.bootstrap, append_times="LogAppendTime")
        await migrate_database(postgres.url)
        connection = await asyncpg.connect(postgres.url)
        rate: int = arguments.records_a_second
        async with open_producer(kafka.bootstrap) as producer:
            source = Source(producer, timings, trades=arguments.trades_a_record)
            tasks = [
                asyncio.create_task(consume(kafka.bootstrap, TRADES, timings.record)),
                asyncio.create_task(consume(kafka.bootstrap, CANDLES, timings.candles)),
            ]
            with running_aggregator(kafka.bootstrap, postgres.url, group=uuid.uuid4().hex, count=1):

                async def loaded() -> bool:
                    return bool(await connection.fetchval(LOADED, PARTITIONS))

                await eventually(loaded, timeout_s=60, message="the aggregator reads")
                await source.open()

                async def act(number: int) -> None:
                    if number % rate == 0:
                        await source.beat()
                    await source.send_record(MARKETS[number % len(MARKETS)])

                await _evenly(round(WARM_SECONDS * rate), rate, act)
                timings.counts = True
                await _evenly(round(arguments.seconds * rate), rate, act)
                timings.counts = False
                for _ in range(100):
                    if not timings.waiting:
                        break
                    await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await connection.close()
    report(arguments, timings)


def report(arguments: argparse.Namespace, timings: Timings) -> None:
    """Print the percentiles and whether the goal was reached."""
    expected = arguments.seconds * arguments.records_a_second
    if timings.waiting or len(timings.candle) != expected or len(timings.bare) != expected:
        raise SystemExit(
            f"of {expected} records {len(timings.bare)} came back and {len(timings.candle)} were in a candle"
        )
    print(
        f"{arguments.records_a_second * arguments.trades_a_record:,} trades a second in "
        f"{arguments.records_a_second:,} records, {arguments.seconds} s"
    )
    for name, values in (("bare round trip", timings.bare), ("trade to candle", timings.candle)):
        figures = "  ".join(f"p{at} {_p(values, at) * 1000:7.1f} ms" for at in (50, 90, 99))
        print(f"{name:<16} {figures}  most {max(values) * 1000:7.1f} ms")
    limit = GOAL_SECONDS + 3 * _p(timings.bare, 99)
    reached = _p(timings.candle, 99) <= limit
    print(f"goal: p99 <= {limit * 1000:.1f} ms: {'reached' if reached else 'MISSED'}")


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--records-a-second", type=int, default=200)
    parser.add_argument("--trades-a-record", type=int, default=5)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
