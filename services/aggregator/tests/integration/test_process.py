"""The real thing: `vegamite-aggregator` as processes, over real Kafka and real PostgreSQL, stopped and killed."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from vegamite_aggregator.adapters.schema import SCHEMA_VERSION
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, TRADES
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, from_datetime
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.trades import Heartbeat, SpanOpened, TradesRecord, encode_trades
from vegamite_common.runtime.clock import SystemClock, wall_now
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.kafka import KafkaServer

PARTITIONS = 3
MARKETS = [Market("sim", f"M{number}/USD") for number in range(5)]

CONFIG = """
[log]
format = "json"
[kafka]
bootstrap_servers = "{kafka}"
session_timeout_ms = 6000
[kafka.topics]
partitions = {partitions}
[postgres]
url = "{postgres}"
[aggregator]
management_port = 0
batch_max_records = 20
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


class Aggregators:
    """Processes of one configuration."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(
        self, *arguments: str, config: Path | None = None
    ) -> asyncio.subprocess.Process:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VEGAMITE_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vegamite_aggregator",
            *arguments,
            "--config",
            str(config or self.config),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        self.processes.append(process)
        return process

    async def finish(self, *arguments: str, config: Path | None = None) -> tuple[int | None, str]:
        """Run to the end; the exit code and what was said on standard error."""
        process = await self.start(*arguments, config=config)
        _, said = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, said.decode()

    async def said(self, process: asyncio.subprocess.Process, words: str) -> str:
        """Wait until the process says so on standard error; what it said up to there."""
        assert process.stderr is not None
        lines: list[str] = []
        while words not in (lines[-1] if lines else ""):
            lines.append((await asyncio.wait_for(process.stderr.readline(), 60)).decode())
            assert lines[-1], lines
        return "".join(lines)

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest_asyncio.fixture
async def aggregators(
    broker: KafkaServer, database: str, tmp_path: Path
) -> AsyncIterator[Aggregators]:
    config = tmp_path / "vegamite.toml"
    config.write_text(
        CONFIG.format(kafka=broker.bootstrap, postgres=database, partitions=PARTITIONS)
    )
    aggregators = Aggregators(config)
    yield aggregators
    await aggregators.close()


@pytest_asyncio.fixture
async def bus(broker: KafkaServer) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(KafkaSection(bootstrap_servers=broker.bootstrap), SystemClock())
    await bus.start()
    yield bus
    await bus.close()


async def test_migrate_makes_schema_and_topics_and_says_what_is_wrong_in_one_line(
    aggregators: Aggregators, bus: KafkaBus, database: str, tmp_path: Path
) -> None:
    for _ in range(2):
        code, said = await aggregators.finish("migrate")
        assert code == 0, said
    assert await bus.partition_count(TRADES) == PARTITIONS
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT version FROM schema_version") == SCHEMA_VERSION
    await connection.close()

    other = tmp_path / "other.toml"
    other.write_text(aggregators.config.read_text().replace("partitions = 3", "partitions = 4"))
    code, said = await aggregators.finish("migrate", config=other)
    assert code == 2
    assert "market.trades.v1" in said
    assert len(said.strip().splitlines()) == 1, said


async def test_the_schema_says_that_the_topics_are_there_too(
    aggregators: Aggregators, database: str, tmp_path: Path
) -> None:
    away = tmp_path / "away.toml"
    away.write_text(
        re.sub(
            'bootstrap_servers = ".*"',
            'bootstrap_servers = "127.0.0.1:1"',
            aggregators.config.read_text(),
        ).replace("[kafka]", "[kafka]\nstart_timeout_ms = 1000")
    )
    code, said = await aggregators.finish("migrate", config=away)
    assert code == 2
    assert "the topics can't be prepared" in said
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT to_regclass('schema_version')") is None
    finally:
        await connection.close()


async def test_a_wrong_configuration_is_refused_with_key_and_line(
    aggregators: Aggregators, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[aggregator]\nbatch_max_record = 7\ntick_interval_ms = "soon"\n')
    code, said = await aggregators.finish("run", config=wrong)
    assert code == 2
    assert "batch_max_record" in said
    assert f"{wrong}:2" in said
    assert f"{wrong}:3" in said


async def greatest_states(bus: KafkaBus) -> dict[Any, Candle]:
    reader = await bus.reader(CANDLES)
    partitions = range(PARTITIONS)
    await reader.seek(await reader.begin_offsets(partitions))
    ends = await reader.end_offsets(partitions)
    at = dict.fromkeys(partitions, 0)
    greatest: dict[Any, Candle] = {}
    while any(at[partition] < ends[partition] for partition in partitions):
        for fetched in await reader.poll(max_records=5000, timeout=1):
            for message in fetched.messages:
                record = decode_candles(message.value)
                for candle in record.candles:
                    key = (record.symbol, candle.timeframe.value, candle.open_time)
                    if key not in greatest or candle.state_order > greatest[key].state_order:
                        greatest[key] = candle
                at[fetched.partition] = message.offset + 1
    await reader.close()
    return greatest


@pytest.mark.timeout(180)
async def test_processes_stopped_and_killed_leave_what_an_undisturbed_fold_gives(
    aggregators: Aggregators,
    bus: KafkaBus,
    database: str,
    trades: Callable[..., list[Trade]],
    assert_equal_fold: Callable[..., None],
) -> None:
    code, said = await aggregators.finish("migrate")
    assert code == 0, said
    begin = wall_now() - 3600 * SECOND
    begin -= begin % SECOND
    made = {market: trades(seed=at, count=1200, begin=begin) for at, market in enumerate(MARKETS)}

    async def publish(market: Market, *records: Any) -> None:
        key = market.key.encode()
        await bus.producer().publish(
            TRADES,
            partition_for(key, PARTITIONS),
            [(None if isinstance(r, Heartbeat) else key, encode_trades(r)) for r in records],
        )

    async def feed(start: int, end: int) -> None:
        for market, some in made.items():
            name: Any = {"exchange": market.exchange, "symbol": market.symbol}
            writer = f"w-{market.symbol}"
            await publish(market, SpanOpened(**name, writer=writer, from_time=begin))
            for at in range(start, end, 10):
                part = some[at : at + 10]
                received = part[-1].event_time + SECOND
                covered = part[-1].event_time - part[-1].event_time % SECOND
                await publish(
                    market,
                    TradesRecord(
                        **name, received_time=received, origin=Origin.LIVE, trades=tuple(part)
                    ),
                    Heartbeat(writer=writer, to_time=covered),
                )

    connection = await asyncpg.connect(database)

    async def stored() -> int:
        return int(await connection.fetchval("SELECT count(*) FROM trade"))

    first, second = await aggregators.start("run"), await aggregators.start()
    await feed(0, 300)
    await eventually(stored, timeout_s=60)
    first.send_signal(signal.SIGSTOP)
    await feed(300, 600)
    before = await stored()

    async def goes_on() -> bool:
        return await stored() > before

    second.kill()
    await second.communicate()
    third = await aggregators.start()
    await eventually(goes_on, timeout_s=60)
    first.send_signal(signal.SIGCONT)
    await feed(600, 900)
    third.kill()
    await third.communicate()
    fourth = await aggregators.start()
    await feed(900, 1200)

    async def all_read() -> bool:
        done = await connection.fetchval(
            "SELECT count(*) = $1 AND NOT EXISTS (SELECT FROM outbox) FROM trade",
            1200 * len(MARKETS),
        )
        final = await connection.fetchval(
            "SELECT bool_and(final) FROM candle WHERE timeframe IN ('1s', '1m')"
        )
        return bool(done and final)

    await eventually(all_read, timeout_s=90)
    # The others may have done it all while this one was still being loaded, deaf to signals.
    await aggregators.said(fourth, "aggregator joined")
    for process in (first, fourth):
        process.send_signal(signal.SIGTERM)
        _, last_words = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, last_words.decode()

    rows = [
        dict(row)
        for row in await connection.fetch("SELECT * FROM candle JOIN market USING (market_key)")
    ]
    await connection.close()
    for market, some in made.items():
        assert_equal_fold([row for row in rows if row["symbol"] == market.symbol], some)
    greatest = await greatest_states(bus)
    told = {key: candle.state_order for key, candle in greatest.items() if candle.final}
    assert told == {
        (row["symbol"], row["timeframe"], from_datetime(row["open_time"])): (
            row["epoch"], row["as_of"], True, row["revision"],
        )
        for row in rows
        if row["final"]
    }  # fmt: skip


async def test_the_role_influx_says_what_it_needs_and_stops_in_order_while_there_is_no_influxdb(
    aggregators: Aggregators, tmp_path: Path
) -> None:
    code, said = await aggregators.finish("--role", "influx")
    assert (code, said.strip()) == (2, "the role influx needs url and token in [influxdb]")

    away = tmp_path / "away.toml"
    away.write_text(
        aggregators.config.read_text()
        + '[influxdb]\nurl = "http://127.0.0.1:1"\ntoken = "never shown"\n'
    )
    process = await aggregators.start("--role", "influx", config=away)
    before = await aggregators.said(process, "the sink waits")
    assert '"state": "away"' in before.splitlines()[-1]
    process.send_signal(signal.SIGTERM)
    _, rest = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, rest.decode()
    assert "never shown" not in before + rest.decode()
