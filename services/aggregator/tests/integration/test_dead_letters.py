"""The limit of dead letters: the partition stops before the first record beyond it, and loses nothing by waiting."""

from collections.abc import Callable
from typing import Any

from vegamite_aggregator.adapters.outbox_table import PostgresOutbox
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import CANDLES, DEAD_LETTERS, STATUS, TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.dead_letters import decode_dead_letter
from vegamite_common.messages.trades import TradesRecord
from vegamite_common.testing.eventually import eventually

PARTITIONS = 2


def market_of(partition: int) -> Market:
    markets = (Market("sim", f"M{number}/USD") for number in range(100))
    return next(m for m in markets if partition_for(m.key.encode(), PARTITIONS) == partition)


def record(market: Market, trades: list[Trade]) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=trades[-1].event_time + SECOND,
        origin=Origin.LIVE,
        trades=tuple(trades),
    )


async def letters(rig: Any, partition: int) -> list[int]:
    """The offsets of the partition's letters that are published, in order."""
    told = [decode_dead_letter(message.value) for message in await rig.messages(DEAD_LETTERS)]
    return [letter.offset for letter in told if letter.partition == partition]


async def offset(rig: Any, partition: int) -> Any:
    return await rig.pool.fetchval(
        "SELECT next_offset FROM partition_fence WHERE partition = $1", partition
    )


async def feed(rig: Any, partition: int, trades: list[Trade]) -> None:
    """Each trade by itself, and garbage after each."""
    market = market_of(partition)
    for trade in trades:
        await rig.publish(record(market, [trade]))
        await rig.bus.producer().publish(TRADES, partition, [(market.key.encode(), b"garbage")])


async def trade_counts(rig: Any) -> dict[str, int]:
    rows = await rig.pool.fetch(
        "SELECT symbol, count(*) FROM trade JOIN market USING (market_key) GROUP BY symbol"
    )
    return {row["symbol"]: row["count"] for row in rows}


async def becomes_ready(running: Any, *, saying: str = "") -> None:
    def told() -> None:
        state = running.service.health.ready()
        assert state.ok == (not saying), state
        assert saying in state.reason, state

    await eventually(told)


async def test_a_partition_stops_at_the_limit_whoever_owns_it_and_goes_on_when_it_is_raised(
    make_rig: Callable[..., Any], trades: Callable[..., list[Trade]]
) -> None:
    rig = await make_rig(partitions=PARTITIONS)
    made, others = trades(count=10), trades(count=40, seed=2)
    await feed(rig, 0, made)
    running = await rig.start(dead_letter_limit=4)
    # Four letters, at the offsets 1, 3, 5, 7; the fifth would be 9.
    await becomes_ready(running, saying="record 9 would be one more than the 4")
    assert await offset(rig, 0) == 9
    await rig.publish(record(market_of(1), others))
    await rig.becomes("SELECT next_offset = 1 FROM partition_fence WHERE partition = 1")
    assert await trade_counts(rig) == {market_of(0).symbol: 5, market_of(1).symbol: 40}

    # A restart, or another owner, has no letters of its own.
    await running.kill()
    rig.forget(running)
    running = await rig.start(dead_letter_limit=4)
    await becomes_ready(running, saying="record 9")
    rows = await rig.pool.fetch(
        "SELECT set_apart, next_offset FROM partition_fence ORDER BY partition"
    )
    assert [tuple(row) for row in rows] == [(4, 9), (0, 1)]
    await rig.becomes("SELECT NOT EXISTS (SELECT FROM outbox)")
    assert await letters(rig, 0) == [1, 3, 5, 7]
    await running.stop()
    rig.forget(running)

    running = await rig.start(dead_letter_limit=10)
    await rig.settled()
    await becomes_ready(running)
    assert await letters(rig, 0) == list(range(1, 20, 2))
    assert await trade_counts(rig) == {market_of(0).symbol: 10, market_of(1).symbol: 40}


