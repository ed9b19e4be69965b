"""Crashes between any two steps, cut connections, two writers at once: the tables end as if nothing had happened."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import pytest

from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_aggregator.core.changes import Changes
from vegamite_aggregator.core.demand import Loaded, Wants
from vegamite_aggregator.core.facts import TradeBatch
from vegamite_aggregator.core.state import PartitionState
from vegamite_aggregator.migrate import migrate_database
from vegamite_aggregator.ports import FenceLostError, Inserted, Step, StoreError
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, from_datetime
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import Heartbeat, SpanOpened, TradesRecord
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.services.postgres import PostgresServer

DEMO = Market("sim", "DEMO/USD")
# Every interval that these trades are in and that divides half a day is over by noon.
ALL_PAST_IS_FINAL = """
    SELECT bool_and(final) FROM candle WHERE timeframe NOT IN ('8h', '1d', '3d', '1w', '1M')
"""
MAY_DIFFER = ("revision", "updated_at", "as_of")


def records_of(trades: Sequence[Trade], *, size: int = 7) -> list[Any]:
    """Live trades with a heartbeat after each record, covering all but the last second."""
    records: list[Any] = [
        SpanOpened(
            exchange=DEMO.exchange,
            symbol=DEMO.symbol,
            writer="w",
            from_time=trades[0].event_time - SECOND,
        )
    ]
    for start in range(0, len(trades), size):
        part = trades[start : start + size]
        records.append(
            TradesRecord(
                exchange=DEMO.exchange,
                symbol=DEMO.symbol,
                received_time=trades[-1].event_time + SECOND,
                origin=Origin.LIVE,
                trades=tuple(part),
            )
        )
        records.append(
            Heartbeat(writer="w", to_time=part[-1].event_time - part[-1].event_time % SECOND)
        )
    return records


class Faulty:
    """A store that fails the first time, and then each `every`th time, that a step comes to one point."""

    def __init__(self, store: PostgresCandleStore, point: str, every: int) -> None:
        self._store = store
        self._point = point
        self._every = every
        self._passed = 0
        self.failures = 0

    def pass_by(self, point: str) -> None:
        if point == self._point:
            self._passed += 1
            if (self._passed - 1) % self._every == 0:
                self.failures += 1
                raise StoreError(f"a fault for the test, {point}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def step(self, state: PartitionState) -> AsyncIterator[Step]:
        async with self._store.step(state) as step:
            self.pass_by("after the fence was locked")
            yield FaultyStep(self, step)
            self.pass_by("before the commit")
        self.pass_by("after the commit, its answer lost")


class FaultyStep:
    def __init__(self, faulty: Faulty, step: Step) -> None:
        self._faulty = faulty
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    async def insert_trades(self, batches: Sequence[TradeBatch]) -> Inserted:
        inserted = await self._step.insert_trades(batches)
        self._faulty.pass_by("after trades were inserted")
        return inserted

    async def load(self, wants: Wants) -> Loaded:
        loaded = await self._step.load(wants)
        self._faulty.pass_by("after candles were loaded")
        return loaded

    async def write(self, changes: Changes) -> None:
        await self._step.write(changes)
        self._faulty.pass_by("after all was written")


async def assert_all_published(rig: Any) -> None:
    """Whoever keeps the greatest state of each candle ends with what is stored, for all that is final."""
    greatest: dict[Any, Candle] = {}
    for record in await rig.published():
        for candle in record.candles:
            key = (candle.timeframe.value, candle.open_time)
            if key not in greatest or candle.state_order > greatest[key].state_order:
                greatest[key] = candle
    stored = {
        (row["timeframe"], from_datetime(row["open_time"])): (
            row["as_of"],
            row["revision"],
            row["close"],
            row["trade_count"],
        )
        for row in await rig.rows("candle")
        if row["final"]
    }
    told = {
        key: (candle.as_of, candle.revision, candle.close, candle.trade_count)
        for key, candle in greatest.items()
        if candle.final
    }
    assert stored
    assert told == stored


@pytest.mark.parametrize(
    "point",
    [
        "after the fence was locked",
        "after trades were inserted",
        "after candles were loaded",
        "after all was written",
        "before the commit",
        "after the commit, its answer lost",
    ],
)
async def test_a_failure_at_any_point_of_a_step_leaves_no_trace(
    make_rig: Callable[..., Any], trades: Callable[..., list[Trade]], point: str
) -> None:
    made = trades(count=900)
    tables = []
    for faulty in (False, True):
        rig = await make_rig()
        faults: list[Faulty] = []

        def around(
            store: PostgresCandleStore, faulty: bool = faulty, faults: list[Faulty] = faults
        ) -> Any:
            if not faulty:
                return store
            faults.append(Faulty(store, point, every=3))
            return faults[0]

        late = made[5:300:40]  # their candles are out of memory by then
        await rig.publish(*records_of([trade for trade in made if trade not in late]))
        await rig.publish(*records_of(late, size=1))
        await rig.start(around=around, batch_max_records=25)
        await rig.settled()
        rig.clock.advance(120)
        await rig.becomes(ALL_PAST_IS_FINAL)
        await rig.settled()
        if faulty:
            assert faults[0].failures > 0, "the fault never came"
        tables.append(
            (
                await rig.rows("trade"),
                await rig.rows("candle", *MAY_DIFFER),
                await rig.rows("coverage_span"),
            )
        )
        await assert_all_published(rig)
    assert tables[0] == tables[1]


@pytest.mark.parametrize("seed", range(3))
async def test_connections_cut_and_processes_killed_at_random_change_nothing(
    make_rig: Callable[..., Any], trades: Callable[..., list[Trade]], seed: int
) -> None:
    made = trades(count=1500)
    records = records_of(made)
    tables = []
    for quiet in (True, False):
        random = Random(seed)
        rig = await make_rig()
        running = await rig.start(batch_max_records=5)
        for record in records:
            await rig.publish(record)
            if quiet or random.random() > 0.06:
                continue
            moment = random.random() * 0.02
            await asyncio.sleep(moment)  # the fault strikes anywhere in a step
            if random.random() < 0.5:
                await rig.pool.execute(CUT)
            else:
                await running.kill()
                rig.forget(running)
                running = await rig.start(batch_max_records=5)
        await rig.settled()
        rig.clock.advance(120)
        await rig.becomes(ALL_PAST_IS_FINAL)
        await rig.settled()
        tables.append(
            (
                await rig.rows("trade"),
                await rig.rows("candle", *MAY_DIFFER),
                await rig.rows("coverage_span"),
            )
        )
        await assert_all_published(rig)
    assert tables[0] == tables[1]


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'aggregator'"


async def store_of(rig: Any, owner: str) -> PostgresCandleStore:
    store = PostgresCandleStore(rig.pool, owner=owner)
    await store.open_log(partitions=1, new_epoch=False)
    return store


def nothing_new(state: PartitionState) -> Changes:
    return Changes(
        epoch=state.epoch, next_offset=state.next_offset + 1, last_append_time=None, changed=True
    )


async def test_a_writer_whose_version_is_old_is_refused_and_writes_nothing(rig: Any) -> None:
    old, new = await store_of(rig, "old"), await store_of(rig, "new")
    states = [await store.load(0, begin_offset=0) for store in (old, new)]
    async with new.step(states[1]) as step:
        await step.write(nothing_new(states[1]))
    with pytest.raises(FenceLostError):
        async with old.step(states[0]) as step:
            await step.write(nothing_new(states[0]))
    fence = (await rig.rows("partition_fence"))[0]
    assert (fence["version"], fence["next_offset"], fence["owner"]) == (1, 1, "new")


async def test_a_step_that_writes_nothing_commits_nothing(rig: Any) -> None:
    store = await store_of(rig, "only")
    state = await store.load(0, begin_offset=5)
    async with store.step(state):
        pass
    fence = (await rig.rows("partition_fence"))[0]
    assert (fence["version"], fence["next_offset"]) == (0, 5)


async def take_from(
    stopped: PostgresCandleStore, owner: PostgresCandleStore, state: PartitionState
) -> None:
    """Let one owner stop inside a transaction, and the next do its own step meanwhile."""
    async with stopped.step(state) as stuck:
        await stuck.write(nothing_new(state))
        same = await owner.load(state.partition, begin_offset=0)
        async with owner.step(same) as step:  # waits two seconds for the lock, then takes it
            await step.write(nothing_new(same))


async def test_an_owner_that_was_stopped_inside_a_transaction_is_thrown_out_of_it(rig: Any) -> None:
    stopped, owner = await store_of(rig, "stopped"), await store_of(rig, "owner")
    state = await stopped.load(0, begin_offset=0)
    with pytest.raises(StoreError):
        await take_from(stopped, owner, state)
    fence = (await rig.rows("partition_fence"))[0]
    assert (fence["version"], fence["owner"]) == (1, "owner")


async def test_only_the_holder_of_the_fence_is_thrown_out(rig: Any) -> None:
    """A backend that holds another partition's fence has done nothing to us."""
    stopped, owner = await store_of(rig, "stopped"), await store_of(rig, "owner")
    states = [await stopped.load(at, begin_offset=0) for at in (0, 1)]
    async with stopped.step(states[1]) as bystander:
        with pytest.raises(StoreError):
            await take_from(stopped, owner, states[0])
        await bystander.write(nothing_new(states[1]))
    assert [row["version"] for row in await rig.rows("partition_fence")] == [1, 1]


