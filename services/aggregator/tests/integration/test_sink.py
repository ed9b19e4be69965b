"""The role `influx` over a real InfluxDB: what is in the log is there once, whatever happens to either of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from prometheus_client import REGISTRY
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from vegamite_aggregator.adapters.influx_store import InfluxPointStore
from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.service.sink import STREAMS, SinkService
from vegamite_common.bus.memory import MemoryBus
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, STATUS, TRADES, BusError
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, SECOND, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import CandlesRecord, ChangeType, encode_candles
from vegamite_common.messages.status import Revised, encode_status
from vegamite_common.messages.trades import TradesRecord, encode_trades
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.lifecycle import Stop
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.influxdb import InfluxAddress, InfluxServer

NOON = parse_time("2026-01-15T12:00:00Z")
MARKET = Market("sim", "BTC/USD")
OTHER = Market("sim", "ETH/USD:USD")


def a_trade(number: int, *, event_time: int = NOON, price: str = "100.5", **rest: Any) -> Trade:
    return Trade(
        trade_id=rest.pop("trade_id", str(number)),
        sequence=number,
        event_time=event_time,
        price=Decimal(price),
        amount=Decimal("0.25"),
        **rest,
    )


def a_candle(*, as_of: int, close: str = "2", revision: int = 0, at: int = NOON) -> Candle:
    return Candle(
        timeframe=Timeframe.M1, open_time=at, open=Decimal(1), high=Decimal(9), low=Decimal(1),
        close=Decimal(close), volume=Decimal(10), quote_volume=Decimal(25), buy_volume=Decimal(4),
        buy_quote_volume=Decimal(10), trade_count=7, first_event_time=at, first_sequence=1,
        first_trade_id="1", last_event_time=at + SECOND, last_sequence=7, last_trade_id="7",
        epoch=1, as_of=as_of, updated_at=at + MINUTE, final=True, complete=True, revision=revision,
    )  # fmt: skip


class SinkRig:
    """A log in memory, buckets of a real server, and sinks between the two."""

    def __init__(self, address: InfluxAddress, partitions: int = 2) -> None:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.address = address
        self.partitions = partitions
        self.section = InfluxSection(
            url=address.url, token=SecretStr(address.token), org=address.org, group=name,
            bucket=name, downsampled_bucket=f"{name}_long", batch_size=100, flush_interval_ms=10,
            timeout_ms=5000, retry_interval_ms=10, max_retry_interval_ms=500,
        )  # fmt: skip
        self.clock = SystemClock()
        self.bus = MemoryBus(clock=self.clock, partitions=partitions)
        self._client = InfluxDBClient(address.url, token=address.token, org=address.org)

    @asynccontextmanager
    async def sink(self, **changes: Any) -> AsyncIterator[SinkService]:
        """A sink at work inside the block."""
        section = self.section.model_copy(update=changes)
        assert section.url is not None
        assert section.token is not None
        stores = {
            name: InfluxPointStore(
                section,
                url=section.url,
                token=section.token.get_secret_value(),
                on_retry=lambda: None,
            )
            for name in STREAMS
        }
        service = SinkService(bus=self.bus, stores=stores, clock=self.clock, section=section)
        stop = Stop()
        running = asyncio.create_task(service.run(stop))
        try:
            yield service
        finally:
            stop.request()
            await running
            for store in stores.values():
                await store.close()

    async def publish(self, *records: TradesRecord | CandlesRecord) -> None:
        for record in records:
            key = record.market.key.encode()
            candles = isinstance(record, CandlesRecord)
            value = encode_candles(record) if candles else encode_trades(record)  # type: ignore[arg-type]
            await self.bus.producer().publish(
                CANDLES if candles else TRADES,
                partition_for(key, self.partitions),
                [(key, value)],
            )

    async def rows(self, flux: str, bucket: str | None = None) -> list[dict[str, Any]]:
        question = f'from(bucket: "{bucket or self.section.bucket}") |> range(start: 0) {flux}'
        try:
            tables = await asyncio.to_thread(self._client.query_api().query, question)
        except (ApiException, HTTPError) as error:
            raise AssertionError(f"InfluxDB has no answer: {error}") from None
        return [record.values for table in tables for record in table.records]

    async def trades(self) -> list[tuple[str, str, float]]:
        """(symbol, trade id, price) of every trade, in order of symbol and id; twice where it is there twice."""
        where = '|> filter(fn: (r) => r._measurement == "trade" and r._field == '
        ids = await self.rows(f'{where}"trade_id")')
        prices = await self.rows(f'{where}"price")')
        keys = ("symbol", "_time", "slot")
        assert len(ids) == len(prices)
        return sorted(
            (one["symbol"], one["_value"], other["_value"])
            for one, other in zip(
                *(sorted(rows, key=lambda r: [str(r[k]) for k in keys]) for rows in (ids, prices)),
                strict=True,
            )
        )

    async def candles(self, field: str = "close") -> list[tuple[Any, ...]]:
        rows = await self.rows(
            f'|> filter(fn: (r) => r._measurement == "candle" and r._field == "{field}")'
        )
        return sorted((r["symbol"], r["timeframe"], r["_time"], r["_value"]) for r in rows)

    async def committed(self) -> int:
        """How many records of both topics the groups have done."""
        groups = [
            self.bus._groups.get((topic, f"{self.section.group}.{name}"))
            for name, topic in STREAMS.items()
        ]
        return sum(sum(group.committed.values()) for group in groups if group is not None)

    async def close(self) -> None:
        await self.bus.close()
        await asyncio.to_thread(self._client.close)


def trades_record(*trades: Trade, market: Market = MARKET) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange, symbol=market.symbol, origin=Origin.LIVE, trades=trades,
        received_time=max(trade.event_time for trade in trades) + SECOND,
    )  # fmt: skip


def candles_record(*candles: Candle, change: ChangeType = "final") -> CandlesRecord:
    reason = "late_trade" if change == "revision" else None
    return CandlesRecord(
        exchange=MARKET.exchange, symbol=MARKET.symbol, type=change, candles=candles,
        reason=reason,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest_asyncio.fixture
async def rig(influxdb: InfluxAddress) -> AsyncIterator[SinkRig]:
    rig = SinkRig(influxdb)
    await rig.bus.start()
    yield rig
    await rig.close()


@pytest.fixture(scope="module")
def server() -> Iterator[InfluxServer]:
    """A server that a test may kill; it runs again afterwards."""
    with InfluxServer() as server:
        yield server


@pytest_asyncio.fixture
async def fragile(server: InfluxServer) -> AsyncIterator[SinkRig]:
    rig = SinkRig(server.address)
    await rig.bus.start()
    yield rig
    await rig.close()


def measured(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def has_trades(rig: SinkRig, count: int) -> None:
    async def all_there() -> None:
        assert len(await rig.trades()) == count

    await eventually(all_there)


async def test_trades_of_one_microsecond_are_as_many_points_and_a_repeat_is_none(
    rig: SinkRig,
) -> None:
    numbers = [a_trade(number) for number in range(1, 41)]
    # The same last three digits, so the same home: only the slots tell them apart.
    crowd = [a_trade(0, trade_id=f"{prefix}777") for prefix in range(1, 30)]
    strange = [a_trade(0, trade_id=text) for text in ('a "quoted" id', "back\\slash", "två,=\n")]
    some = [*numbers, *crowd, *strange]
    async with rig.sink():
        for at in range(0, len(some), 7):
            await rig.publish(trades_record(*some[at : at + 7]))
        await rig.publish(trades_record(*reversed(some)), trades_record(*some, market=OTHER))
        await has_trades(rig, 2 * len(some))
    # A second sink that begins at the log's beginning: it knows nothing but what it reads in InfluxDB.
    async with rig.sink(group=f"{rig.section.group}-again"):
        await rig.publish(trades_record(a_trade(1), a_trade(5000)))
        await has_trades(rig, 2 * len(some) + 1)
    assert measured("vegamite_aggregator_sink_points_total", topic="trades", outcome="held") > 0


async def test_the_first_of_two_that_contradict_stays(rig: SinkRig) -> None:
    async with rig.sink():
        await rig.publish(trades_record(a_trade(1, price="1.5", taker_side="buy")))
        await has_trades(rig, 1)
        await rig.publish(trades_record(a_trade(1, price="2.5", taker_side="sell"), a_trade(2)))
        await has_trades(rig, 2)
    assert await rig.trades() == [("BTC/USD", "1", 1.5), ("BTC/USD", "2", 100.5)]


async def test_a_candle_goes_forward_only_also_for_a_sink_that_has_just_begun(
    rig: SinkRig,
) -> None:
    newest = a_candle(as_of=30, close="4", revision=1)
    async with rig.sink():
        await rig.publish(
            candles_record(a_candle(as_of=10, close="2")),
            candles_record(newest, change="revision"),
            candles_record(a_candle(as_of=20, close="3")),
            candles_record(a_candle(as_of=40, close="5", at=NOON + MINUTE), change="update"),
        )
        await eventually(lambda: all_committed(rig, 4))
    assert [row[-1] for row in await rig.candles()] == [4.0]
    async with rig.sink():
        await rig.publish(candles_record(a_candle(as_of=25, close="7")))
        await eventually(lambda: all_committed(rig, 5))
        assert [row[-1] for row in await rig.candles()] == [4.0]
        await rig.publish(
            candles_record(a_candle(as_of=50, close="8", revision=2), change="revision")
        )
        await eventually(lambda: all_committed(rig, 6))
    assert [row[-1] for row in await rig.candles()] == [8.0]
    assert [row[-1] for row in await rig.candles("revision")] == [2]


async def all_committed(rig: SinkRig, count: int) -> None:
    assert await rig.committed() == count


async def test_ranges_that_no_topic_has_the_candles_of_are_counted_and_left_for_later(
    rig: SinkRig,
) -> None:
    name = "vegamite_aggregator_sink_unread_ranges_total"
    before = measured(name)
    revised = Revised(
        exchange=MARKET.exchange, symbol=MARKET.symbol, event_time=NOON, timeframe=Timeframe.M1,
        from_time=NOON, to_time=NOON + 600 * MINUTE, reason="import",
    )  # fmt: skip
    key = MARKET.key.encode()
    partition = partition_for(key, rig.partitions)
    await rig.bus.producer().publish(STATUS, partition, [(key, encode_status(revised))])
    async with rig.sink() as service:
        await eventually(lambda: measured(name) == before + 1)
        await eventually(lambda: service.health.ready().ok)
    async with rig.sink():
        await rig.bus.producer().publish(STATUS, partition, [(key, encode_status(revised))])
        await eventually(lambda: measured(name) == before + 2)
    # Whoever turns read_revised on finds both.
    assert (STATUS, f"{rig.section.group}.status") not in rig.bus._groups


async def test_a_status_topic_that_may_not_be_read_holds_nothing_up(
    rig: SinkRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rig.bus.partition_count

    async def without_status(topic: str) -> int:
        if topic == STATUS:
            raise BusError("topic does not exist")
        return await real(topic)

    monkeypatch.setattr(rig.bus, "partition_count", without_status)
    async with rig.sink() as service:
        await rig.publish(trades_record(a_trade(1)), candles_record(a_candle(as_of=1)))
        await has_trades(rig, 1)
        await eventually(lambda: all_committed(rig, 2))
        assert service.health.ready().ok
    assert len(await rig.candles()) == 1


async def test_longer_candles_have_a_bucket_of_their_own(rig: SinkRig) -> None:
    day = a_candle(as_of=1, at=NOON - NOON % (24 * 60 * MINUTE))
    candle = Candle(
        **{
            **{name: getattr(day, name) for name in day.__struct_fields__},
            "timeframe": Timeframe.D1,
        }
    )
    async with rig.sink():
        await rig.publish(candles_record(candle, a_candle(as_of=2)))
        await eventually(lambda: all_committed(rig, 1))
    assert [row[1] for row in await rig.candles()] == ["1m"]
    assert {row["timeframe"] for row in await rig.rows("", f"{rig.section.bucket}_long")} == {"1d"}


async def test_what_is_older_than_the_bucket_keeps_is_counted_and_left_out(rig: SinkRig) -> None:
    before = measured("vegamite_aggregator_sink_points_total", topic="trades", outcome="expired")
    now = rig.clock.now()
    old, young = a_trade(1, event_time=now - 40 * 86_400 * SECOND), a_trade(2, event_time=now)
    async with rig.sink(retention_days=30):
        await rig.publish(trades_record(old, young))
        await has_trades(rig, 1)
    after = measured("vegamite_aggregator_sink_points_total", topic="trades", outcome="expired")
    assert after == before + 1


async def test_a_wrong_token_is_a_state_with_a_reason_and_the_right_one_goes_on(
    rig: SinkRig,
) -> None:
    async with rig.sink(token=SecretStr("vegamite:wrong")) as service:
        await rig.publish(trades_record(a_trade(1)))

        def refused() -> None:
            ready = service.health.ready()
            assert not ready.ok
            assert "refuses the token" in ready.reason
            assert measured("vegamite_aggregator_sink_state", state="refused") == 1

        await eventually(refused)
        assert service.health.live().ok
    async with rig.sink() as service:
        await has_trades(rig, 1)
        await eventually(lambda: service.health.ready().ok)


async def test_points_that_are_refused_one_by_one_stop_nothing_and_are_told(
    rig: SinkRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig.sink():
        await rig.publish(trades_record(a_trade(1)))
        await has_trades(rig, 1)
    before = measured("vegamite_aggregator_sink_points_total", topic="trades", outcome="rejected")
    # Somebody has written a price that is a text; its series' own fields conflict in this shard.
    writer = InfluxDBClient(rig.address.url, token=rig.address.token, org=rig.address.org)
    async with rig.sink() as service:
        store = service._stores["trades"]
        real = store.write

        async def spoilt(points: Sequence[Any]) -> Any:
            wrong = [
                type(p)(p.bucket, p.line.replace(b"price=100.5", b'price="x"'))
                if b'trade_id="13"' in p.line
                else p
                for p in points
            ]
            return await real(wrong)

        monkeypatch.setattr(store, "write", spoilt)
        await rig.publish(trades_record(*(a_trade(number) for number in range(2, 300))))
        await has_trades(rig, 298)
        assert not [row for row in await rig.trades() if row[1] == "13"]
        await eventually(
            lambda: measured(
                "vegamite_aggregator_sink_points_total", topic="trades", outcome="rejected"
            ) == before + 1
        )  # fmt: skip
    await asyncio.to_thread(writer.close)


async def test_two_sinks_share_the_partitions_and_nothing_is_lost_when_one_goes(
    rig: SinkRig,
) -> None:
    async with rig.sink():
        async with rig.sink():
            for at in range(0, 100, 10):
                some = [a_trade(number) for number in range(at, at + 10)]
                await rig.publish(trades_record(*some), trades_record(*some, market=OTHER))
        for at in range(100, 200, 10):
            some = [a_trade(number) for number in range(at, at + 10)]
            await rig.publish(trades_record(*some), trades_record(*some, market=OTHER))
        await has_trades(rig, 400)


@pytest.mark.timeout(120)
async def test_a_server_that_is_away_at_the_start_and_killed_in_the_middle_gets_everything(
    fragile: SinkRig, server: InfluxServer, trades: Callable[..., list[Trade]]
) -> None:
    rig = fragile
    made = trades(count=900, begin=NOON)

    async def publish(some: list[Trade]) -> None:
        for at in range(0, len(some), 5):
            await rig.publish(trades_record(*some[at : at + 5]))

    await asyncio.to_thread(server.kill)
    async with rig.sink() as service:

        def away() -> None:
            assert measured("vegamite_aggregator_sink_state", state="away") == 1
            assert "doesn't take points" in service.health.ready().reason

        await eventually(away)
        await publish(made[:300])
        await asyncio.to_thread(server.start)
        await has_trades(rig, 300)
        feeding = asyncio.create_task(publish(made[300:]))
        await asyncio.to_thread(server.kill)
        await eventually(away)
        await asyncio.to_thread(server.start)
        await feeding
        await has_trades(rig, 900)
        await eventually(lambda: service.health.ready().ok)
    assert [(row[1], row[2]) for row in await rig.trades()] == sorted(
        (trade.trade_id, float(trade.price)) for trade in made
    )