async def test_a_stopped_partition_goes_on_when_the_hour_is_over(
    rig: Any,
    trades: Callable[..., list[Trade]],
    assert_equal_fold: Callable[..., None],
) -> None:
    made = trades(count=5)
    market = Market("sim", "DEMO/USD")
    running = await rig.start(dead_letter_limit=2)
    for trade in made:
        await rig.publish(record(market, [trade]))
        await rig.bus.producer().publish(TRADES, 0, [(None, b"garbage")])
    for stopped in (5, 9):
        await becomes_ready(running, saying=f"record {stopped} would be one more than the 2")
        assert await offset(rig, 0) == stopped
        rig.clock.advance(3600)
    await rig.settled()
    await becomes_ready(running)
    assert await letters(rig, 0) == [1, 3, 5, 7, 9]
    assert_equal_fold(await rig.rows("candle"), made)


async def test_a_limit_of_nothing_lets_nothing_pass(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    market = Market("sim", "DEMO/USD")
    await rig.publish(record(market, trades(count=5)))
    await rig.bus.producer().publish(TRADES, 0, [(market.key.encode(), b"garbage")])
    running = await rig.start(dead_letter_limit=0)
    await becomes_ready(running, saying="record 1 would be one more than the 0")
    assert await offset(rig, 0) == 1
    assert await rig.messages(DEAD_LETTERS) == []
    assert await rig.rows("outbox") == []


async def test_letters_that_wait_go_along_into_a_log_of_another_size(
    make_rig: Callable[..., Any], trades: Callable[..., list[Trade]]
) -> None:
    rig = await make_rig(partitions=PARTITIONS)
    running = await rig.start()
    for partition in range(PARTITIONS):
        await rig.publish(record(market_of(partition), trades(count=3)))
    await rig.settled()
    await running.stop()
    rig.forget(running)
    await rig.pool.execute(
        "INSERT INTO outbox (partition, topic, key, value) VALUES (1, $1, NULL, 'one'), (0, $1, NULL, 'two')",
        DEAD_LETTERS,
    )
    await rig.new_log(partitions=1)
    await rig.start(new_log_epoch=True)
    await rig.becomes("SELECT NOT EXISTS (SELECT FROM outbox)")
    assert sorted(message.value for message in await rig.messages(DEAD_LETTERS)) == [b"one", b"two"]


async def test_the_outbox_is_as_old_as_the_oldest_record_of_our_partitions(rig: Any) -> None:
    outbox = PostgresOutbox(rig.pool)
    assert await outbox.age([0, 1, 2]) == 0
    await rig.pool.execute(
        "INSERT INTO outbox (partition, topic, value, created_time) SELECT partition, topic, '', now() - seconds * interval '1 s'"
        " FROM unnest(ARRAY[0, 0, 1, 2], ARRAY[50, 30, 100, 1000], $1::text[]) AS given (partition, seconds, topic)",
        [STATUS, DEAD_LETTERS, CANDLES, DEAD_LETTERS],
    )
    for partitions, age in (([0], 50), ([0, 1], 100), ([1], 100), ([3], 0), ([], 0)):
        assert age <= await outbox.age(partitions) < age + (30 if age else 1), partitions


async def test_the_outbox_gives_a_topics_oldest_rows_and_no_more_bytes_than_asked(rig: Any) -> None:
    outbox = PostgresOutbox(rig.pool)
    await rig.pool.execute(
        "INSERT INTO outbox (partition, topic, value) SELECT n % 2, topic, convert_to(rpad(n || ' ', 1000), 'UTF8')"
        " FROM generate_series(1, 40) n, unnest($1::text[]) topic ORDER BY n",
        [CANDLES, DEAD_LETTERS],
    )

    async def numbers(partition: int, topic: str, limit: int, max_bytes: int) -> list[int]:
        rows = await outbox.waiting(partition, topic, limit=limit, max_bytes=max_bytes)
        assert {row.topic for row in rows} == {topic}
        return [int(row.value) for row in rows]

    for topic in (CANDLES, DEAD_LETTERS):
        assert await numbers(0, topic, 100, 10**6) == list(range(2, 41, 2))
        assert await numbers(1, topic, 4, 10**6) == [1, 3, 5, 7]
        assert await numbers(1, topic, 100, 3000) == [1, 3, 5]
        assert await numbers(1, topic, 100, 3001) == [1, 3, 5, 7]
        assert await numbers(1, topic, 100, 1) == [1], "a large one goes alone"
