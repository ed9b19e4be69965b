"""Seeded trades and coverage, as collectors write them: several writers, with all that happens on the way.

Trades come shuffled, twice, for time already covered, and with another content under an id that is known; writers die
without a word or close in order, and jobs repair what they missed or import the past. Whatever is not acknowledged is sent
again, in order, until it is.
"""

import asyncio
import json
import random
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import TRADES, BusError, Producer, Record
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import parse_decimal
from vegamite_common.domain.time import MINUTE, SECOND, Micros
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import (
    Heartbeat,
    JobEnded,
    JobStarted,
    SpanClosed,
    SpanOpened,
    TradesRecord,
    TradesTopicRecord,
    encode_trades,
)
from vegamite_common.runtime.clock import Clock

TICK_SECONDS = 0.1
SETTLING_SECONDS = 0.2
PARTITIONS = 4
MARKETS_A_PARTITION = (2, 2, 1, 1)
RECORD_TRADES = 400
POISON = 0.01
"""How probable a record that can't be taken is, a market and tick."""

RELAID = 0.1
"""How probable a record is whose JSON has another layout than ours."""

FUTURE_SECONDS = 5.0
"""Real seconds; a trade that is further ahead of the time at which it was received can't be."""


def choose_markets() -> list[Market]:
    """Return markets such that every partition has some."""
    wanted = list(MARKETS_A_PARTITION)
    chosen = []
    for number in range(1000):
        market = Market("kraken", f"C{number:03}/USD")
        partition = partition_for(market.key.encode(), PARTITIONS)
        if wanted[partition] > 0:
            wanted[partition] -= 1
            chosen.append(market)
        if not any(wanted):
            break
    return chosen


@dataclass
class Feed:
    """One market's trades: what was generated, what is held back, and what nobody was there to send."""

    market: Market
    rng: random.Random
    cursor: Micros
    next_id: int = 1
    price: int = 1_000_000
    held: list[Trade] = field(default_factory=list)
    missed: list[Trade] = field(default_factory=list)
    missed_from: Micros | None = None
    sent: list[Trade] = field(default_factory=list)
    history: Micros = 0

    def trade(self, event_time: Micros) -> Trade:
        """Return the next trade, at this instant."""
        rng = self.rng
        self.price = max(1000, self.price + rng.randint(-900, 900))
        trade = Trade(
            trade_id=str(self.next_id),
            sequence=self.next_id,
            event_time=event_time // 1000 * 1000,
            price=exact(self.price, rng.choice((2, 4, 4, 7))),
            amount=exact(rng.randint(1, 10**9), rng.choice((3, 8, 8, 12))),
            taker_side=rng.choice(("buy", "sell", None)),
        )
        self.next_id += 1
        return trade

    def advance(self, until: Micros, count: int) -> list[Trade]:
        """Return `count` trades of [cursor, until), oldest first; the cursor is `until` then."""
        times = sorted(self.rng.randrange(self.cursor, until) for _ in range(count))
        self.cursor = until
        return [self.trade(max(time, 0)) for time in times]

    def miss(self, until: Micros, count: int) -> None:
        """Let trades happen that nobody collects; what was held back is lost with them."""
        if self.missed_from is None:
            self.missed_from = self.safe_to
        self.missed += [*self.held, *self.advance(until, count)]
        self.held = []

    @property
    def safe_to(self) -> Micros:
        """Up to where every trade was sent."""
        return min([self.cursor, *(trade.event_time for trade in self.held)])


@dataclass
class Writer:
    """One writer of a partition, with a span for each of its markets."""

    name: str
    feeds: list[Feed]


def exact(units: int, places: int) -> Decimal:
    """Return units of 10**-places as the canonical decimal."""
    return parse_decimal(f"{units // 10**places}.{units % 10**places:0{places}}")


