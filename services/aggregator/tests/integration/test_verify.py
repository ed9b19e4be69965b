"""Stored candles against stored trades, both as a real PostgreSQL has them."""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from vegamite_aggregator.adapters.stored_series import PostgresStoredSeries
from vegamite_aggregator.core.verification import LONG, Difference, Scope
from vegamite_aggregator.service import verify
from vegamite_aggregator.service.verify import Compared, verify_market
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, SECOND, Micros, from_datetime, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.status import Revised
from vegamite_common.messages.trades import Rebuild, TradesRecord
from vegamite_common.testing.reference_fold import TIMEFRAME_NAMES

MARKET = Market("kraken", "BTC/USD")
TODAY = parse_time("2025-10-10")
NOON = parse_time("2025-10-10T12:00:00Z")


def records(trades: Sequence[Trade], **more: Any) -> list[TradesRecord]:
    return [
        TradesRecord(
            exchange=MARKET.exchange,
            symbol=MARKET.symbol,
            received_time=max(trade.event_time for trade in trades[at : at + 500]) + SECOND,
            origin=more.pop("origin", Origin.LIVE),
            trades=tuple(trades[at : at + 500]),
            **more,
        )
        for at in range(0, len(trades), 500)
    ]


async def compare(
    rig: Any, scope: Scope | None = None, compared: Compared | None = None
) -> list[Difference]:
    store = PostgresStoredSeries(rig.pool)
    if scope is None:
        extent = await store.extent(MARKET)
        assert extent is not None
        scope = Scope(from_time=extent[0], to_time=extent[1])
    told: list[Micros] = []
    found = [
        difference
        async for difference in verify_market(
            store, MARKET, scope, compared=compared or Compared(), reached=told.append
        )
    ]
    assert told == sorted(told)
    assert told[-1] == scope.to_time
    return found


@pytest.fixture
async def filled(
    make_rig: Callable[..., Awaitable[Any]], trades: Callable[..., list[Trade]]
) -> Any:
    """A rig with a market of nine days, some trades in each, covered for most of them, and a part still in progress."""
    rig = await make_rig()
    running = await rig.start()

    async def restart(statement: str = "SELECT 1", *arguments: Any) -> None:
        """Stop the aggregator, change something, start another."""
        await running.stop()
        rig.forget(running)
        await rig.pool.execute(statement, *arguments)
        await rig.start()

    rig.restart = restart
    days = [
        trade
        for day in range(9)
        for trade in trades(seed=day, count=120, begin=TODAY - day * DAY, step=200 * SECOND)
        if trade.event_time < NOON
    ]
    unique = [
        Trade(**{**_fields(trade), "trade_id": str(number), "sequence": number})
        for number, trade in enumerate(sorted(days, key=lambda trade: trade.event_time))
    ]
    covered = (TODAY - 8 * DAY, TODAY - DAY)
    await rig.publish(*records(unique[:-300]))
    await rig.publish(*records(unique[-300:-1], covered=covered), *records(unique[-1:]))
    await rig.settled()
    rig.unique = unique
    return rig


def _fields(trade: Trade) -> dict[str, Any]:
    return {name: getattr(trade, name) for name in trade.__struct_fields__}


