"""Clients that come and go while trades stream, on two replicas with little memory: none of them ever misses one."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord
from vegamite_common.testing.eventually import eventually

BTC = Market("kraken", "BTC/USD")
NOON = 1_760_097_600 * SECOND
CLIENTS = 8


class Client:
    """Follows one market's trades over several connections, each resumed where the one before ended."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ids: list[str] = []
        self.last: str | None = None
        self._from_snapshot = False
        self.broken: list[tuple[str | None, str | None]] = []

    async def follow(self, world: Any, replicas: list[Any], last_id: str) -> None:
        while last_id not in self.ids:
            replica = self.random.choice(replicas)
            async with world.stream(replica) as stream:
                ack = await stream.ask(
                    "subscribe", channel="trades", markets=[BTC.key], **self._from()
                )
                assert ack["success"], ack
                for message in stream.messages:
                    self._take(message)
                stay = self.random.randrange(1, 40)
                while stay and last_id not in self.ids:
                    message = await stream.receive()
                    self._take(message)
                    stay -= message.get("channel") == "trades"

    def _from(self) -> dict[str, Any]:
        return {"snapshot": 1000} if self.last is None else {"resume": {BTC.key: self.last}}

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("channel") != "trades":
            return
        previous = message.get("prev_seq")
        # The snapshot's own place is no trade's: the first message after it names an older one.
        chained = message["type"] == "update" and previous is not None and not self._from_snapshot
        if chained and self.last != previous:
            self.broken.append((self.last, previous))
        self._from_snapshot = message["type"] == "snapshot"
        self.last = message["seq"]
        self.ids += [row["trade_id"] for row in message["data"]]


@pytest.mark.parametrize("seed", [1, 2])
async def test_nobody_misses_a_trade(
    make_world: Any,
    make_trades: Callable[..., list[Trade]],
    trades_record: Callable[..., TradesRecord],
    seed: int,
) -> None:
    random = Random(seed)
    world = await make_world()
    world.bus._retained_bytes = 10**9
    await world.market()
    await world.aggregate()
    replicas = []
    for _ in range(2):
        await world.serve(memory_bytes=1_048_576)
        await world.ready()
        replicas.append(world.service)
    trades = make_trades(seed=seed, count=900, begin=NOON - 3_000 * SECOND)
    # What fills the memory, so that clients have to be served from the log itself.
    other = [trades_record(Market("kraken", "ETH/USD"), trades) for _ in range(3)]

    async def feed() -> None:
        for at in range(0, len(trades), 3):
            await world.publish(trades_record(BTC, trades[at : at + 3]))
            if random.random() < 0.1:
                await world.publish(*other)
            await asyncio.sleep(0.002)  # the feed's own pace, waited for by nobody

    clients = [Client(Random(seed * 100 + number)) for number in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        await eventually(lambda: world.pool.fetchval("SELECT count(*) > 50 FROM trade"))
        for client in clients:
            group.create_task(client.follow(world, replicas, trades[-1].trade_id))
    expected = {trade.trade_id for trade in trades}
    for client in clients:
        assert client.broken == []
        assert set(client.ids) == expected
