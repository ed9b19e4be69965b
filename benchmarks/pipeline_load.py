"""What the benchmarks of the whole path share: a stretch of the trades log as a collector writes it, and what it costs.

The log's times are the trades' own: each record is appended a moment after its trades happened, so that reading it later
is reading a backlog of a healthy collector, with spans, heartbeats, and candles that become final in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from vegamite_aggregator.migrate import topic_specs
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import canonical
from vegamite_common.domain.time import HOUR, SECOND, Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import Heartbeat, SpanOpened, TradesRecord, encode_trades
from vegamite_common.runtime.section import TopicsSection

PARTITIONS = 12
_TICKS = os.sysconf("SC_CLK_TCK")
_DELAY: Micros = SECOND // 5  # from the last trade of a second to its record's append
_BATCHES_ON_THEIR_WAY = 200


@dataclass(frozen=True)
class Shape:
    """How a stream looks: `rate` trades a market and second, in one record; each `repeat`-th trade is an earlier one again."""

    name: str
    markets: int
    rate: int
    repeat: int = 0


@dataclass(frozen=True)
class Batch:
    """What a collector appends to one partition at once: (key, value) records and their append time in microseconds."""

    partition: int
    append_time: Micros
    records: Sequence[tuple[bytes | None, bytes]]


class Load:
    """A seeded stretch of a log: about `trades` trades (delivered ones) of a shape, ending some hours before `now`."""

    def __init__(self, shape: Shape, *, trades: int, now: Micros) -> None:
        self.shape = shape
        self.seconds = max(1, trades // (shape.markets * shape.rate))
        self.delivered = self.seconds * shape.markets * shape.rate
        self.distinct = 0
        # A whole hour, and a stretch of no more than a few hours: so it lies in one day or two.
        self.start = now - now % HOUR - 4 * HOUR - self.seconds * SECOND
        self.markets = [Market("binance", f"COIN{number}/USDT") for number in range(shape.markets)]

    def batches(self) -> Iterator[Batch]:
        """Yield the log in order of time."""
        chance = random.Random(7)
        self.distinct = 0
        by_partition: dict[int, list[Market]] = {partition: [] for partition in range(PARTITIONS)}
        for market in self.markets:
            by_partition[partition_for(market.key.encode(), PARTITIONS)].append(market)
        last: dict[Market, list[Trade]] = {market: [] for market in self.markets}
        for partition, markets in by_partition.items():
            opened = [
                (
                    market.key.encode(),
                    encode_trades(
                        SpanOpened(
                            exchange=market.exchange,
                            symbol=market.symbol,
                            writer="benchmark",
                            from_time=self.start,
                        )
                    ),
                )
                for market in markets
            ]
            if opened:
                yield Batch(partition, self.start, opened)
        for second in range(self.seconds):
            end = self.start + (second + 1) * SECOND
            beat = encode_trades(Heartbeat(writer="benchmark", to_time=end - SECOND))
            for partition, markets in by_partition.items():
                records: list[tuple[bytes | None, bytes]] = []
                for market in markets:
                    last[market] = self._second(chance, second, last[market])
                    records.append((market.key.encode(), self._record(market, last[market], end)))
                records.append((None, beat))
                yield Batch(partition, end + _DELAY, records)

    def _second(self, chance: random.Random, second: int, before: Sequence[Trade]) -> list[Trade]:
        rate, repeat = self.shape.rate, self.shape.repeat
        trades = []
        for number in range(rate):
            at = second * rate + number
            if repeat and before and at % repeat == repeat - 1:
                trades.append(before[number])
                continue
            self.distinct += 1
            trades.append(
                Trade(
                    trade_id=str(1_000_000_000 + at),
                    sequence=1_000_000_000 + at,
                    event_time=self.start + at * SECOND // rate,
                    price=canonical(Decimal(chance.randrange(6_000_000, 6_100_000)).scaleb(-2)),
                    amount=canonical(Decimal(chance.randrange(1, 10**7)).scaleb(-5)),
                    taker_side=chance.choice(("buy", "sell")),
                )
            )
        return trades

    def _record(self, market: Market, trades: Sequence[Trade], received_time: Micros) -> bytes:
        record = TradesRecord(
            exchange=market.exchange,
            symbol=market.symbol,
            received_time=received_time,
            origin=Origin.LIVE,
            trades=tuple(trades),
        )
        return encode_trades(record)


async def create_topics(bootstrap: str, *, append_times: str) -> None:
    """Make all topics; those of the trades with `LogAppendTime` as in service, or `CreateTime` to write a past log."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(
                    name=spec.topic,
                    num_partitions=PARTITIONS,
                    replication_factor=1,
                    topic_configs={
                        "message.timestamp.type": append_times
                        if spec.topic == TRADES
                        else "LogAppendTime"
                    },
                )
                for spec in topic_specs(TopicsSection())
            ]
        )
    finally:
        await admin.close()


@asynccontextmanager
async def open_producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer as the collector's: zstd, all acknowledgements."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type="zstd",
        enable_idempotence=True,
        max_batch_size=786_432,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def fill(bootstrap: str, load: Load) -> int:
    """Write the whole load into the trades topic; return how many records it has."""
    count = 0
    async with open_producer(bootstrap) as producer:
        waiting: list[asyncio.Future[object]] = []
        for batch in load.batches():
            builder = producer.create_batch()
            for key, value in batch.records:
                builder.append(key=key, value=value, timestamp=batch.append_time // 1000)
                count += 1
            builder.close()
            waiting.append(await producer.send_batch(builder, TRADES, partition=batch.partition))
            if len(waiting) >= _BATCHES_ON_THEIR_WAY:
                await asyncio.gather(*waiting)
                waiting = []
        await asyncio.gather(*waiting)
    return count


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process, its living children and those that it has waited for."""
    total = _cpu(pid, waited_for=True)
    tasks = Path(f"/proc/{pid}/task")
    for task in tasks.iterdir():
        # What ended meanwhile is counted next time.
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    total += _cpu(int(child), waited_for=False)
    return total


def _cpu(pid: int, *, waited_for: bool) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if waited_for else 13])) / _TICKS
