"""The whole aggregator over a real PostgreSQL: what is in the tables after the log was read."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord

DEMO = Market("sim", "DEMO/USD")
OTHER = Market("kraken", "BTC/USD")
ENSURE = "SELECT ensure_market($1, $2, 'spot', 'A', 'B', NULL)"
# Every interval that these trades are in and that divides half a day is over by noon.
ALL_PAST_IS_FINAL = """
    SELECT bool_and(final) FROM candle WHERE timeframe NOT IN ('8h', '1d', '3d', '1w', '1M')
"""
MAY_DIFFER = ("revision", "updated_at", "as_of")


def record(market: Market, trades: list[Trade], **more: Any) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=max([trade.event_time for trade in trades], default=0) + SECOND,
        origin=more.pop("origin", Origin.LIVE),
        trades=tuple(trades),
        **more,
    )


def in_records(market: Market, trades: list[Trade], random: Random) -> list[TradesRecord]:
    """Cut trades into records of random lengths."""
    records, rest = [], list(trades)
    while rest:
        length = random.choice((1, 2, 7, 30, 1000))
        records.append(record(market, rest[:length]))
        rest = rest[length:]
    return records


def all_received_at_once(records: list[TradesRecord]) -> list[TradesRecord]:
    """What arrived together says nothing of when; rows are compared whole, so let all arrive at once."""
    latest = max(item.received_time for item in records)
    return [TradesRecord(**{**_fields(item), "received_time": latest}) for item in records]


def _fields(item: TradesRecord) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__struct_fields__ if name != "v"}


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_batching_and_repetition_gives_the_same_rows(
    make_rig: Callable[..., Awaitable[Any]],
    trades: Callable[..., list[Trade]],
    assert_equal_fold: Callable[..., None],
    seed: int,
) -> None:
    random = Random(seed)
    made = {DEMO: trades(seed=1), OTHER: trades(seed=2)}
    plainly = [item for market, some in made.items() for item in in_records(market, some, random)]
    wildly = [
        item
        for market, some in made.items()
        for item in in_records(
            market, random.sample([*some, *random.choices(some, k=99)], len(some) + 99), random
        )
    ] + random.choices(plainly, k=5)
    random.shuffle(wildly)
    tables: list[Any] = []
    for records, resident_candles in ((plainly, 50_000), (wildly, random.choice((0, 30)))):
        rig = await make_rig()
        await rig.pool.execute(ENSURE, DEMO.exchange, DEMO.symbol)
        await rig.pool.execute(ENSURE, OTHER.exchange, OTHER.symbol)
        await rig.publish(*all_received_at_once(records))
        await rig.start(
            batch_max_records=random.choice((1, 3, 500)), resident_candles=resident_candles
        )
        await rig.settled()
        rig.clock.advance(3600)
        await rig.becomes(ALL_PAST_IS_FINAL)
        tables.append((await rig.rows("trade"), await rig.rows("candle", *MAY_DIFFER)))
        for market, some in made.items():
            key = await rig.pool.fetchval(ENSURE, market.exchange, market.symbol)
            rows = [row for row in await rig.rows("candle") if row["market_key"] == key]
            assert_equal_fold(rows, some)
    assert tables[0] == tables[1]
