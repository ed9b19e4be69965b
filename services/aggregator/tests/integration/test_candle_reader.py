"""Candles that no topic has, from a real PostgreSQL into a real InfluxDB."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from vegamite_aggregator.adapters.candle_reader import PostgresCandleReader
from vegamite_aggregator.adapters.influx_store import InfluxPointStore
from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.ports import CandlePage, CandleReader, StoreError
from vegamite_aggregator.service.sink import REVISED_STREAMS, SinkService
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, MINUTE, SECOND, from_datetime, to_datetime
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.status import Revised
from vegamite_common.messages.trades import JobEnded, JobStarted, Rebuild, TradesRecord
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.influxdb import InfluxAddress

NAME: Any = {"exchange": "sim", "symbol": "DEMO/USD"}
MINUTES = 700
State = tuple[int, int, int, int]
"""Of a candle: epoch, as_of, revision and number of trades."""


def record(numbers: range, begin: int, **more: Any) -> TradesRecord:
    """Trades, each in a minute of its own; a bought one where the number is odd."""
    made = [
        Trade(
            trade_id=f"{more.get('job', 'live')}-{number}",
            sequence=number,
            event_time=begin + number * MINUTE + SECOND,
            price=Decimal(100 + number),
            amount=Decimal(1),
            taker_side="buy" if number % 2 else "sell",
        )
        for number in numbers
    ]
    received = max((trade.event_time for trade in made), default=begin) + SECOND
    origin = Origin.BACKFILL if "job" in more else Origin.LIVE
    return TradesRecord(**NAME, received_time=received, origin=origin, trades=tuple(made), **more)


async def stored(rig: Any) -> dict[tuple[str, int], State]:
    """The final candles of PostgreSQL, by timeframe and open time."""
    return {
        (row["timeframe"], from_datetime(row["open_time"])): (
            row["epoch"],
            row["as_of"],
            row["revision"],
            row["trade_count"],
        )
        for row in await rig.rows("candle")
        if row["final"]
    }


async def written(client: InfluxDBClient, section: InfluxSection) -> dict[tuple[str, int], State]:
    """The candles of InfluxDB, likewise."""
    found: dict[tuple[str, int], dict[str, int]] = {}
    for bucket in (section.bucket, section.downsampled_bucket):
        flux = f'from(bucket: "{bucket}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "candle")'
        flux += ' |> filter(fn: (r) => contains(value: r._field, set: ["epoch", "as_of", "revision", "trade_count"]))'
        try:
            tables = await asyncio.to_thread(client.query_api().query, flux)
        except (ApiException, HTTPError) as error:
            raise AssertionError(f"InfluxDB has no answer: {error}") from None
        for table in tables:
            for row in table.records:
                key = (row["timeframe"], from_datetime(row["_time"]))
                found.setdefault(key, {})[row["_field"]] = row["_value"]

    def field(fields: dict[str, int], name: str) -> int:
        # A query sees a point that is being written field by field.
        return fields.get(name, -1)

    return {
        key: (
            field(fields, "epoch"),
            field(fields, "as_of"),
            field(fields, "revision"),
            field(fields, "trade_count"),
        )
        for key, fields in found.items()
    }


class AwayAtFirst:
    """A reader whose database is away for its first two questions."""

    def __init__(self, reader: CandleReader) -> None:
        self._reader = reader
        self.questions = 0

    async def page(self, *asked: Any, **range_of: Any) -> CandlePage:
        self.questions += 1
        if self.questions <= 2:
            raise StoreError("away, says the test")
        return await self._reader.page(*asked, **range_of)

    async def expired_before(self, *asked: Any) -> int:
        return await self._reader.expired_before(*asked)


@asynccontextmanager
async def sink(rig: Any, section: InfluxSection, reader: CandleReader) -> AsyncIterator[None]:
    assert section.url is not None
    assert section.token is not None
    stores = {
        name: InfluxPointStore(
            section, url=section.url, token=section.token.get_secret_value(), on_retry=lambda: None
        )
        for name in REVISED_STREAMS
    }
    service = SinkService(
        bus=rig.bus, stores=stores, clock=rig.clock, section=section, reader=reader
    )
    stop = Stop()
    running = asyncio.create_task(service.run(stop))
    try:
        yield
    finally:
        stop.request()
        await running
        for store in stores.values():
            await store.close()


@pytest.mark.timeout(120)
async def test_candles_of_a_job_too_large_to_be_published_reach_influxdb_also_over_older_ones(
    rig: Any, influxdb: InfluxAddress
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    section = InfluxSection(
        url=influxdb.url, token=SecretStr(influxdb.token), org=influxdb.org, group=name,
        bucket=name, downsampled_bucket=f"{name}_long", flush_interval_ms=10, timeout_ms=5000,
        retry_interval_ms=10, max_retry_interval_ms=500, read_revised=True,
    )  # fmt: skip
    client = InfluxDBClient(influxdb.url, token=influxdb.token, org=influxdb.org)
    begin = rig.clock.now() - 2 * DAY
    begin -= begin % DAY
    reader = AwayAtFirst(PostgresCandleReader(rig.pool))

    async def same() -> None:
        assert await written(client, section) == await stored(rig)

    await rig.start()
    async with sink(rig, section, reader):
        await rig.publish(record(range(50), begin))
        await rig.settled()
        await eventually(same)
        assert ("1m", begin) in await written(client, section)
        await rig.publish(
            JobStarted(**NAME, job="repair", origin=Origin.BACKFILL),
            record(range(MINUTES), begin, job="repair"),
            JobEnded(**NAME, job="repair"),
        )
        await rig.settled()
        told = [status for status in await rig.statuses() if isinstance(status, Revised)]
        assert {status.timeframe.value for status in told} == {"1s", "1m"}
        await eventually(same, timeout_s=60)
    found = await written(client, section)
    assert sum(timeframe == "1s" for timeframe, _ in found) == MINUTES
    assert found["1m", begin][2:] == (1, 2)
    assert reader.questions > 2
    await asyncio.to_thread(client.close)


@pytest.mark.timeout(120)
async def test_candles_that_a_rebuild_took_away_are_deleted_in_influxdb_and_expired_ones_are_kept(
    rig: Any, influxdb: InfluxAddress
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    section = InfluxSection(
        url=influxdb.url, token=SecretStr(influxdb.token), org=influxdb.org, group=name,
        bucket=name, downsampled_bucket=f"{name}_long", flush_interval_ms=10, timeout_ms=5000,
        retry_interval_ms=10, max_retry_interval_ms=500, read_revised=True,
    )  # fmt: skip
    client = InfluxDBClient(influxdb.url, token=influxdb.token, org=influxdb.org)
    begin = rig.clock.now() - 2 * DAY
    begin -= begin % DAY
    reader = PostgresCandleReader(rig.pool)

    async def same() -> None:
        assert await written(client, section) == await stored(rig)

    await rig.start()
    async with sink(rig, section, reader):
        await rig.publish(record(range(20), begin))
        await rig.settled()
        await eventually(same)
        before = await written(client, section)
        # What nobody should do, and what a rebuild then makes right: five minutes' trades, and an expired candle.
        await rig.pool.execute(
            "DELETE FROM trade WHERE event_time >= $1 AND event_time < $2",
            to_datetime(begin + 5 * MINUTE),
            to_datetime(begin + 10 * MINUTE),
        )
        await rig.pool.execute(
            "INSERT INTO horizon SELECT market_key, '1s', $1 FROM market",
            to_datetime(begin + 7 * MINUTE),
        )
        await rig.publish(Rebuild(**NAME, from_time=begin, to_time=begin + DAY))
        await rig.settled()
        gone = {("1m", begin + minute * MINUTE) for minute in range(5, 10)}
        gone |= {("1s", begin + minute * MINUTE + SECOND) for minute in range(7, 10)}
        gone |= {("5m", begin + 5 * MINUTE)}
        kept = {("1s", begin + minute * MINUTE + SECOND) for minute in (5, 6)}

        async def those_alone() -> None:
            now = await written(client, section)
            assert before.keys() - now.keys() >= gone
            assert now.keys() == (await stored(rig)).keys() | kept

        await eventually(those_alone)
        # A trade that comes there again makes a candle again.
        await rig.publish(record(range(5, 6), begin))
        await rig.settled()
        await eventually(lambda: has(client, section, ("1m", begin + 5 * MINUTE)))
    await asyncio.to_thread(client.close)


async def has(client: InfluxDBClient, section: InfluxSection, key: tuple[str, int]) -> bool:
    return key in await written(client, section)


async def test_a_user_that_may_not_read_is_a_fault_that_can_be_mended(
    pool: "asyncpg.Pool[asyncpg.Record]", migrated: str
) -> None:
    role = f"nobody_{uuid.uuid4().hex[:8]}"
    await pool.execute(f"CREATE ROLE {role}")
    try:
        settings = {"role": role}
        async with asyncpg.create_pool(
            migrated, min_size=1, max_size=1, server_settings=settings
        ) as own:
            with pytest.raises(StoreError, match="permission denied"):
                await PostgresCandleReader(own).page(
                    Market("sim", "DEMO/USD"), Timeframe.M1, from_time=0, to_time=DAY, limit=10
                )
    finally:
        await pool.execute(f"DROP ROLE {role}")
