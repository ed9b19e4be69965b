"""The recorded day through Kafka into PostgreSQL and InfluxDB, which is killed twice on the way: both hold the same."""

import asyncio
import json
import math
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import canonical
from vegamite_common.domain.time import MINUTE, SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    TradesRecord,
    TradesTopicRecord,
    encode_trades,
)
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.influxdb import InfluxServer
from vegamite_common.testing.services.kafka import KafkaServer

PARTITIONS = 3
MARKET = Market("binance", "XRP/ETH")
REPAIRED = Market("kraken", "XRP/ETH")
MINUTES = 600
FIELDS = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "trade_count",
    "complete", "revision", "as_of",
)  # fmt: skip

pytestmark = pytest.mark.timeout(420)


class DataPath:
    """From a Kafka of its own to a PostgreSQL and an InfluxDB: both roles of the aggregator, as processes."""

    def __init__(
        self, folder: Path, kafka: KafkaServer, influx: InfluxServer, database: str
    ) -> None:
        self.kafka = kafka
        self.influx = influx
        self.database = database
        self.config = folder / "vegamite.toml"
        self.write_config(influx.address.token)
        command = [sys.executable, "-m", "vegamite_aggregator", "--config", str(self.config)]
        self.candles = ServiceProcess(command, log=folder / "candles.log")
        self.sink = ServiceProcess([*command, "--role", "influx"], log=folder / "sink.log")
        self.migration = ServiceProcess([*command, "migrate"], log=folder / "migrate.log")

    def write_config(self, token: str) -> None:
        sections: dict[str, dict[str, Any]] = {
            "log": {"format": "json"},
            "kafka": {"bootstrap_servers": self.kafka.bootstrap, "session_timeout_ms": 6000},
            "kafka.topics": {"partitions": PARTITIONS},
            "postgres": {"url": self.database},
            "aggregator": {"management_port": 0},
            "influxdb": {
                "url": self.influx.address.url,
                "token": token,
                "read_revised": True,
                "retry_interval_ms": 50,
                "max_retry_interval_ms": 500,
            },
        }
        lines = []
        for name, keys in sections.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    async def answer(self, path: str) -> tuple[int, str]:
        """What the sink's management server says."""

        def ask() -> tuple[int, str]:
            port = self.sink.wait_for_record("management_port")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as told:
                    return told.status, told.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(ask)

    async def flux(self, bucket: str, *steps: str) -> list[dict[str, Any]]:
        """The rows of a question."""
        address = self.influx.address
        question = f'from(bucket: "{bucket}") |> range(start: 2019-01-01T00:00:00Z) ' + " ".join(
            f"|> {step}" for step in steps
        )

        def ask() -> list[dict[str, Any]]:
            with InfluxDBClient(address.url, token=address.token, org=address.org) as client:
                try:
                    tables = client.query_api().query(question)
                except (ApiException, HTTPError) as error:
                    raise AssertionError(f"InfluxDB has no answer: {error}") from None
            return [record.values for table in tables for record in table.records]

        return await asyncio.to_thread(ask)

    def close(self) -> None:
        for process in (self.sink, self.candles, self.migration):
            process.kill()


@pytest_asyncio.fixture
async def data_path(database: str, tmp_path: Path) -> AsyncIterator[DataPath]:
    with KafkaServer() as kafka, InfluxServer() as influx:
        built = DataPath(tmp_path, kafka, influx, database)
        try:
            await asyncio.to_thread(built.migration.start)
            assert await asyncio.to_thread(built.migration.process.wait, 60) == 0
            yield built
        finally:
            built.close()