async def test_a_cancelled_step_leaves_the_fence_free(rig: Any) -> None:
    store = await store_of(rig, "only")
    state = await store.load(0, begin_offset=0)
    entered = asyncio.Event()

    async def hang() -> None:
        async with store.step(state):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})
    async with store.step(state) as step:
        await step.write(nothing_new(state))
    assert (await rig.rows("partition_fence"))[0]["version"] == 1


async def test_two_aggregators_that_both_believe_to_own_a_partition_lose_nothing(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=600)
    records = records_of(made)
    reader = await rig.bus.reader("market.trades.v1")
    del reader
    await rig.start(batch_max_records=3)
    # The group of the second has another name, so that the bus gives it the same partition at the same time.
    await rig.start(batch_max_records=3, group="another")
    for record in records:
        await rig.publish(record)
    await rig.settled()
    assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)
    counted = await rig.pool.fetchval("SELECT sum(trade_count) FROM candle WHERE timeframe = '1s'")
    assert counted == len(made)


async def test_nothing_of_a_step_that_failed_is_published(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    faults: list[Faulty] = []

    def around(store: PostgresCandleStore) -> Any:
        faults.append(Faulty(store, "before the commit", every=1))
        return faults[0]

    await rig.publish(*records_of(trades(count=50)))
    await rig.start(around=around)
    await eventually(lambda: faults[0].failures > 2)
    assert await rig.published() == []
    assert await rig.rows("candle") == []
    assert await rig.rows("trade") == []


async def test_what_an_owner_left_in_the_outbox_is_published_by_the_next_first(
    rig: Any, trades: Callable[..., list[Trade]]
) -> None:
    first = await rig.start()
    await rig.publish(*records_of(trades(count=50)))
    await rig.settled()
    await first.stop()
    rig.forget(first)
    await rig.pool.execute(
        "INSERT INTO outbox (partition, topic, key, value) SELECT 0, 'market.candles.v1', 'k', convert_to(n::text, 'UTF8')"
        " FROM generate_series(1, 450) n"
    )
    await rig.new_log()
    await rig.start()
    await rig.becomes("SELECT NOT EXISTS (SELECT FROM outbox)")
    values = [message.value for message in await rig.messages("market.candles.v1")]
    assert values == [str(n).encode() for n in range(1, 451)]


async def test_a_database_that_is_killed_and_started_again_is_waited_for(
    open_rig: Callable[..., Any], trades: Callable[..., list[Trade]]
) -> None:
    made = trades(count=200)
    records = records_of(made)
    with PostgresServer() as server:
        await migrate_database(server.url)
        async with open_rig(server.url) as rig:
            running = await rig.start()
            await rig.publish(*records[:20])
            await rig.settled()
            server.kill()
            await rig.publish(*records[20:])
            await asyncio.to_thread(server.start)
            await rig.settled()
            running.raise_if_crashed()
            assert await rig.pool.fetchval("SELECT count(*) FROM trade") == len(made)
            await assert_all_published(rig)


async def test_asyncpg_pool_is_left_clean(rig: Any, trades: Callable[..., list[Trade]]) -> None:
    running = await rig.start()
    await rig.publish(*records_of(trades(count=50)))
    await rig.settled()
    async with running.pool.acquire() as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SHOW lock_timeout") == "0"
    assert isinstance(running.pool, asyncpg.Pool)
