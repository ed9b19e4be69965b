"""How many trades a second the bus takes and gives: records of 50 trades, over a real broker and inside the process.

Usage: python benchmarks/bus_publish.py [--bootstrap HOST:PORT] [--seconds SECONDS]

Without an address it starts a broker of its own. For each way it prints trades and records a second published (a task a
partition, each waiting for its acknowledgements) and then read again, and the processor time that a million trades take
of this process.
"""

import argparse
import asyncio
import random
import time
import uuid
from contextlib import ExitStack
from decimal import Decimal

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.port import Bus, Record, TopicSpec
from vegamite_common.domain.market import Market
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord, encode_trades
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.services.kafka import KafkaServer

PARTITIONS = 12
TRADES_A_RECORD = 50
START = 1_760_000_000_000_000


def make_records(count: int) -> list[Record]:
    """Encoded records of one market, with prices and amounts that differ, as an exchange's do."""
    chance = random.Random(1)
    market = Market("binance", "BTC/USDT")
    records: list[Record] = []
    for number in range(count):
        first = number * TRADES_A_RECORD
        trades = tuple(
            Trade(
                trade_id=str(first + at),
                sequence=first + at,
                event_time=START + (first + at) * 20_000,
                price=Decimal(chance.randrange(6_000_000, 6_100_000)).scaleb(-2).normalize(),
                amount=Decimal(chance.randrange(1, 1_000_000)).scaleb(-5).normalize(),
                taker_side=chance.choice(["buy", "sell"]),
            )
            for at in range(TRADES_A_RECORD)
        )
        record = TradesRecord(
            exchange=market.exchange,
            symbol=market.symbol,
            received_time=START + first * 20_000,
            origin=Origin.LIVE,
            trades=trades,
        )
        records.append((market.key.encode(), encode_trades(record)))
    return records


async def publish(bus: Bus, topic: str, batch: list[Record], seconds: float) -> int:
    """Publish the batch to every partition again and again; return how many records were acknowledged."""
    producer = bus.producer()
    deadline = time.monotonic() + seconds

    async def fill(partition: int) -> int:
        count = 0
        while time.monotonic() < deadline:
            count += (await producer.publish(topic, partition, batch)).count
        return count

    return sum(await asyncio.gather(*(fill(partition) for partition in range(PARTITIONS))))


async def read(bus: Bus, topic: str, records: int) -> None:
    """Read that many records from the oldest that are there."""
    reader = await bus.reader(topic)
    await reader.seek(await reader.begin_offsets(range(PARTITIONS)))
    while records > 0:
        for fetched in await reader.poll(max_records=5000, timeout=1.0):
            records -= len(fetched.messages)
    await reader.close()


async def measure(name: str, bus: Bus, *, batch: int, seconds: float) -> None:
    """Measure one way and print its line."""
    await bus.start()
    topic = f"benchmark-{uuid.uuid4().hex}"
    spec = TopicSpec(topic=topic, partitions=PARTITIONS, replication=1, retention_ms=3_600_000)
    await bus.create_topics([spec])
    records = make_records(batch)
    await publish(bus, topic, records, 0.5)
    began, used = time.monotonic(), time.process_time()
    count = await publish(bus, topic, records, seconds)
    took, cost = time.monotonic() - began, time.process_time() - used
    counter = await bus.reader(topic)
    there = sum((await counter.end_offsets(range(PARTITIONS))).values())
    there -= sum((await counter.begin_offsets(range(PARTITIONS))).values())
    began = time.monotonic()
    await read(bus, topic, there)
    reading = time.monotonic() - began
    trades = count * TRADES_A_RECORD
    print(
        f"{name:24} {batch:5} records a batch: {trades / took:12,.0f} trades/s published"
        f" ({count / took:9,.0f} records/s, {cost / trades * 1e6:5.2f} CPU s a million),"
        f" {there * TRADES_A_RECORD / reading:12,.0f} trades/s read"
    )
    await bus.close()


async def main(bootstrap: str, seconds: float) -> None:
    """Measure every way, one after the other."""
    size = sum(len(value) for _, value in make_records(20)) / 20
    print(f"a record of {TRADES_A_RECORD} trades is {size:,.0f} bytes of JSON")
    for batch in (1, 20, 100):
        await measure(
            "inside the process", MemoryBus(clock=SystemClock()), batch=batch, seconds=seconds
        )
    for compression in ("none", "lz4", "zstd"):
        for batch in (1, 20, 100):
            section = KafkaSection.model_validate(
                {"bootstrap_servers": bootstrap, "compression": compression}
            )
            name = f"Kafka, {compression}"
            await measure(name, KafkaBus(section, SystemClock()), batch=batch, seconds=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="address of a broker; without it one is started")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each way is measured")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        address = arguments.bootstrap or stack.enter_context(KafkaServer()).bootstrap
        asyncio.run(main(address, arguments.seconds))
