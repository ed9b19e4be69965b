"""The stream's rules, one by one, against records written by hand into the log."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from vegamite_common.bus.port import CANDLES
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, MINUTE, SECOND
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.candles import CandlesRecord
from vegamite_common.messages.status import GapOpened, Revised, SourceState
from vegamite_common.messages.trades import Heartbeat, TradesRecord
from vegamite_common.testing.eventually import eventually

BTC = Market("kraken", "BTC/USD")
ETH = Market("kraken", "ETH/USD")
DEMO = Market("sim", "DEMO/USD")
NOON = 1_760_097_600 * SECOND
Records = Callable[..., TradesRecord]


def _trades(first: int, count: int = 1) -> list[Trade]:
    return [
        Trade(
            trade_id=str(number),
            sequence=number,
            event_time=NOON + number * SECOND // 100,
            price=Decimal(100),
            amount=Decimal(1),
        )
        for number in range(first, first + count)
    ]


def _candle(
    minute: int, *, as_of: int, final: bool = False, revision: int = 0, close: int = 100
) -> Candle:
    open_time = NOON + minute * MINUTE
    return Candle(
        timeframe=Timeframe.M1,
        open_time=open_time,
        open=Decimal(100),
        high=Decimal(max(100, close)),
        low=Decimal(min(100, close)),
        close=Decimal(close),
        volume=Decimal(1),
        quote_volume=Decimal(100),
        buy_volume=Decimal(0),
        buy_quote_volume=Decimal(0),
        trade_count=1,
        first_event_time=open_time,
        first_sequence=1,
        first_trade_id="1",
        last_event_time=open_time,
        last_sequence=1,
        last_trade_id="1",
        epoch=1,
        as_of=as_of,
        updated_at=NOON,
        final=final,
        complete=final,
        revision=revision,
    )


def _changed(kind: Any, *candles: Candle, market: Market = BTC) -> CandlesRecord:
    return CandlesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        type=kind,
        candles=candles,
        reason="late_trade" if kind == "revision" else None,
    )


async def _insert_candle(world: Any, market_key: int, candle: Candle) -> None:
    names = [name for name in Candle.__struct_fields__ if name != "timeframe"]
    await world.pool.execute(
        "SELECT ensure_time_partition('candle_1m', 'candle_1m_2025', '2025-01-01Z', '2026-01-01Z')"
    )
    values = []
    for name in names:
        value = getattr(candle, name)
        if name.endswith("_time") or name == "updated_at":
            value = await world.pool.fetchval(
                "SELECT to_timestamp($1::numeric / 1000000)", Decimal(value)
            )
        values.append(value)
    marks = ", ".join(f"${index + 2}" for index in range(len(names)))
    await world.pool.execute(
        f"INSERT INTO candle (market_key, timeframe, {', '.join(names)}) VALUES ($1, '1m', {marks})",
        market_key,
        *values,
    )


async def _fence(world: Any, next_offset: int, partition: int = 0) -> None:
    await world.pool.execute(
        """
        INSERT INTO partition_fence (partition, version, epoch, next_offset, owner)
        VALUES ($1, 1, 1, $2, 'test')
        """,
        partition,
        next_offset,
    )


async def test_messages_are_chained_and_named_by_their_place_in_the_log(
    world: Any, trades_record: Records
) -> None:
    await world.market()
    await world.publish(trades_record(BTC, _trades(1)), Heartbeat(writer="w", to_time=NOON))
    async with world.stream() as stream:
        ack = await stream.ask("subscribe", channel="trades", markets=[BTC.key])
        assert ack["results"] == [{"channel": "trades", "market": BTC.key, "seq": "1-0-1"}]
        await world.publish(trades_record(BTC, _trades(2, 2)), trades_record(ETH, _trades(9)))
        await world.publish(Heartbeat(writer="w", to_time=NOON), trades_record(BTC, _trades(4)))
        first = await stream.until(lambda m: m.get("channel") == "trades")
        second = await stream.until(lambda m: m.get("channel") == "trades")
        assert (first["prev_seq"], first["seq"], first["origin"]) == ("1-0-0", "1-0-2", "live")
        assert (second["prev_seq"], second["seq"]) == ("1-0-2", "1-0-5")
        assert first["data"][0] == {
            "market": BTC.key,
            "trade_id": "2",
            "sequence": 2,
            "event_time": "2025-10-10T12:00:00.020Z",
            "received_time": "2025-10-10T12:00:00Z",
            "price": "100",
            "amount": "1",
            "taker_side": None,
        }
        beat = await stream.until(lambda m: m.get("channel") == "heartbeat")
        assert beat["seqs"] == {f"trades:{BTC.key}": "1-0-5"}


async def test_trades_go_on_from_what_the_database_had_not_from_the_log_s_end(
    world: Any, trades_record: Records
) -> None:
    key = await world.market()
    for number in range(10):
        await world.publish(trades_record(BTC, _trades(number)))
    await world.pool.execute(
        "SELECT ensure_time_partition('trade', 'trade_20251010', '2025-10-10Z', '2025-10-11Z')"
    )
    await world.pool.execute(
        "INSERT INTO trade VALUES ($1, '2025-10-10T12:00:00.02Z', '2', 2, 100, 1, NULL, now(), 'live')",
        key,
    )
    await _fence(world, 3)
    async with world.stream() as stream:
        ack = await stream.ask("subscribe", channel="trades", markets=[BTC.key], snapshot=10)
        assert ack["results"][0]["seq"] == "1-0-2"
        snapshot = await stream.until(lambda m: m.get("channel") == "trades")
        assert (snapshot["type"], snapshot["seq"]) == ("snapshot", "1-0-2")
        await stream.until(lambda m: any(row["trade_id"] == "9" for row in m.get("data", [])))
        ids = [row["trade_id"] for row in stream.data("trades", "snapshot", "update")]
        assert ids == [str(number) for number in range(2, 10)]


async def test_a_database_ahead_of_the_replica_gives_no_trade_twice(
    world: Any, trades_record: Records
) -> None:
    await world.market()
    await _fence(world, 2)
    async with world.stream() as stream:
        ack = await stream.ask("subscribe", channel="trades", markets=[BTC.key], snapshot=10)
        assert ack["results"][0]["seq"] == "1-0-1"
        for number in range(4):
            await world.publish(trades_record(BTC, _trades(number)))
        await stream.until(lambda m: any(row["trade_id"] == "3" for row in m.get("data", [])))
        assert [row["trade_id"] for row in stream.data("trades", "update")] == ["2", "3"]


async def test_candle_states_that_the_snapshot_shows_already_are_dropped_by_the_whole_key(
    world: Any,
) -> None:
    key = await world.market()
    await _insert_candle(world, key, _candle(0, as_of=5, final=True, close=105))
    await _insert_candle(world, key, _candle(1, as_of=9, close=109))
    await _fence(world, 10)
    async with world.stream() as stream:
        asked = {"channel": "candles", "markets": [BTC.key], "timeframe": "1m", "snapshot": 5}
        assert (await stream.ask("subscribe", **asked))["success"]
        await world.publish_candles(
            _changed("update", _candle(0, as_of=5, close=105)),  # older: not final
            _changed("final", _candle(0, as_of=5, final=True, close=105)),  # the same
            _changed("update", _candle(1, as_of=8, close=108)),  # older
            _changed(
                "final", _candle(1, as_of=9, final=True, close=109)
            ),  # greater by `final` alone
            _changed("revision", _candle(0, as_of=5, final=True, revision=1, close=105)),
            _changed("update", _candle(2, as_of=11)),
        )
        await stream.until(lambda m: m.get("type") == "update")
        got = [
            (m["type"], m["seq"], m.get("prev_seq"))
            for m in stream.messages
            if m.get("channel") == "candles"
        ]
        assert got == [
            ("snapshot", "1-0--1", None),
            ("final", "1-0-3", "1-0-1"),
            ("revision", "1-0-4", "1-0-3"),
            ("update", "1-0-5", None),
        ]
        assert [row["close"] for row in stream.data("candles", "snapshot")] == ["105", "109"]


async def test_a_resumed_stream_goes_on_after_its_place_on_another_replica(
    make_world: Any, trades_record: Records
) -> None:
    world = await make_world(partitions=2)
    await world.begin_log()
    await world.serve()
    await world.market()
    async with world.stream() as stream:
        await stream.ask("subscribe", channel="trades", markets=[BTC.key])
        for number in range(6):
            await world.publish(trades_record(BTC, _trades(number)))
        for _ in range(3):
            last = await stream.until(lambda m: m.get("channel") == "trades")
    await world.serve()  # another replica, on the same log
    async with world.stream() as stream:
        ack = await stream.ask(
            "subscribe", channel="trades", markets=[BTC.key], resume={BTC.key: last["seq"]}
        )
        assert ack["results"][0]["seq"] == last["seq"]
        first = await stream.until(lambda m: m.get("channel") == "trades")
        assert first["prev_seq"] == last["seq"]
        await stream.until(lambda m: any(row["trade_id"] == "5" for row in m.get("data", [])))
        assert [row["trade_id"] for row in stream.data("trades", "update")] == ["3", "4", "5"]


async def test_what_is_older_than_the_replica_s_memory_is_read_from_the_log(
    make_world: Any, trades_record: Records
) -> None:
    world = await make_world()
    await world.begin_log()
    await world.serve(memory_bytes=1_048_576)
    await world.market()
    await world.ready()
    for number in range(60):
        await world.publish(trades_record(BTC, _trades(number * 100, 100)))
    async with world.stream() as stream:
        await stream.ask("ping")
        ack = await stream.ask(
            "subscribe", channel="trades", markets=[BTC.key], resume={BTC.key: "1-0-0"}
        )
        assert ack["success"], ack
        await world.publish(trades_record(BTC, _trades(6000)))
        await stream.until(lambda m: any(row["trade_id"] == "6000" for row in m.get("data", [])))
        messages = [m for m in stream.messages if m.get("channel") == "trades"]
        assert [m["seq"] for m in messages] == [f"1-0-{offset}" for offset in range(1, 61)]
        assert messages[0]["prev_seq"] == "1-0-0"
        ids = [row["trade_id"] for row in stream.data("trades", "update")]
        assert ids == [str(number) for number in range(100, 6001)]


async def test_places_that_the_log_has_not_are_refused_with_the_oldest_there_is(
    make_world: Any, trades_record: Records
) -> None:
    world = await make_world()
    world.bus._retained_bytes = 60_000
    await world.bus.close()
    await world.bus.start()
    await world.pool.execute("INSERT INTO log_epoch (epoch, partitions) VALUES (2, 1)")
    await world.serve()
    await world.market()
    await world.ready()
    for number in range(40):
        await world.publish(trades_record(BTC, _trades(number * 100, 100)))
        await asyncio.sleep(0)
    reader = await world.bus.reader("market.trades.v1")
    begin = (await reader.begin_offsets([0]))[0]
    end = (await reader.end_offsets([0]))[0]
    assert begin > 5
    async with world.stream() as stream:
        for seq, code in (
            ("1-0-0", "RESUME_TOO_OLD"),
            (f"1-0-{end - 1}", "RESUME_TOO_OLD"),
            (f"2-0-{end}", "INVALID_PARAMETER"),
            ("2-1-3", "INVALID_PARAMETER"),
            ("3-0-3", "INVALID_PARAMETER"),
            ("newest", "INVALID_PARAMETER"),
        ):
            reply = await stream.ask(
                "subscribe", channel="trades", markets=[BTC.key], resume={BTC.key: seq}
            )
            assert reply["error"]["code"] == code, (seq, reply)
            assert reply["error"]["parameter"] == f"params.resume[{BTC.key}]"
        oldest = (
            await stream.ask(
                "subscribe", channel="trades", markets=[BTC.key], resume={BTC.key: "1-0-0"}
            )
        )["error"]["oldest"]
        assert oldest == f"2-0-{begin - 1}"
        assert (await stream.ask("list"))["results"] == []
        reply = await stream.ask(
            "subscribe", channel="trades", markets=[BTC.key], resume={BTC.key: oldest}
        )
        assert reply["success"], reply


async def test_subscribing_twice_is_harmless_and_unsubscribing_ends_it(
    world: Any, trades_record: Records
) -> None:
    await world.market()
    async with world.stream() as stream:
        for _ in range(2):
            assert (await stream.ask("subscribe", channel="trades", markets=[BTC.key]))["success"]
        listed = (await stream.ask("list"))["results"]
        assert [entry["market"] for entry in listed] == [BTC.key]
        await world.publish(trades_record(BTC, _trades(1)))
        await stream.until(lambda m: m.get("channel") == "trades")
        reply = await stream.ask("unsubscribe", channel="trades", markets=[BTC.key])
        assert reply["results"] == [{"channel": "trades", "market": BTC.key, "subscribed": True}]
        reply = await stream.ask("unsubscribe", channel="trades", markets=[BTC.key])
        assert reply["results"][0]["subscribed"] is False
        await world.publish(trades_record(BTC, _trades(2)))
        assert "time" in await stream.ask("ping", req_id=77)
        assert [row["trade_id"] for row in stream.data("trades", "update")] == ["1"]


async def test_a_whole_exchange_brings_markets_that_are_tracked_later(
    world: Any, trades_record: Records
) -> None:
    await world.market(BTC, tracked=True)
    async with world.stream() as stream:
        ack = await stream.ask("subscribe", channel="trades", markets=["kraken:*"])
        assert [entry["market"] for entry in ack["results"]] == [BTC.key, "kraken:*"]
        await world.publish(
            trades_record(DEMO, _trades(1)),
            trades_record(ETH, _trades(2)),
            trades_record(BTC, _trades(3)),
        )
        await stream.until(lambda m: m.get("market") == BTC.key and m.get("channel") == "trades")
        assert [row["market"] for row in stream.data("trades", "update")] == [ETH.key, BTC.key]
        await stream.ask("unsubscribe", channel="trades", markets=[ETH.key])
        await world.publish(trades_record(ETH, _trades(4)), trades_record(BTC, _trades(5)))
        await stream.until(lambda m: any(row["trade_id"] == "5" for row in m.get("data", [])))
        await stream.ask("unsubscribe", channel="trades", markets=["kraken:*"])
        await world.publish(trades_record(ETH, _trades(6)), trades_record(BTC, _trades(7)))
        assert (await stream.ask("list"))["results"] == []
        ids = [row["trade_id"] for row in stream.data("trades", "update")]
        assert ids == ["2", "3", "5"]
        unknown = await stream.ask("subscribe", channel="trades", markets=["nobody:*"])
        assert unknown["error"]["code"] == "UNKNOWN_EXCHANGE"


async def test_status_tells_sources_and_gaps_and_candle_streams_hear_of_bulk_revisions(
    world: Any,
) -> None:
    await world.market()
    common: dict[str, Any] = {"exchange": BTC.exchange, "symbol": BTC.symbol, "event_time": NOON}
    async with world.stream() as watcher, world.stream() as charts:
        await watcher.ask("subscribe", channel="status", markets=[BTC.key])
        await charts.ask("subscribe", channel="candles", markets=[BTC.key], timeframe="1m")
        await world.publish_status(
            SourceState(**common, state="live"),
            SourceState(**common, state="reconnecting", reason="socket closed"),
            GapOpened(**common, from_time=NOON - MINUTE, to_time=NOON, cause="socket_closed"),
            Revised(
                **common,
                timeframe=Timeframe.M1,
                from_time=NOON - DAY,
                to_time=NOON,
                reason="import",
            ),
        )
        revised = await charts.until(lambda m: m.get("channel") == "status")
        assert (revised["type"], revised["timeframe"], revised["from_time"]) == (
            "revised",
            "1m",
            "2025-10-09T12:00:00Z",
        )
        await watcher.until(lambda m: m.get("type") == "revised")
        kinds = [m["type"] for m in watcher.messages if m.get("channel") == "status"]
        assert kinds == ["source_up", "source_down", "gap_opened", "revised"]


async def test_another_log_epoch_ends_the_streams(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("vegamite_api.service.tail._EPOCH_SECONDS", 0.05)
    await world.market()
    async with world.stream() as stream:
        await stream.ask("subscribe", channel="trades", markets=[BTC.key])
        await eventually(lambda: world.service.health.ready().ok)
        await world.pool.execute("INSERT INTO log_epoch (epoch, partitions) VALUES (2, 1)")
        assert await stream.closed() == 1012
        assert stream.messages[-1]["code"] == "STREAM_INTERRUPTED"
    async with world.stream() as stream:
        ack = await stream.ask("subscribe", channel="trades", markets=[BTC.key])
        assert ack["results"][0]["seq"].startswith("2-")


async def test_broken_records_are_passed_by(world: Any, trades_record: Records) -> None:
    await world.market()
    async with world.stream() as stream:
        await stream.ask("subscribe", channel="candles", markets=[BTC.key], timeframe="1m")
        for value in (b"", b"{", b'{"kind": "candles"}', b"\xff" * 50):
            await world.bus.producer().publish(CANDLES, 0, [(BTC.key.encode(), value)])
        head = b'{"v":1,"kind":"candles","exchange":"kraken","symbol":"BTC/USD","type":"update","candles":[{"timeframe":"1m"}]}'
        await world.bus.producer().publish(CANDLES, 0, [(BTC.key.encode(), head)])
        await world.publish_candles(_changed("update", _candle(0, as_of=1)))
        message = await stream.until(lambda m: m.get("channel") == "candles")
        assert message["seq"] == "1-0-5"