async def test_what_the_aggregator_stored_is_equal_whatever_a_page_holds(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await filled.pool.fetchval("SELECT count(*) FROM candle")
    for rows in (1, 7, 20_000):
        monkeypatch.setattr(verify, "TRADE_ROWS", rows)
        monkeypatch.setattr(verify, "CANDLE_ROWS", max(rows, 3))
        compared = Compared()
        assert await compare(filled, compared=compared) == []
        assert compared.trades == len(filled.unique)
        assert compared.candles == stored


async def test_portions_that_are_snapshots_of_their_own_find_no_more_and_no_less(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "PORTION", 2 * DAY)
    compared = Compared()
    assert await compare(filled, compared=compared) == []
    assert compared.candles == await filled.pool.fetchval("SELECT count(*) FROM candle")
    await filled.pool.execute("UPDATE candle SET volume = volume + 1 WHERE timeframe = '1M'")
    assert {one.field for one in await compare(filled)} == {"volume"}
    assert len(await compare(filled)) == await filled.pool.fetchval(
        "SELECT count(*) FROM candle WHERE timeframe = '1M'"
    )


async def test_a_candle_changed_by_hand_is_found_and_nothing_else_is_accused(filled: Any) -> None:
    change = """
        UPDATE candle SET high = high {} 2, volume = volume {} 1e-30 WHERE (timeframe, open_time) = (
            SELECT timeframe, max(open_time) FROM candle WHERE timeframe = $1 GROUP BY 1)
        RETURNING extract(epoch FROM open_time)::bigint
    """
    for timeframe in TIMEFRAME_NAMES:
        opened = await filled.pool.fetchval(change.format("*", "+"), timeframe)
        high, volume = await compare(filled)
        assert (high.timeframe, high.open_time, high.field) == (timeframe, opened * SECOND, "high")
        assert high.stored is not None
        assert high.computed is not None
        assert Decimal(high.stored) == 2 * Decimal(high.computed)
        assert (volume.timeframe, volume.field) == (timeframe, "volume")
        assert volume.stored is not None
        assert volume.stored.endswith("000001")
        await filled.pool.fetchval(change.format("/", "-"), timeframe)
    assert await compare(filled) == []


async def test_missing_candles_and_candles_without_trades_are_told(filled: Any) -> None:
    await filled.pool.execute("DELETE FROM candle WHERE timeframe = '1m' AND open_time < now()")
    found = await compare(filled)
    assert {(one.timeframe, one.field, one.stored) for one in found} == {
        (Timeframe.M1, "candle", None)
    }
    assert len(found) == len({trade.event_time // (60 * SECOND) for trade in filled.unique})
    assert all(one.computed is not None and "trade" in one.computed for one in found)
    gone = filled.unique[600]
    begin = gone.event_time - gone.event_time % DAY
    scope = Scope(from_time=begin, to_time=begin + DAY, timeframes=frozenset({Timeframe.S1}))
    second = gone.event_time - gone.event_time % SECOND
    await filled.pool.execute("DELETE FROM trade WHERE trade_id <> $1", gone.trade_id)
    found = await compare(filled, scope)
    assert second not in {one.open_time for one in found if one.field == "candle"}
    assert {(one.timeframe, one.computed) for one in found if one.field == "candle"} == {
        (Timeframe.S1, None)
    }


async def test_a_market_whose_trades_are_all_gone_has_candles_without_trades_only(
    filled: Any,
) -> None:
    await filled.pool.execute("DELETE FROM trade")
    found = await compare(filled)
    assert {(one.field, one.computed) for one in found} == {("candle", None)}
    assert len(found) == await filled.pool.fetchval("SELECT count(*) FROM candle")


async def test_flags_are_held_against_coverage(filled: Any) -> None:
    inside = await filled.pool.fetchval(
        """
        UPDATE candle SET complete = false WHERE timeframe = '1d' AND open_time = to_timestamp($1)
        RETURNING extract(epoch FROM open_time)::bigint
        """,
        (TODAY - 3 * DAY) // SECOND,
    )
    outside = await filled.pool.fetchval(
        """
        UPDATE candle SET complete = true, final = true WHERE timeframe = '1d' AND open_time = to_timestamp($1)
        RETURNING extract(epoch FROM open_time)::bigint
        """,
        TODAY // SECOND,
    )
    found = await compare(filled)
    assert [(one.open_time, one.field, one.stored, one.computed) for one in found] == [
        (inside * SECOND, "complete", "false", "true"),
        (outside * SECOND, "complete", "true", "false"),
    ]


async def test_what_no_trades_can_give_is_told_with_the_reason(filled: Any) -> None:
    await filled.pool.execute(
        "UPDATE candle SET low = high + 1 WHERE timeframe = '1d' AND open_time = to_timestamp($1)",
        (TODAY - 3 * DAY) // SECOND,
    )
    await filled.pool.execute(
        "UPDATE candle SET volume = 'NaN' WHERE timeframe = '1h' AND open_time >= to_timestamp($1)",
        TODAY // SECOND,
    )
    await filled.pool.execute(
        "UPDATE trade SET price = -1 WHERE trade_id = $1", filled.unique[0].trade_id
    )
    found = await compare(filled)
    day = [one for one in found if one.open_time == TODAY - 3 * DAY and one.timeframe == "1d"]
    assert [one.field for one in day] == ["low", "limits"]
    assert "contradict" in str(day[1].stored)
    hours = [one for one in found if one.timeframe == "1h" and one.open_time >= TODAY]
    assert {one.field for one in hours} == {"volume", "limits"}
    assert {one.stored for one in hours if one.field == "volume"} == {"NaN"}
    impossible = [one for one in found if one.timeframe is None]
    assert [(one.field, one.open_time) for one in impossible] == [
        ("trade", filled.unique[0].event_time)
    ]
    assert "price must be above 0" in str(impossible[0].stored)


async def test_days_beside_the_asked_ones_count_for_longer_candles_as_they_are_stored(
    filled: Any,
) -> None:
    day = Scope(from_time=TODAY - 3 * DAY, to_time=TODAY - 2 * DAY)
    assert await compare(filled, day) == []
    await filled.pool.execute(
        "UPDATE candle SET quote_volume = quote_volume + 1 WHERE timeframe = '1d' AND open_time = to_timestamp($1)",
        (TODAY - 4 * DAY) // SECOND,
    )
    found = await compare(filled, day)
    # The week and the month don't equal their days any more; which of them is wrong only that day's trades can say.
    assert {one.timeframe for one in found} <= {Timeframe.D3, Timeframe.W1, Timeframe.MO1}
    assert Timeframe.MO1 in {one.timeframe for one in found}
    assert {one.field for one in found} == {"quote_volume"}


async def test_expired_trades_leave_the_shorter_candles_to_compare_with(filled: Any) -> None:
    horizon = NOON - 3 * DAY + 7 * SECOND  # in the middle of everything
    await filled.pool.execute(
        "DELETE FROM trade WHERE event_time < to_timestamp($1)", horizon // SECOND
    )
    seconds = TODAY - 5 * DAY
    await filled.pool.execute(
        "DELETE FROM candle WHERE timeframe = '1s' AND open_time < to_timestamp($1)",
        seconds // SECOND,
    )
    await filled.pool.executemany(
        """
        INSERT INTO horizon (market_key, series, horizon_time)
        SELECT market_key, $1, to_timestamp($2) FROM market WHERE symbol = 'BTC/USD'
        """,
        [("trade", horizon // SECOND), ("1s", seconds // SECOND)],
    )
    begin_of_all = TODAY - 8 * DAY
    assert await compare(filled) == []
    where = "timeframe = $1 AND open_time >= to_timestamp($2)"
    for timeframe, begin, accused in (
        ("1s", seconds, {"1m"}),  # a second is what a minute is compared with
        ("1m", begin_of_all, {"3m", "5m"}),
        ("5m", seconds, {"5m"}),
        ("12h", begin_of_all, {"12h"}),
        ("1M", begin_of_all, {"1M"}),
    ):
        change = "UPDATE candle SET buy_volume = buy_volume {} WHERE (timeframe, open_time) = (SELECT timeframe, min(open_time) FROM candle WHERE {} GROUP BY 1)"
        await filled.pool.execute(change.format("/ 2", where), timeframe, begin // SECOND)
        found = {one.timeframe and one.timeframe.value for one in await compare(filled)}
        await filled.pool.execute(change.format("* 2", where), timeframe, begin // SECOND)
        if found:  # a candle that nobody bought in has nothing to halve
            assert accused & found, timeframe


async def test_a_running_aggregator_is_in_nobodys_way(
    filled: Any, trades: Callable[..., list[Trade]]
) -> None:
    store = PostgresStoredSeries(filled.pool)
    scope = Scope(from_time=TODAY - 8 * DAY, to_time=TODAY + DAY)
    async with store.read(MARKET, scope) as before:
        late = [
            Trade(**{**_fields(trade), "trade_id": f"late-{trade.trade_id}"})
            for trade in trades(seed=99, count=50, begin=TODAY - 2 * DAY)
        ]
        await filled.publish(*records(late, origin=Origin.BACKFILL, job="repair"))
        await filled.settled()
        page = await before.trades(100_000)
        assert len(page.trades) == len(filled.unique)
    assert await compare(filled) == []


DAMAGE = {
    "a field": "UPDATE candle SET high = high * 2 WHERE timeframe IN ('1m', '1d', '1w')",
    "limits": "UPDATE candle SET low = high + 1 WHERE timeframe IN ('1s', '4h', '1d', '1M')",
    "no number": "UPDATE candle SET volume = 'NaN', quote_volume = 'Infinity' WHERE timeframe IN ('1h', '3d')",
    "missing": "DELETE FROM candle WHERE timeframe IN ('5m', '12h', '1M')",
    "no place": "UPDATE candle SET open_time = open_time + interval '1 s' WHERE timeframe IN ('3m', '1d')",
    "flags": "UPDATE candle SET complete = NOT complete, final = true WHERE timeframe IN ('15m', '1d')",
    "counts": "UPDATE candle SET trade_count = 0, revision = -1 WHERE timeframe IN ('30m', '8h')",
    "no trades": "UPDATE trade SET event_time = event_time - interval '2 s' WHERE trade_id LIKE '%7'",
}


async def test_a_rebuild_mends_whatever_verification_finds(filled: Any) -> None:
    rebuilt = Rebuild(
        exchange=MARKET.exchange,
        symbol=MARKET.symbol,
        from_time=TODAY - 9 * DAY,
        to_time=TODAY + DAY,
    )
    for name, statement in DAMAGE.items():
        await filled.pool.execute(statement)
        assert await compare(filled), name
        await filled.publish(rebuilt)
        await filled.settled()
        assert await compare(filled) == [], name
    reasons = {item.reason for item in await filled.published() if item.type == "revision"}
    assert "correction" in reasons
    ranges = {item.reason for item in await filled.statuses() if isinstance(item, Revised)}
    assert ranges == {"correction"}


async def test_a_rebuild_of_one_day_takes_the_days_beside_it_by_their_trades_where_they_are_broken(
    filled: Any,
) -> None:
    """The longer candles of the day would else be made of a broken one, and the rebuild would never end."""
    await filled.pool.execute(
        "UPDATE candle SET low = high + 1, trade_count = 7 WHERE timeframe IN ('1d', '3d', '1w', '1M')"
    )
    day = TODAY - 4 * DAY
    await filled.publish(
        Rebuild(exchange=MARKET.exchange, symbol=MARKET.symbol, from_time=day, to_time=day + HOUR)
    )
    await filled.settled()
    found = await compare(filled)
    days = {one.open_time for one in found if one.timeframe is Timeframe.D1}
    assert day not in days
    assert len(days) == 8
    wrong = {
        (one.timeframe, one.open_time)
        for one in found
        if one.timeframe in LONG and one.open_time <= day < one.timeframe.close_time(one.open_time)
    }
    assert wrong == set()


async def test_rows_that_no_trades_can_give_stop_nobody_and_are_right_once_a_trade_meets_them(
    filled: Any,
) -> None:
    """Each start of an aggregator would else meet the candle in progress, and each late trade the final one."""
    broken = "UPDATE candle SET low = high + 1, trade_count = 0 WHERE timeframe = ANY($1)"
    spoilt = ["1s", "5m", "1h", "1d", "1w", "1M"]
    await filled.pool.execute(broken, spoilt)
    latest, late = filled.unique[-1], filled.unique[200]
    met = [
        Trade(**{**_fields(latest), "trade_id": "now"}),
        Trade(**{**_fields(late), "trade_id": "late", "price": late.price + 1}),
    ]
    await filled.restart()
    await filled.publish(*records(met))
    await filled.settled()
    accused = {(one.timeframe, one.open_time) for one in await compare(filled)}
    touched = {
        (timeframe, timeframe.open_time(trade.event_time))
        for trade in met
        for timeframe in Timeframe
    }
    assert accused & touched == set()
    assert {timeframe for timeframe, _ in accused} <= set(map(Timeframe, spoilt))
    assert Timeframe.D1 in {timeframe for timeframe, _ in accused}


async def test_where_trades_have_expired_a_broken_candle_is_made_of_its_parts(filled: Any) -> None:
    day = TODAY - 4 * DAY
    await filled.restart(
        """
        INSERT INTO horizon (market_key, series, horizon_time)
        SELECT market_key, 'trade', to_timestamp($1) FROM market WHERE symbol = 'BTC/USD'
        """,
        (TODAY - 2 * DAY) // SECOND,
    )
    good = await filled.rows("candle", "revision", "updated_at", "as_of")
    await filled.pool.execute(
        "UPDATE candle SET volume = -1 WHERE timeframe = '1d' AND open_time = to_timestamp($1)",
        day // SECOND,
    )
    await filled.pool.execute("UPDATE candle SET high = high + 1 WHERE timeframe = '1M'")
    await filled.publish(
        Rebuild(
            exchange=MARKET.exchange,
            symbol=MARKET.symbol,
            from_time=TODAY - DAY,
            to_time=TODAY,
        )
    )
    await filled.settled()
    after = await filled.rows("candle", "revision", "updated_at", "as_of")
    # The month is right again; the day itself is none that was asked for.
    assert [row["open_time"] for row in after if row not in good] == [
        row["open_time"]
        for row in good
        if row["timeframe"] == "1d" and from_datetime(row["open_time"]) == day
    ]