class Load:
    """Produces while it is told to; `acknowledged` has by market the (milliseconds, id) of trades that brokers have confirmed."""

    def __init__(self, *, rng: random.Random, clock: Clock, producer: Producer) -> None:
        self._rng = rng
        self._layouts = random.Random(0)
        self._clock = clock
        self._producer = producer
        self._queues: list[asyncio.Queue[tuple[list[Record], list[TradesTopicRecord]]]] = [
            asyncio.Queue() for _ in range(PARTITIONS)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        now = clock.now()
        self.feeds: list[list[Feed]] = [[] for _ in range(PARTITIONS)]
        for market in choose_markets():
            partition = partition_for(market.key.encode(), PARTITIONS)
            feed = Feed(market, random.Random(rng.random()), now, history=now - 300 * MINUTE)
            self.feeds[partition].append(feed)
        self._writers: list[list[Writer]] = [[] for _ in range(PARTITIONS)]
        self.unacknowledged = 0
        self.acknowledged: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self.open_jobs: list[tuple[int, Feed, str]] = []

    def start(self) -> None:
        """Begin to send what is queued."""
        self._tasks = [
            asyncio.create_task(self._send(partition), name=f"load-{partition}")
            for partition in range(PARTITIONS)
        ]

    async def close(self) -> None:
        """Send no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, seconds: float) -> None:
        """Produce for so long, and return once all of it is acknowledged."""
        for partition in range(PARTITIONS):
            self._change_writers(partition)
        ticks = max(1, round(seconds / TICK_SECONDS))
        jobs = {self._rng.randrange(ticks) for _ in range(2)}
        for tick in range(ticks):
            for partition in range(PARTITIONS):
                self._tick(partition)
            if tick in jobs:
                self._import()
            await asyncio.sleep(TICK_SECONDS)  # the pace of the load
        for partition in range(PARTITIONS):
            self._tick(partition, last=True)
        await self.drained()

    def send(self, partition: int, feed: Feed, trades: Sequence[Trade], *, origin: Origin) -> None:
        """Send these trades now, with no claim."""
        self._put(partition, self._records(feed, trades, origin=origin))

    def end_jobs(self) -> None:
        """End every job that is still open."""
        for partition, feed, job in self.open_jobs:
            self._put(partition, [self._ended(feed, job)])
        self.open_jobs.clear()

    async def drained(self) -> None:
        """Return once everything is acknowledged; raise what ended the sending."""
        waiting = asyncio.ensure_future(self._all_joined())
        await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                waiting.cancel()
                task.result()

    async def _all_joined(self) -> None:
        for queue in self._queues:
            await queue.join()

    # --- one tick ---------------------------------------------------------------------------------

    def _tick(self, partition: int, *, last: bool = False) -> None:
        rng = self._rng
        until = self._clock.now() - self._clock.span(SETTLING_SECONDS)
        records: list[TradesTopicRecord] = []
        for feed in self.feeds[partition]:
            if until > feed.cursor:
                count = rng.choice((0, 1, 2, 5, 12)) if rng.random() < 0.985 else 350
                if any(feed in writer.feeds for writer in self._writers[partition]):
                    self._collect(partition, feed, feed.advance(until, count), records, last=last)
                else:
                    feed.miss(until, count)
                if rng.random() < POISON:
                    self._put(partition, records)
                    records = []
                    self._poison(partition, feed)
        for writer in self._writers[partition]:
            reached = min(feed.safe_to for feed in writer.feeds)
            if last or rng.random() < 0.4:
                records.append(Heartbeat(writer=writer.name, to_time=reached))
        self._put(partition, records)

    def _collect(
        self,
        partition: int,
        feed: Feed,
        trades: list[Trade],
        records: list[TradesTopicRecord],
        *,
        last: bool,
    ) -> None:
        rng = self._rng
        writers = [writer for writer in self._writers[partition] if feed in writer.feeds]
        ready = [*feed.held, *trades]
        feed.held = []
        if not last and rng.random() < 0.3:
            feed.held = [trade for trade in ready if rng.random() < 0.2]
            ready = [trade for trade in ready if trade not in feed.held]
        if rng.random() < 0.3:
            rng.shuffle(ready)
        if rng.random() < 0.06:
            ready.append(feed.trade(feed.cursor - rng.randrange(1, 45) * MINUTE))
        for _ in writers:
            records += self._records(feed, ready)
        if feed.sent and rng.random() < 0.15:
            records += self._records(feed, self._repeats(feed))
        feed.sent = [*feed.sent, *ready][-600:]

    def _repeats(self, feed: Feed) -> list[Trade]:
        """Trades again that were sent before; now and then one that says something else."""
        rng = self._rng
        again = rng.sample(feed.sent, min(len(feed.sent), rng.choice((3, 30, 300))))
        if rng.random() < 0.2:
            first = again[0]
            again[0] = Trade(
                first.trade_id, first.sequence, first.event_time, Decimal(7), first.amount
            )
        return again

    def _poison(self, partition: int, feed: Feed) -> None:
        """Send what can't be taken: no record at all, one under another market's key, or a trade of the future."""
        key = feed.market.key.encode()
        match self._rng.randrange(3):
            case 0:
                value = self._rng.choice([b"", b"{", b'{"v": 99}', b"\xff" * 2_000])
                self._queues[partition].put_nowait(([(key, value)], []))
            case 1:
                other = Feed(Market("kraken", "NONE/USD"), self._rng, feed.cursor)
                record = self._records(other, [other.trade(feed.cursor)])[0]
                self._queues[partition].put_nowait(([(key, encode_trades(record))], []))
            case _:
                now = self._clock.now()
                ahead = feed.trade(now + self._clock.span(3 * FUTURE_SECONDS))
                self._put(partition, self._records(feed, [feed.trade(feed.cursor), ahead]))

    # --- writers ----------------------------------------------------------------------------------

    def _change_writers(self, partition: int) -> None:
        rng = self._rng
        feeds = self.feeds[partition]
        writers = self._writers[partition]
        records: list[TradesTopicRecord] = []
        for writer in writers:
            records += self._repeated(writer)
        if writers and rng.random() < 0.35:
            gone = writers.pop(rng.randrange(len(writers)))
            if rng.random() < 0.5:
                records += [self._closed(gone, feed) for feed in gone.feeds]
            if not writers and rng.random() < 0.5:
                self._put(partition, records)
                return  # nobody collects in this round
        if not writers or (len(writers) == 1 and rng.random() < 0.25):
            chosen = feeds if not writers else [rng.choice(feeds)]
            writers.append(self._opened(list(chosen), records))
        uncollected = [feed for feed in feeds if not any(feed in one.feeds for one in writers)]
        if uncollected:
            writers.append(self._opened(uncollected, records))
        self._put(partition, records)
        for feed in feeds:
            if feed.missed_from is not None and any(feed in one.feeds for one in writers):
                self._repair(partition, feed)

    def _repeated(self, writer: Writer) -> list[TradesTopicRecord]:
        """What a writer says now and then of its spans: it opens those that a refused record has ended."""
        return [self._span(writer, feed) for feed in writer.feeds]

    def _span(self, writer: Writer, feed: Feed) -> SpanOpened:
        return SpanOpened(
            exchange=feed.market.exchange,
            symbol=feed.market.symbol,
            writer=writer.name,
            from_time=feed.safe_to,
        )

    def _opened(self, feeds: list[Feed], records: list[TradesTopicRecord]) -> Writer:
        writer = Writer(str(uuid.UUID(int=self._rng.getrandbits(128))), feeds)
        now = self._clock.now() - self._clock.span(SETTLING_SECONDS)
        living = [one for row in self._writers for one in row]
        for feed in feeds:
            if not any(feed in one.feeds for one in living):
                feed.miss(max(now, feed.cursor + SECOND), self._rng.choice((0, 5, 40)))
            records.append(self._span(writer, feed))
        return writer

    def _closed(self, writer: Writer, feed: Feed) -> SpanClosed:
        return SpanClosed(
            exchange=feed.market.exchange,
            symbol=feed.market.symbol,
            writer=writer.name,
            to_time=feed.safe_to,
            cause="socket_closed",
        )

    # --- jobs -------------------------------------------------------------------------------------

    def _repair(self, partition: int, feed: Feed) -> None:
        """Bring what was missed, with the claim that this is all."""
        assert feed.missed_from is not None
        end = feed.safe_to
        self._job(partition, feed, "repair", Origin.BACKFILL, feed.missed, (feed.missed_from, end))
        feed.missed, feed.missed_from = [], None

    def _import(self) -> None:
        """Import some of the past, part of which may be there already."""
        rng = self._rng
        partition = rng.randrange(PARTITIONS)
        feed = rng.choice(self.feeds[partition])
        count = rng.choice((20, 200, 700))
        start = feed.history
        trades = [
            feed.trade(start + second * SECOND + rng.randrange(SECOND)) for second in range(count)
        ]
        feed.history = start + rng.choice((count // 2, count)) * SECOND
        known = rng.sample(feed.sent, min(len(feed.sent), 20))
        covered = (start, start + count * SECOND) if rng.random() < 0.7 else None
        self._job(partition, feed, "import", Origin.IMPORT, [*trades, *known], covered)

    def _job(
        self,
        partition: int,
        feed: Feed,
        kind: str,
        origin: Origin,
        trades: Sequence[Trade],
        covered: tuple[Micros, Micros] | None,
    ) -> None:
        job = f"{kind}-{self._rng.getrandbits(48):012x}"
        exchange, symbol = feed.market.exchange, feed.market.symbol
        records: list[TradesTopicRecord] = [
            JobStarted(exchange=exchange, symbol=symbol, job=job, origin=origin)
        ]
        records += self._records(feed, trades, origin=origin, job=job)
        if covered is not None:
            records.append(
                TradesRecord(
                    exchange=exchange,
                    symbol=symbol,
                    received_time=self._clock.now(),
                    origin=origin,
                    job=job,
                    covered=covered,
                    trades=(),
                )
            )
        if self._rng.random() < 0.8:
            records.append(self._ended(feed, job))
        else:
            self.open_jobs.append((partition, feed, job))
        self._put(partition, records)

    def _ended(self, feed: Feed, job: str) -> JobEnded:
        return JobEnded(exchange=feed.market.exchange, symbol=feed.market.symbol, job=job)

    def _records(
        self,
        feed: Feed,
        trades: Sequence[Trade],
        *,
        origin: Origin = Origin.LIVE,
        job: str | None = None,
    ) -> list[TradesTopicRecord]:
        return [
            TradesRecord(
                exchange=feed.market.exchange,
                symbol=feed.market.symbol,
                received_time=self._clock.now(),
                origin=origin,
                job=job,
                trades=tuple(trades[at : at + RECORD_TRADES]),
            )
            for at in range(0, len(trades), RECORD_TRADES)
        ]

    # --- sending ----------------------------------------------------------------------------------

    def _put(self, partition: int, records: Sequence[TradesTopicRecord]) -> None:
        if not records:
            return
        encoded: list[Record] = []
        for record in records:
            key = None if isinstance(record, Heartbeat) else record.market.key.encode()
            value = encode_trades(record)
            if self._layouts.random() < RELAID:
                value = json.dumps(json.loads(value)).encode()
            encoded.append((key, value))
        self._queues[partition].put_nowait((encoded, list(records)))

    async def _send(self, partition: int) -> None:
        queue = self._queues[partition]
        while True:
            encoded, records = await queue.get()
            while True:
                try:
                    await self._producer.publish(TRADES, partition, encoded)
                    break
                except BusError:
                    # Maybe it was appended: then this is one more repetition.
                    self.unacknowledged += 1
                    await asyncio.sleep(TICK_SECONDS)  # the pace of the load
            for record in records:
                if isinstance(record, TradesRecord):
                    self._note(record)
            queue.task_done()

    def _note(self, record: TradesRecord) -> None:
        latest = record.received_time + self._clock.span(FUTURE_SECONDS)
        self.acknowledged[record.market.key].update(
            (trade.event_time // 1000, int(trade.trade_id))
            for trade in record.trades
            if trade.event_time <= latest
        )
