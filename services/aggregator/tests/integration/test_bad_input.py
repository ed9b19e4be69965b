"""Bad input for the real thing: garbage of every kind in Kafka, a topic that vanishes; `vegamite-aggregator` as a process."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, DEAD_LETTERS, TRADES, Record
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import HOUR, SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.dead_letters import MAX_VALUE_BYTES, DeadLetter, decode_dead_letter
from vegamite_common.messages.trades import TradesRecord, encode_trades
from vegamite_common.runtime.clock import SystemClock, wall_now
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.kafka import KafkaServer

PARTITIONS = 2
PARTITION = 0

CONFIG = """
[log]
format = "json"
[kafka]
bootstrap_servers = "{kafka}"
request_timeout_ms = 2000
delivery_timeout_ms = 2000
[kafka.topics]
partitions = {partitions}
[postgres]
url = "{postgres}"
[aggregator]
management_port = 0
unready_seconds = 0.5
"""


def markets_of(partition: int) -> list[Market]:
    markets = (Market("sim", f"M{number}/USD") for number in range(100))
    return [m for m in markets if partition_for(m.key.encode(), PARTITIONS) == partition]


HERE, ANOTHER, *_ = markets_of(PARTITION)
ELSEWHERE = markets_of(1)[0]
KEY = HERE.key.encode()


def record(trades: list[Trade], market: Market = HERE) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=max(trade.event_time for trade in trades) + SECOND,
        origin=Origin.LIVE,
        trades=tuple(trades),
    )


def changed(trade: Trade, *, of_trade: bool = True, **fields: Any) -> bytes:
    """A good record with other content in one place."""
    document = json.loads(encode_trades(record([trade])))
    (document["trades"][0] if of_trade else document).update(fields)
    return json.dumps(document).encode()


def garbage(trade: Trade) -> dict[str, tuple[Record, str]]:
    """Records that can't be taken, and the reason that each is to be given."""
    good = encode_trades(record([trade]))
    undecodable: dict[str, tuple[bytes | None, bytes]] = {
        "no JSON": (KEY, b"\x00\xff garbage"),
        "nothing": (KEY, b""),
        "cut off": (KEY, good[:-7]),
        "no record": (KEY, b"[]"),
        "a key that is no text": (b"\xff\xfe", b"{"),
        "another version": (KEY, changed(trade, of_trade=False, v=2)),
        "an unknown kind": (KEY, changed(trade, of_trade=False, kind="rumours")),
        "a price that is no number": (KEY, changed(trade, price="1,5")),
        "a price that is not finite": (KEY, changed(trade, price="Infinity")),
        "an amount below zero": (KEY, changed(trade, amount="-1")),
        "a number of too many digits": (KEY, changed(trade, amount="1e-31")),
        "a time before all trades": (KEY, changed(trade, event_time=1)),
        "a name that can't be stored": (KEY, changed(trade, of_trade=False, job="a\x00b")),
        "a name of ten million letters": (KEY, changed(trade, trade_id="w" * 10_000_000)),
        "no market": (KEY, changed(trade, of_trade=False, symbol="BTC USD")),
    }
    named = {name: (made, "undecodable") for name, made in undecodable.items()}
    named["another market's key"] = ((b"sim:OTHER/USD", good), "key")
    named["no key"] = ((None, good), "key")
    named["another partition's market"] = (
        (ELSEWHERE.key.encode(), encode_trades(record([trade], ELSEWHERE))),
        "partition",
    )
    return named


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest_asyncio.fixture
async def bus(broker: KafkaServer) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(KafkaSection(bootstrap_servers=broker.bootstrap), SystemClock())
    await bus.start()
    yield bus
    await bus.close()


@pytest_asyncio.fixture
async def aggregator(
    broker: KafkaServer, database: str, tmp_path: Path
) -> AsyncIterator[ServiceProcess]:
    """A process that runs over fresh tables."""
    config = tmp_path / "vegamite.toml"
    config.write_text(
        CONFIG.format(kafka=broker.bootstrap, postgres=database, partitions=PARTITIONS)
    )
    command = [sys.executable, "-m", "vegamite_aggregator", "--config", str(config)]
    await asyncio.to_thread(subprocess.run, [*command, "migrate"], check=True, timeout=60)
    process = ServiceProcess(command, log=tmp_path / "log")
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.kill)


async def readiness(process: ServiceProcess) -> str:
    """What /readyz says; "" where it is ready."""
    port = await asyncio.to_thread(process.wait_for_record, "management_port")

    def ask() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return ""
        except urllib.error.HTTPError as error:
            return str(error.read().decode())

    return await asyncio.to_thread(ask)


async def letters(bus: KafkaBus) -> list[tuple[bytes | None, DeadLetter]]:
    """Every letter of the partition that names our market's log, with the key that it stands under."""
    reader = await bus.reader(DEAD_LETTERS)
    try:
        await reader.seek(await reader.begin_offsets([PARTITION]))
        end = (await reader.end_offsets([PARTITION]))[PARTITION]
        found: list[tuple[bytes | None, DeadLetter]] = []
        while len(found) < end:
            for fetched in await reader.poll(max_records=1000, timeout=1):
                found += [(each.key, decode_dead_letter(each.value)) for each in fetched.messages]
        return found
    finally:
        await reader.close()


