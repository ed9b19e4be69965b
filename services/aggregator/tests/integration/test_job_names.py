"""Jobs of several markets that have one name: each is a job of its own, whoever owns their partitions."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import pytest

from vegamite_aggregator.adapters.postgres_store import PostgresCandleStore
from vegamite_common.bus.partition import partition_for
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import JobEnded, JobStarted, TradesRecord

HELD = "SELECT count(*) FROM candle WHERE held_by IS NOT NULL"
NAME = "import-2024"


def in_partition(partition: int) -> Market:
    """Return a market of one of two partitions."""
    return next(
        market
        for number in range(100)
        if partition_for((market := Market("kraken", f"C{number}/USD")).key.encode(), 2)
        == partition
    )


def started(market: Market, trades: list[Trade]) -> list[Any]:
    """Return the records of a job up to its end."""
    about: dict[str, Any] = {"exchange": market.exchange, "symbol": market.symbol}
    return [
        JobStarted(**about, job=NAME, origin=Origin.IMPORT),
        TradesRecord(
            **about,
            received_time=trades[-1].event_time + SECOND,
            origin=Origin.IMPORT,
            job=NAME,
            trades=tuple(trades),
        ),
    ]


def ended(market: Market) -> JobEnded:
    return JobEnded(exchange=market.exchange, symbol=market.symbol, job=NAME)


async def jobs(rig: Any) -> dict[str, tuple[str, str, int]]:
    """Return market, state and number of trades of each job."""
    rows = await rig.pool.fetch(
        "SELECT job, exchange || ':' || symbol, job.state, trades FROM job JOIN market USING (market_key)"
    )
    return {name: tuple(rest) for name, *rest in rows}


class Late:
    """A store that finds no job when it is asked for the first time: it will be there a moment later."""

    def __init__(self, store: PostgresCandleStore) -> None:
        self._store = store
        self.missed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def job_owners(self, names: Iterable[str]) -> Mapping[str, str]:
        if self.missed:
            return await self._store.job_owners(names)
        self.missed = True
        return {}


@pytest.mark.parametrize("late", [False, True])
async def test_a_name_that_an_ended_job_of_another_market_had_stops_nothing(
    make_rig: Callable[..., Awaitable[Any]], trades: Callable[..., list[Trade]], late: bool
) -> None:
    rig = await make_rig(partitions=2)
    one, other = in_partition(0), in_partition(1)
    running = await rig.start()
    made = trades(count=50)
    await rig.publish(*started(one, made), ended(one))
    await rig.settled()
    await rig.becomes("SELECT state = 'ended' FROM job")
    rig.forget(running)
    await running.stop()
    # The next process has met nothing of the first market, which is quiet, but its job's row.
    await rig.start(around=Late if late else lambda store: store)
    await rig.publish(*started(other, made), ended(other))
    await rig.settled()
    await rig.becomes("SELECT count(*) = 2 AND bool_and(state = 'ended') FROM job")
    assert await jobs(rig) == {
        NAME: (one.key, "ended", 50),
        f"{NAME} {other.key}": (other.key, "ended", 50),
    }
    assert await rig.pool.fetchval(HELD) == 0


async def test_an_open_job_keeps_its_row_and_its_end_releases_its_candles(
    make_rig: Callable[..., Awaitable[Any]], trades: Callable[..., list[Trade]]
) -> None:
    rig = await make_rig(partitions=2)
    one, other = in_partition(0), in_partition(1)
    running = await rig.start(batch_max_records=1)
    made = trades(count=50)
    await rig.publish(*started(one, made))
    await rig.settled()
    await rig.publish(*started(other, made))
    await rig.settled()
    assert await jobs(rig) == {
        NAME: (one.key, "open", 50),
        f"{NAME} {other.key}": (other.key, "open", 50),
    }
    rig.forget(running)
    await running.stop()
    await rig.start()
    await rig.publish(ended(other), ended(one))
    await rig.settled()
    await rig.becomes("SELECT bool_and(state = 'ended') FROM job")
    assert await rig.pool.fetchval(HELD) == 0
    counts = await rig.pool.fetch("SELECT count(*) FROM trade GROUP BY market_key")
    assert [row["count"] for row in counts] == [50, 50]