def records_of(recorded: Sequence[Any], random: Random) -> list[TradesRecord]:
    """The day's trades in records of uneven length, a little out of order, some delivered twice."""
    trades = [
        Trade(
            trade_id=str(raw.trade_id),
            sequence=raw.trade_id,
            event_time=raw.event_time * 1000,
            price=canonical(raw.price),
            amount=canonical(raw.amount),
            taker_side="buy" if raw.taker_buys else "sell",
        )
        for raw in recorded
    ]
    records = []
    at = 0
    while at < len(trades):
        part = tuple(trades[at : at + random.randrange(1, 150)])
        at += len(part)
        records.append(
            TradesRecord(
                exchange=MARKET.exchange, symbol=MARKET.symbol, trades=part, origin=Origin.LIVE,
                received_time=max(trade.event_time for trade in part) + SECOND,
            )
        )  # fmt: skip
    for place in random.sample(range(len(records) - 1), len(records) // 10):
        records[place], records[place + 1] = records[place + 1], records[place]
    return [again for record in records for again in [record] * (1 + (random.random() < 0.1))]


def job_of(begin: int) -> list[TradesTopicRecord]:
    """A backfill of another market, with a trade in each of so many minutes that nobody publishes their candles."""
    name: Any = {"exchange": REPAIRED.exchange, "symbol": REPAIRED.symbol}
    trades = [
        Trade(
            trade_id=f"b{number}",
            sequence=number,
            event_time=begin + number * MINUTE,
            price=canonical(Decimal(1000 + number) / 7),
            amount=Decimal(3),
        )
        for number in range(MINUTES)
    ]
    record = TradesRecord(
        **name, received_time=trades[-1].event_time, origin=Origin.BACKFILL, job="repair",
        trades=tuple(trades),
    )  # fmt: skip
    return [
        JobStarted(**name, job="repair", origin=Origin.BACKFILL),
        record,
        JobEnded(**name, job="repair"),
    ]


async def publish(bus: KafkaBus, records: Sequence[TradesTopicRecord]) -> None:
    for record in records:
        if isinstance(record, Heartbeat):
            raise TypeError("a heartbeat is of no market")
        key = record.market.key.encode()
        await bus.producer().publish(
            TRADES, partition_for(key, PARTITIONS), [(key, encode_trades(record))]
        )


async def assert_settled(path: DataPath, pool: Any, trade_count: int) -> None:
    """Cheap to ask again and again: the numbers of trades and candles, and the sums of the candles' ranks, agree."""
    assert await pool.fetchval("SELECT count(*) FROM trade") == trade_count
    assert not await pool.fetchval("SELECT count(*) FROM outbox")
    kept = await pool.fetchrow(
        "SELECT sum(as_of)::bigint, sum(revision)::bigint, count(*) FROM candle WHERE final"
    )
    written = [0, 0, 0]
    for bucket in ("vegamite", "vegamite_downsampled"):
        for at, (field, action) in enumerate(
            (("as_of", "sum"), ("revision", "sum"), ("revision", "count"))
        ):
            rows = await path.flux(
                bucket,
                f'filter(fn: (r) => r._measurement == "candle" and r._field == "{field}")',
                "group()",
                f"{action}()",
            )
            written[at] += sum(row["_value"] for row in rows)
    assert written == list(kept)


async def assert_equal_trades(path: DataPath, pool: Any, trade_count: int) -> None:
    """Both hold the same trades: counted and summed by Flux, and one by one."""
    trades = 'filter(fn: (r) => r._measurement == "trade" and r._field == "amount")'
    counted = await path.flux("vegamite", trades, 'group(columns: ["exchange"])', "count()")
    summed = await path.flux("vegamite", trades, 'group(columns: ["exchange"])', "sum()")
    totals = {
        row["exchange"]: (row["count"], float(row["sum"]))
        for row in await pool.fetch(
            "SELECT exchange, count(*), sum(amount) FROM trade JOIN market USING (market_key) GROUP BY 1"
        )
    }
    assert {row["exchange"]: row["_value"] for row in counted} == {
        exchange: count for exchange, (count, _) in totals.items()
    }
    assert len(summed) == len(totals)
    for row in summed:
        assert math.isclose(row["_value"], totals[row["exchange"]][1], rel_tol=1e-12)
    ids = await path.flux(
        "vegamite",
        'filter(fn: (r) => r._measurement == "trade" and r._field == "trade_id")',
        'keep(columns: ["_value", "exchange"])',
    )
    assert len(ids) == trade_count
    stored = await pool.fetch("SELECT exchange, trade_id FROM trade JOIN market USING (market_key)")
    assert sorted((row["exchange"], row["_value"]) for row in ids) == sorted(map(tuple, stored))


async def assert_equal_candles(path: DataPath, pool: Any) -> None:
    written: dict[Any, dict[str, Any]] = {}
    wanted = " or ".join(f'r._field == "{name}"' for name in FIELDS)
    for bucket in ("vegamite", "vegamite_downsampled"):
        for row in await path.flux(
            bucket, f'filter(fn: (r) => r._measurement == "candle" and ({wanted}))'
        ):
            key = (row["exchange"], row["timeframe"], row["_time"])
            fields = written.setdefault(key, {"bucket": bucket})
            fields[row["_field"]] = row["_value"]
    rows = await pool.fetch("SELECT * FROM candle JOIN market USING (market_key) WHERE final")
    kept = {
        (row["exchange"], row["timeframe"], row["open_time"]): {
            name: float(row[name]) if name.endswith(("open", "high", "low", "close", "volume"))
            else row[name]
            for name in FIELDS
        }
        for row in rows
    }  # fmt: skip
    assert len(kept) > 2000
    assert written.keys() == kept.keys()
    differing = [
        key for key, row in kept.items() if row != {name: written[key][name] for name in FIELDS}
    ]
    assert not differing[:3], (kept[differing[0]], written[differing[0]])
    short = {"1s", "1m", "3m", "5m", "15m", "30m"}
    assert all(
        (fields["bucket"] == "vegamite") == (timeframe in short)
        for (_, timeframe, _), fields in written.items()
    )


async def test_the_recorded_day_is_the_same_in_influxdb_also_when_that_is_killed_twice(
    data_path: DataPath, recorded_day: Any
) -> None:
    path = data_path
    records = records_of(recorded_day.trades, Random(7))
    half, quarter = len(records) // 2, len(records) // 4
    begun = len({trade.trade_id for record in records[:half] for trade in record.trades})
    all_day = len(recorded_day.trades) + MINUTES
    rest: list[TradesTopicRecord] = [
        *records[half:],
        *job_of(recorded_day.trades[0].event_time * 1000),
    ]
    pool = await asyncpg.create_pool(path.database, min_size=1, max_size=2)
    bus = KafkaBus(KafkaSection(bootstrap_servers=path.kafka.bootstrap), SystemClock())
    await bus.start()
    path.candles.start()
    path.sink.start()
    try:
        await publish(bus, records[:half])
        await eventually(lambda: assert_settled(path, pool, begun), timeout_s=90)
        await assert_equal_trades(path, pool, begun)

        for part in (rest[:quarter], rest[quarter:]):
            await asyncio.to_thread(path.influx.kill)
            await publish(bus, part)

            async def told_to_be_away() -> None:
                code, reason = await path.answer("/readyz")
                assert (code, "doesn't take points" in reason) == (503, True), reason

            await eventually(told_to_be_away, timeout_s=60)
            assert (await path.answer("/healthz"))[0] == 200
            await asyncio.to_thread(path.influx.start)
        await eventually(lambda: assert_settled(path, pool, all_day), timeout_s=90)

        assert await revised_written(path) >= 2 * MINUTES
        # Another one, which begins where the first one was: nothing changes.
        await asyncio.to_thread(path.sink.stop)
        await asyncio.to_thread(path.sink.start)
        await eventually(lambda: assert_caught_up(path), timeout_s=60)
        await assert_settled(path, pool, all_day)
        await assert_equal_trades(path, pool, all_day)
        await assert_equal_candles(path, pool)
    finally:
        await bus.close()
        await pool.close()


async def revised_written(path: DataPath) -> float:
    """How many candles the sink had to read because no topic has them."""
    _, text = await path.answer("/metrics")
    (line,) = (
        line
        for line in text.splitlines()
        if line.startswith("vegamite_aggregator_sink_points_total{")
        and 'topic="status"' in line
        and 'outcome="written"' in line
    )
    return float(line.split()[-1])


async def assert_caught_up(path: DataPath) -> None:
    code, text = await path.answer("/metrics")
    lines = [line for line in text.splitlines() if "sink_lag_records{" in line]
    assert code == 200
    assert len(lines) == 3 * PARTITIONS
    assert all(line.endswith(" 0.0") for line in lines), lines