@pytest.mark.timeout(120)
async def test_garbage_between_good_records_is_set_apart_and_can_be_put_back(
    aggregator: ServiceProcess,
    bus: KafkaBus,
    database: str,
    trades: Callable[..., list[Trade]],
    assert_equal_fold: Callable[..., None],
) -> None:
    begin = wall_now() - 3600 * SECOND
    made = trades(count=100, begin=begin - begin % SECOND)
    future = Trade("later", 1, wall_now() + HOUR, made[0].price, made[0].amount)
    named = garbage(made[0])
    producer = bus.producer()
    offsets: dict[int, str] = {}
    for at, (name, (rubbish, _)) in enumerate(named.items()):
        ack = await producer.publish(TRADES, PARTITION, [rubbish])
        offsets[ack.base_offset] = name
        await producer.publish(TRADES, PARTITION, [(KEY, encode_trades(record([made[at]])))])
    split = TradesRecord(
        exchange=HERE.exchange,
        symbol=HERE.symbol,
        received_time=wall_now(),
        origin=Origin.LIVE,
        trades=(*made[len(named) : 60], future),
    )
    ack = await producer.publish(TRADES, PARTITION, [(KEY, encode_trades(split))])
    # A mistake of the producer's, for which the records have to come again: right this time.
    lost = [(b"sim:OTHER/USD", encode_trades(record([trade]))) for trade in made[60:]]
    last = await producer.publish(TRADES, PARTITION, lost)

    connection = await asyncpg.connect(database)
    passed = "SELECT next_offset > $2 FROM partition_fence WHERE partition = $1"
    end = last.base_offset + last.count - 1

    async def read_and_told() -> bool:
        told = "SELECT NOT EXISTS (SELECT FROM outbox)"
        return bool(await connection.fetchval(passed, PARTITION, end)) and bool(
            await connection.fetchval(told)
        )

    await eventually(read_and_told, timeout_s=60)
    assert await readiness(aggregator) == ""
    told = {letter.offset: (key, letter) for key, letter in await letters(bus)}
    for offset, name in offsets.items():
        (key, value), reason = named[name]
        under, letter = told.pop(offset)
        assert (letter.reason, letter.key, under) == (reason, key, key), name
        assert (letter.value, letter.value_bytes) == (value[:MAX_VALUE_BYTES], len(value)), name
        assert letter.detail, name
    _, partly = told.pop(ack.base_offset)
    assert (partly.reason, partly.refused_trades, partly.trade_ids) == ("future", 1, ("later",))

    async def candles() -> list[dict[str, Any]]:
        query = "SELECT * FROM candle JOIN market USING (market_key) WHERE symbol = $1"
        return [dict(row) for row in await connection.fetch(query, HERE.symbol)]

    assert_equal_fold(await candles(), made[:60])

    # What an operator does: the same values once more, under the right key.
    back = [(KEY, letter.value) for _, letter in told.values() if letter.whole]
    assert len(back) == len(made[60:])
    again = await producer.publish(TRADES, PARTITION, back)
    end = again.base_offset + again.count - 1
    await eventually(read_and_told, timeout_s=60)
    assert_equal_fold(await candles(), made)
    count = "SELECT count(*) FROM trade JOIN market USING (market_key) WHERE symbol = $1"
    assert await connection.fetchval(count, HERE.symbol) == len(made)
    await connection.close()
    assert await asyncio.to_thread(aggregator.stop) == 0


@pytest.mark.timeout(120)
async def test_a_topic_that_vanished_is_a_reason_not_to_be_ready_until_it_is_back(
    aggregator: ServiceProcess,
    bus: KafkaBus,
    broker: KafkaServer,
    database: str,
    trades: Callable[..., list[Trade]],
) -> None:
    async def ready() -> None:
        assert await readiness(aggregator) == ""

    async def publishing_fails() -> None:
        assert "committed candles wait (0): Kafka, publishing to" in await readiness(aggregator)

    await eventually(ready, timeout_s=60)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([CANDLES])
        key = ANOTHER.key.encode()
        begin = wall_now() - 3600 * SECOND
        made = trades(count=50, begin=begin - begin % SECOND)
        await bus.producer().publish(
            TRADES, PARTITION, [(key, encode_trades(record(made, ANOTHER)))]
        )
        await eventually(publishing_fails, timeout_s=60)
        settings = {"message.timestamp.type": "LogAppendTime"}
        await admin.create_topics([NewTopic(CANDLES, PARTITIONS, 1, topic_configs=settings)])
        await eventually(ready, timeout_s=60)
    finally:
        await admin.close()
    connection = await asyncpg.connect(database)
    count = "SELECT count(*) FROM trade JOIN market USING (market_key) WHERE symbol = $1"
    assert await connection.fetchval(count, ANOTHER.symbol) == len(made)

    async def all_out() -> bool:
        return not await connection.fetchval("SELECT count(*) FROM outbox")

    await eventually(all_out)
    await connection.close()
    begun = [each for each in aggregator.records() if each["message"] == "committed candles wait"]
    assert len(begun) == 1, begun
