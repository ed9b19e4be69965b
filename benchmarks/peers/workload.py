"""The trades that every program of the comparison reads, and the topics that hold them.

The same seeded trades stand in two topics of one partition. `TRADES_TOPIC` has a record a trade, as a program that knows
nothing of us would write it; the record's timestamp is the event time, in milliseconds, which is what the peers go by
without further words. `BURSTS_TOPIC` has our wire format, a market's 50 trades of a second a record.
"""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord, encode_trades

TRADES_TOPIC = "peers.trades"
BURSTS_TOPIC = "peers.bursts"
MARKETS = tuple(Market("binance", f"COIN{number}/USDT") for number in range(20))
RATE = 50
"""Trades a market and second."""

A_SECOND = len(MARKETS) * RATE
START: Micros = 1_759_968_000 * SECOND
"""The event time of the first trade, a midnight: every window of every program begins there."""

_BATCH_BYTES = 1_000_000


def trades_of(seconds: int, *, start: Micros = START) -> Iterator[tuple[Market, list[Trade]]]:
    """Yield each second's trades, market by market, the same at every call."""
    rng = random.Random(20)
    prices = [_number(rng.randrange(1_000_000, 1_100_000), 2) for _ in range(5_000)]
    amounts = [_number(rng.randrange(1, 10**8), 6) for _ in range(5_000)]
    apart = SECOND // RATE
    for second in range(seconds):
        opened = start + second * SECOND
        first = 100_000_000 + second * RATE
        for market in MARKETS:
            some = zip(
                range(RATE),
                rng.choices(prices, k=RATE),
                rng.choices(amounts, k=RATE),
                rng.choices(("buy", "sell"), k=RATE),
                strict=True,
            )
            yield (
                market,
                [
                    Trade(
                        trade_id=str(first + at),
                        sequence=first + at,
                        event_time=opened + at * apart,
                        price=price,
                        amount=amount,
                        taker_side="buy" if side == "buy" else "sell",
                    )
                    for at, price, amount, side in some
                ],
            )


def burst(market: Market, trades: list[Trade]) -> bytes:
    """Return the record of our wire format that a collector would send for trades of one market."""
    return encode_trades(
        TradesRecord(
            exchange=market.exchange,
            symbol=market.symbol,
            received_time=trades[-1].event_time + SECOND // 10,
            origin=Origin.LIVE,
            trades=tuple(trades),
        )
    )


def lines(market: Market, trades: list[Trade]) -> list[bytes]:
    """Return one JSON document a trade, with its market."""
    key = market.key
    return [
        (
            f'{{"market":"{key}","trade_id":"{trade.trade_id}","sequence":{trade.sequence},'
            f'"event_time":{trade.event_time},"price":"{format_decimal(trade.price)}",'
            f'"amount":"{format_decimal(trade.amount)}","taker_side":"{trade.taker_side}"}}'
        ).encode()
        for trade in trades
    ]


def _number(digits: int, places: int) -> Decimal:
    return Decimal(format_decimal(Decimal(digits).scaleb(-places)))


async def fill(bootstrap: str, seconds: int) -> None:
    """Make both topics and write the trades of so many seconds into each."""
    await make_topics(bootstrap, TRADES_TOPIC, BURSTS_TOPIC)
    async with writing(bootstrap) as (to_trades, to_bursts):
        waiting: list[tuple[bytes, list[Trade], list[bytes]]] = []
        for market, trades in trades_of(seconds):
            key = market.key.encode()
            await to_bursts.add(key, burst(market, trades), trades[0].event_time // 1000)
            waiting.append((key, trades, lines(market, trades)))
            if len(waiting) < len(MARKETS):
                continue
            # One after the other in event time, as the markets' trades would come in.
            for at in range(RATE):
                for waiting_key, some, values in waiting:
                    await to_trades.add(waiting_key, values[at], some[at].event_time // 1000)
            waiting = []


class Writer:
    """Fills batches for partition 0 of one topic."""

    def __init__(self, producer: Any, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._batch = producer.create_batch()
        self._sent: list[Any] = []

    async def add(self, key: bytes | None, value: bytes, milliseconds: int) -> None:
        """Append one record with its timestamp."""
        if self._batch.append(key=key, value=value, timestamp=milliseconds) is None:
            await self.flush()
            self._batch.append(key=key, value=value, timestamp=milliseconds)

    async def flush(self) -> None:
        """Send the batch; at most a few are under way."""
        if self._batch.record_count() == 0:
            return
        self._batch.close()
        self._sent.append(await self._producer.send_batch(self._batch, self._topic, partition=0))
        self._batch = self._producer.create_batch()
        while len(self._sent) > 4:
            await self._sent.pop(0)

    async def finish(self) -> None:
        """Send what is left and wait until all is acknowledged."""
        await self.flush()
        for sent in self._sent:
            await sent


@asynccontextmanager
async def writing(bootstrap: str) -> AsyncIterator[tuple[Writer, Writer]]:
    """A writer of each topic; at the end of the block all they were given is in the log."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        compression_type="zstd",
    )
    await producer.start()
    try:
        writers = Writer(producer, TRADES_TOPIC), Writer(producer, BURSTS_TOPIC)
        yield writers
        for writer in writers:
            await writer.finish()
    finally:
        await producer.stop()


async def make_topics(bootstrap: str, *topics: str) -> None:
    """Make topics of one partition that keep records of any age."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, 1, 1, topic_configs={"retention.ms": "-1"}) for topic in topics]
        )
    finally:
        await admin.close()
