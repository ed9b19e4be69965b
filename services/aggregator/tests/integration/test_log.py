"""The log as it may be: cut short, replaced, full of rubbish; and bulk jobs in it."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from vegamite_common.bus.port import DEAD_LETTERS, TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, MINUTE, SECOND, from_datetime, to_datetime
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.dead_letters import MAX_VALUE_BYTES, decode_dead_letter
from vegamite_common.messages.status import GapOpened, Revised
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    Rebuild,
    SpanClosed,
    SpanOpened,
    TradesRecord,
)
from vegamite_common.runtime.lifecycle import StartError
from vegamite_common.testing.eventually import eventually

DEMO = Market("sim", "DEMO/USD")
NAME: Any = {"exchange": DEMO.exchange, "symbol": DEMO.symbol}


def record(trades: list[Trade], **more: Any) -> TradesRecord:
    received = max([trade.event_time for trade in trades], default=0) + SECOND
    return TradesRecord(
        **NAME,
        received_time=received,
        origin=more.pop("origin", Origin.LIVE),
        trades=tuple(trades),
        **more,
    )


async def spans(rig: Any) -> list[tuple[int, int]]:
    return [
        (from_datetime(row["from_time"]), from_datetime(row["to_time"]))
        for row in await rig.rows("coverage_span")
    ]


async def test_coverage_follows_the_heartbeats_and_ends_where_the_log_was_lost(rig: Any) -> None:
    begin = rig.clock.now() - 600 * SECOND
    running = await rig.start()
    await rig.publish(
        SpanOpened(**NAME, writer="w", from_time=begin),
        Heartbeat(writer="w", to_time=begin + 60 * SECOND),
    )
    await rig.settled()
    assert await spans(rig) == [(begin, begin + 60 * SECOND)]
    await running.stop()
    rig.forget(running)

    await rig.new_log()  # what was in flight is gone
    await rig.start()
    await rig.publish(
        Heartbeat(writer="w", to_time=begin + 120 * SECOND),
        SpanOpened(**NAME, writer="v", from_time=begin + 200 * SECOND),
        Heartbeat(writer="v", to_time=begin + 300 * SECOND),
    )
    await rig.settled()
    assert await spans(rig) == [
        (begin, begin + 60 * SECOND),
        (begin + 200 * SECOND, begin + 300 * SECOND),
    ]
    assert await rig.pool.fetchval("SELECT array_agg(writer) FROM open_span") == ["v"]


async def test_a_hole_in_a_tracked_markets_coverage_is_a_gap_row_and_a_status_record(
    rig: Any,
) -> None:
    begin = rig.clock.now() - 600 * SECOND
    key = await rig.pool.fetchval(
        "SELECT ensure_market('sim', 'DEMO/USD', 'spot', 'DEMO', 'USD', NULL)"
    )
    await rig.pool.execute(
        "INSERT INTO tracked_market VALUES ($1, $2)", key, to_datetime(begin - MINUTE)
    )
    await rig.start()
    await rig.publish(
        SpanOpened(**NAME, writer="w", from_time=begin),
        Heartbeat(writer="w", to_time=begin + 60 * SECOND),
        SpanClosed(**NAME, writer="w", to_time=begin + 61 * SECOND, cause="socket_closed"),
        SpanOpened(**NAME, writer="w", from_time=begin + 90 * SECOND),
        Heartbeat(writer="w", to_time=begin + 100 * SECOND),
    )
    await rig.settled()
    gaps = [
        (
            from_datetime(row["from_time"]) - begin,
            from_datetime(row["to_time"]) - begin,
            row["cause"],
            row["state"],
        )
        for row in await rig.rows("gap")
    ]
    assert [gap[:2] for gap in gaps] == [(-MINUTE, 0), (61 * SECOND, 90 * SECOND)]
    assert gaps[1][2:] == ("socket_closed", "open")
    opened = [status for status in await rig.statuses() if isinstance(status, GapOpened)]
    assert {(status.from_time - begin, status.to_time - begin) for status in opened} == {
        gap[:2] for gap in gaps
    }


async def test_tracking_a_known_market_later_shows_its_gaps_without_a_restart(rig: Any) -> None:
    begin = rig.clock.now() - 600 * SECOND
    await rig.start()
    await rig.publish(
        SpanOpened(**NAME, writer="w", from_time=begin),
        Heartbeat(writer="w", to_time=begin + SECOND),
    )
    await rig.settled()
    assert await rig.rows("gap") == []
    await rig.pool.execute(
        "INSERT INTO tracked_market SELECT market_key, $1 FROM market", to_datetime(begin - MINUTE)
    )
    at = 1

    async def gap_is_there() -> bool:
        nonlocal at
        at += 1
        await rig.publish(
            SpanOpened(**NAME, writer="w", from_time=begin),
            Heartbeat(writer="w", to_time=begin + at * SECOND),
        )
        return bool(await rig.pool.fetchval("SELECT EXISTS (SELECT FROM gap)"))

    await eventually(gap_is_there)


async def test_another_number_of_partitions_is_refused_until_a_new_epoch_is_declared(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=40)
    begin = made[0].event_time
    running = await rig.start()
    await rig.publish(
        record(made[:20]),
        SpanOpened(**NAME, writer="w", from_time=begin),
        Heartbeat(writer="w", to_time=begin + SECOND),
    )
    await rig.settled()
    await running.stop()
    rig.forget(running)

    await rig.new_log(partitions=3)
    refused = await rig.start()
    with pytest.raises(StartError, match="--new-log-epoch"):
        await refused.task
    rig.forget(refused)
    await refused.pool.close()

    running = await rig.start(new_log_epoch=True)
    await rig.publish(record(made[20:]))
    await rig.settled()
    assert [row["epoch"] for row in await rig.rows("log_epoch")] == [1, 2]
    assert {row["epoch"] for row in await rig.rows("partition_fence")} == {2}
    assert await rig.rows("open_span") == []
    assert await spans(rig) == [(begin, begin + SECOND)]
    counted = await rig.pool.fetchval("SELECT sum(trade_count) FROM candle WHERE timeframe = '1M'")
    assert counted == len(made), "candles go on where the last epoch left them"
    await running.stop()
    rig.forget(running)
    again = await rig.start()  # a second start needs no declaration
    await rig.settled()
    again.raise_if_crashed()


async def test_a_log_shorter_than_what_was_read_is_refused(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    running = await rig.start()
    await rig.publish(record(trades(count=10)))
    await rig.settled()
    await running.stop()
    rig.forget(running)
    await rig.pool.execute("UPDATE partition_fence SET next_offset = 10000000")
    refused = await rig.start()
    with pytest.raises(StartError, match=r"partition 0: .*--new-log-epoch"):
        await refused.task
    rig.forget(refused)
    await refused.pool.close()


async def test_rubbish_in_the_log_is_passed_over_and_nothing_else_is(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=30)
    await rig.start()
    rubbish = [
        b"",
        b"null",
        b"{}",
        b'{"v":1,"kind":"trades"}',
        b'{"v":2,"kind":"heartbeat","writer":"w","to":1}',
        b'{"v":1,"kind":"heartbeat","writer":"w\\u0000","to":1}',
        b'{"v":1,"kind":"heartbeat","writer":"' + b"w" * 100_000 + b'","to":1}',
        b'{"v":1,"kind":"heartbeat","writer":"w","to":99999999999999999999999}',
        b'{"v":1,"kind":"job_started","exchange":"sim","symbol":"DEMO/USD","job":"a\\u0000b","origin":"import"}',
        b'{"v":1,"kind":"job_started","exchange":"sim","symbol":"DEMO/USD","job":"\\ud800","origin":"import"}',
        b'{"v":1,"kind":"span_opened","exchange":"sim","symbol":"DEMO/USD","writer":"w","from":-99999999999999999}',
        b'{"v":1,"kind":"span_closed","exchange":"sim","symbol":"DEMO/USD","writer":"w","to":1,"cause":"\\u0000"}',
        b'{"v":1,"kind":"rebuild","exchange":"sim","symbol":"DEMO/USD","from":0,"to":253402300799000000}',
        (
            b'{"v":1,"kind":"trades","exchange":"sim","symbol":"DEMO/USD","received_time":253402300799999999,"origin":"live",'
            b'"trades":[{"trade_id":"x","sequence":1,"event_time":253402300799999998,"price":"1","amount":"1"}]}'
        ),
        (
            b'{"v":1,"kind":"trades","exchange":"sim","symbol":"DEMO/USD","received_time":1700000000000000,"origin":"live",'
            b'"trades":[{"trade_id":"y","sequence":1,"event_time":1700000000000000,"price":"1e-90","amount":"1"}]}'
        ),
        (
            b'{"v":1,"kind":"trades","exchange":"other","symbol":"A/B","received_time":1700000000000000,"origin":"live",'
            b'"trades":[{"trade_id":"z","sequence":1,"event_time":1600000000000000,"price":"-1","amount":"1"}]}'
        ),
        b"\xff\xfe" * 1000,
        b"[" * 100_000,
    ]
    producer = rig.bus.producer()
    for at, value in enumerate(rubbish):
        await producer.publish(TRADES, 0, [(b"sim:DEMO/USD" if at % 2 else None, value)])
        await rig.publish(record(made[at : at + 1]))
    huge = b'{"v":1,"kind":"heartbeat","writer":"' + b"w" * 10_000_000 + b'","to":1}'
    await producer.publish(TRADES, 0, [(b"sim:DEMO/USD", huge)])
    rubbish.append(huge)
    await rig.publish(record(made))
    await rig.settled()
    assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)
    assert await rig.pool.fetchval(
        "SELECT sum(trade_count) FROM candle WHERE timeframe = '1M'"
    ) == len(made)
    letters = await rig.messages(DEAD_LETTERS)
    told = [decode_dead_letter(message.value) for message in letters]
    assert [letter.value for letter in told] == [value[:MAX_VALUE_BYTES] for value in rubbish]
    assert [letter.value_bytes for letter in told] == list(map(len, rubbish))
    assert {letter.reason for letter in told} == {"undecodable"}
    assert [letter.offset for letter in told] == list(range(0, 2 * len(rubbish), 2))
    assert [message.key for message in letters] == [letter.key for letter in told]
    assert {letter.key for letter in told} == {None, b"sim:DEMO/USD"}


async def test_a_bulk_job_gives_each_candle_one_final_state_and_no_storm(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    begin = rig.clock.now() - 2 * DAY
    made = trades(count=3000, begin=begin, step=4 * SECOND)
    end = made[-1].event_time + 1
    await rig.start(batch_max_records=2)
    await rig.publish(JobStarted(**NAME, job="import-1", origin=Origin.IMPORT))
    for start in range(0, len(made), 100):
        await rig.publish(record(made[start : start + 100], origin=Origin.IMPORT, job="import-1"))
        if start == 1500:
            rig.clock.advance(30)
    await rig.publish(record([], origin=Origin.IMPORT, job="import-1", covered=(begin, end)))
    await rig.settled()
    assert await rig.pool.fetchval("SELECT bool_or(final) FROM candle") is False, (
        "the job still holds them"
    )
    assert (await rig.rows("job"))[0]["state"] == "open"
    await rig.publish(JobEnded(**NAME, job="import-1"))
    await rig.becomes("SELECT state = 'ended' FROM job")
    await rig.settled()
    job = (await rig.rows("job"))[0]
    assert job["trades"] == len(made)
    rows = await rig.rows("candle")
    over = [row for row in rows if row["timeframe"] in ("1s", "1m", "1h")]
    assert all(row["held_by"] is None and row["revision"] == 0 for row in rows)
    assert all(row["final"] for row in over)
    inside = [
        row
        for row in over
        if row["timeframe"] == "1m"
        and begin <= from_datetime(row["open_time"])
        and from_datetime(row["open_time"]) + MINUTE <= end
    ]
    assert inside
    assert all(row["complete"] for row in inside)
    told = [c for item in await rig.published() if item.type != "update" for c in item.candles]
    assert len(told) == len({(candle.timeframe, candle.open_time) for candle in told}), (
        "each at most once"
    )
    revised = [status for status in await rig.statuses() if isinstance(status, Revised)]
    assert [(status.timeframe, status.reason) for status in revised] == [("1s", "import")]


async def test_a_job_without_an_end_is_over_after_a_minute_of_silence(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=50, begin=rig.clock.now() - DAY)
    await rig.start()
    await rig.publish(record(made, origin=Origin.BACKFILL, job="repair-1"))
    await rig.settled()
    assert await rig.pool.fetchval("SELECT bool_and(held_by = ARRAY['repair-1']) FROM candle")
    rig.clock.advance(59)
    await rig.publish(Heartbeat(writer="w", to_time=0))
    await rig.settled()
    assert (await rig.rows("job"))[0]["state"] == "open"
    rig.clock.advance(62)
    await rig.becomes("SELECT state = 'silent' FROM job")
    assert await rig.pool.fetchval("SELECT bool_and(held_by IS NULL) FROM candle")
    assert await rig.pool.fetchval("SELECT bool_and(final) FROM candle WHERE timeframe = '1h'")


async def test_a_restart_in_the_middle_of_a_job_changes_nothing(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=900, begin=rig.clock.now() - DAY)
    running = await rig.start(batch_max_records=1)
    await rig.publish(JobStarted(**NAME, job="j", origin=Origin.IMPORT))
    for start in range(0, len(made), 90):
        await rig.publish(record(made[start : start + 90], origin=Origin.IMPORT, job="j"))
        if start == 360:
            await rig.becomes("SELECT count(*) > 100 FROM trade")
            await running.kill()
            rig.forget(running)
            running = await rig.start(batch_max_records=1)
    await rig.publish(JobEnded(**NAME, job="j"))
    await rig.becomes("SELECT EXISTS (SELECT FROM job WHERE state = 'ended')")
    assert (await rig.rows("job"))[0]["trades"] == len(made)
    assert await rig.pool.fetchval("SELECT bool_and(held_by IS NULL AND revision = 0) FROM candle")
    assert await rig.pool.fetchval("SELECT bool_and(final) FROM candle WHERE timeframe = '1m'")


async def test_a_late_trade_revises_its_candles_in_the_step_that_stores_it(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=100)
    late = made.pop(50)
    await rig.start()
    await rig.publish(record(made))
    await rig.settled()
    rig.clock.advance(120)
    await rig.becomes("SELECT bool_and(final) FROM candle WHERE timeframe = '1m'")
    await rig.publish(record([late]))
    await rig.settled()
    minute = to_datetime(late.event_time - late.event_time % MINUTE)
    row = await rig.pool.fetchrow(
        "SELECT * FROM candle WHERE timeframe = '1m' AND open_time = $1", minute
    )
    assert row["revision"] == 1
    revisions = [item for item in await rig.published() if item.type == "revision"]
    assert {item.reason for item in revisions} == {"late_trade"}
    assert {c.trade_count for item in revisions for c in item.candles if c.timeframe == "1m"} == {
        row["trade_count"]
    }


async def test_a_rebuild_repairs_candles_that_somebody_spoilt(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=300, begin=rig.clock.now() - DAY)
    await rig.start()
    await rig.publish(record(made))
    await rig.settled()
    rig.clock.advance(120)
    await rig.becomes("SELECT bool_and(final) FROM candle WHERE timeframe = '1h'")
    good = await rig.rows("candle", "revision", "updated_at", "as_of")
    await rig.pool.execute(
        "UPDATE candle SET close = low, volume = volume + 1 WHERE timeframe IN ('1m', '1d')"
    )
    await rig.pool.execute("DELETE FROM candle WHERE timeframe = '5m'")
    await rig.publish(
        Rebuild(**NAME, from_time=made[0].event_time, to_time=made[-1].event_time + 1)
    )
    await rig.settled()
    assert await rig.rows("candle", "revision", "updated_at", "as_of") == good
    revised = [item for item in await rig.published() if item.type == "revision"]
    assert {item.reason for item in revised} == {"correction"}
    assert {candle.timeframe for item in revised for candle in item.candles} == {"1m", "1d"}


async def test_what_follows_a_rebuild_in_its_batch_is_read_without_loading_anew(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=300, begin=rig.clock.now() - DAY)
    again = Rebuild(**NAME, from_time=made[0].event_time, to_time=made[-1].event_time + 1)
    parts = [record(made[at : at + 60]) for at in range(0, 300, 60)]
    await rig.publish(*[each for part in parts for each in (part, again, again)])
    labels = {"outcome": "fence_lost"}
    before = REGISTRY.get_sample_value("vegamite_aggregator_steps_total", labels) or 0
    await rig.start()
    await rig.settled()
    assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)
    assert (
        await rig.pool.fetchval("SELECT sum(trade_count) FROM candle WHERE timeframe = '1m'") == 300
    )
    assert (REGISTRY.get_sample_value("vegamite_aggregator_steps_total", labels) or 0) == before


async def test_trades_of_long_ago_find_their_partitions_made(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    # 2019-12-31 23:50: over the end of a day, a month, a year and, for candles of a decade, a decade.
    begin = 1_577_836_200 * SECOND
    made = trades(count=800, begin=begin, step=3 * SECOND)
    await rig.start()
    await rig.publish(record(made[:500]), record(made[500:]))
    await rig.settled()
    assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)
    tables = {
        row["relname"]
        for row in await rig.pool.fetch(
            "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
        )
    }
    assert {
        "trade_20191231", "trade_20200101", "candle_1s_201912", "candle_1s_202001", "candle_1m_201912",
        "candle_1m_202001", "candle_1h_2019", "candle_1h_2020", "candle_1d_2010", "candle_1d_2020", "candle_1mo_2010",
    } <= tables  # fmt: skip
    month = await rig.pool.fetch(
        "SELECT open_time, trade_count FROM candle WHERE timeframe = '1M' ORDER BY 1"
    )
    assert sum(row["trade_count"] for row in month) == len(made)
    assert len(month) == 2


async def test_updates_are_at_most_one_a_market_timeframe_and_interval_and_the_newest(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    now = rig.clock.now()
    made = trades(count=200, begin=now - now % MINUTE, step=1000)
    rig.clock.advance(30)
    await rig.start(update_interval_ms=200, batch_max_records=1)
    for trade in made:
        await rig.publish(record([trade]))
    await rig.settled()

    async def last_state_is_out() -> bool:
        minutes = [
            c
            for item in await rig.published()
            if item.type == "update"
            for c in item.candles
            if c.timeframe == "1m"
        ]
        return bool(minutes) and minutes[-1].trade_count == len(made)

    await eventually(last_state_is_out)
    updates = [item for item in await rig.published() if item.type == "update"]
    assert len(updates) < 100, "200 trades came within a few intervals"
    for item in updates:
        assert len({candle.timeframe for candle in item.candles}) == len(item.candles)
        assert not any(candle.final for candle in item.candles)
