import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from vegamite_aggregator.core.changes import Changes, MarketChanges, OutboxRecord
from vegamite_aggregator.core.rows import StoredCandle
from vegamite_aggregator.ports import OutboxRow, StoreError
from vegamite_aggregator.service.condition import Cause, Conditions
from vegamite_aggregator.service.publisher import (
    BATCH_BYTES,
    OUTBOX_BYTES,
    OUTBOX_ROWS,
    Publisher,
    Updates,
)
from vegamite_common.bus.port import CANDLES, DEAD_LETTERS, STATUS, Ack, BusError, Record
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, SECOND
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import decode_candles
from vegamite_common.testing.eventually import eventually

DEMO = Market("sim", "DEMO/USD")
BEGIN = 1_760_097_600 * SECOND


def candle(
    timeframe: Timeframe = Timeframe.M1, number: int = 0, *, as_of: int = 1, final: bool = False
) -> Candle:
    opened = BEGIN + number * (timeframe.length or 0)
    one = Decimal(1)
    return Candle(
        timeframe, opened, one, one, one, one, one, one, Decimal(0), Decimal(0), 1,
        opened, 1, "1", opened, 1, "1", 1, as_of, opened, final,
    )  # fmt: skip


def streamed(*candles: Candle, market: Market = DEMO, outbox: int = 0) -> Changes:
    rows = [StoredCandle(c) for c in candles]
    return Changes(
        epoch=1,
        next_offset=1,
        last_append_time=None,
        changed=True,
        markets={market: MarketChanges(candles=rows, streamed=[c for c in candles if not c.final])},
        outbox=[OutboxRecord(CANDLES, b"k", b"v")] * outbox,
    )


class Store:
    """An outbox in memory."""

    def __init__(self, *rows: OutboxRow) -> None:
        self.rows = list(rows)
        self.down = False
        self.largest = 0

    async def waiting(
        self, partition: int, topic: str, *, limit: int, max_bytes: int
    ) -> Sequence[OutboxRow]:
        if self.down:
            raise StoreError("down")
        assert partition == 3
        taken: list[OutboxRow] = []
        size = 0
        for row in self.rows:
            if row.topic == topic and size < max_bytes and len(taken) < limit:
                taken.append(row)
                size += len(row.value)
        self.largest = max(self.largest, size)
        return taken

    async def age(self, partitions: Sequence[int]) -> float:
        return float(bool(self.rows))

    async def delete(self, row_ids: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.row_id not in set(row_ids)]


class Log:
    """A producer that keeps what it was given."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []
        self.batches = 0
        self.failing = 0
        self.refused: set[str] = set()
        self.silent: set[str] = set()
        self.most_batches: int | None = None

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Ack:
        if topic in self.silent:
            await asyncio.Event().wait()
        if topic in self.refused or self.batches == self.most_batches:
            raise BusError(f"{topic} refuses")
        if self.failing:
            self.failing -= 1
            raise BusError("no answer")
        assert partition == 3
        self.batches += 1
        self.records += [(topic, record) for record in records]
        return Ack(partition, 0, len(records), 0)


def publisher(
    store: Store, log: Log, *, interval: float = 0.01, conditions: Conditions | None = None
) -> Publisher:
    return Publisher(
        3, outbox=store, producer=log, interval=interval, conditions=conditions or Conditions()
    )


def rows(count: int, *, topic: str = CANDLES, size: int = 1) -> list[OutboxRow]:
    return [OutboxRow(n, topic, b"k", f"{n}".encode() * size) for n in range(1, count + 1)]


async def test_what_an_owner_before_left_goes_out_first_in_order_and_is_deleted() -> None:
    store, log = Store(*rows(2 * OUTBOX_ROWS + 5)), Log()
    await publisher(store, log).publish()
    assert [record[1] for _, record in log.records] == [
        row.value for row in rows(2 * OUTBOX_ROWS + 5)
    ]
    assert store.rows == []


async def test_each_row_goes_to_its_topic() -> None:
    store = Store(
        OutboxRow(1, CANDLES, b"k", b"a"),
        OutboxRow(2, STATUS, b"k", b"b"),
        OutboxRow(3, CANDLES, b"k", b"c"),
    )
    log = Log()
    await publisher(store, log).publish()
    assert log.records == [(CANDLES, (b"k", b"a")), (CANDLES, (b"k", b"c")), (STATUS, (b"k", b"b"))]


async def test_large_rows_go_out_in_several_batches() -> None:
    store, log = Store(*rows(4, size=200_000)), Log()
    await publisher(store, log).publish()
    assert log.batches == 2
    assert len(log.records) == 4


async def test_what_the_log_did_not_take_stays_and_is_tried_again() -> None:
    store, log = Store(*rows(3)), Log()
    log.failing = 1
    one = publisher(store, log)
    with pytest.raises(BusError):
        await one.publish()
    assert len(store.rows) == 3
    await one.publish()
    assert store.rows == []
    assert len(log.records) == 3


async def test_running_it_outlasts_faults_of_store_and_log() -> None:
    store, log = Store(*rows(3)), Log()
    store.down, log.failing = True, 2
    one = publisher(store, log)
    task = asyncio.create_task(one.run())
    await asyncio.sleep(0)
    store.down = False
    await eventually(lambda: not store.rows)
    store.rows = rows(2)
    one.committed(streamed(outbox=1))
    await eventually(lambda: not store.rows)
    one.committed(streamed(candle()))
    await eventually(lambda: len(log.records) == 6)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_an_update_is_the_newest_state_of_the_latest_candle_of_each_timeframe() -> None:
    store, log = Store(), Log()
    one = publisher(store, log)
    one.committed(streamed(candle(number=0, as_of=1), candle(Timeframe.H1, as_of=1)))
    one.committed(streamed(candle(number=1, as_of=2), candle(Timeframe.H1, as_of=2)))
    await one.publish()
    [(_, (key, value))] = log.records
    record = decode_candles(value)
    assert key == DEMO.key.encode()
    assert record.type == "update"
    assert {(c.timeframe, c.open_time, c.as_of) for c in record.candles} == {
        (Timeframe.M1, BEGIN + MINUTE, 2),
        (Timeframe.H1, BEGIN, 2),
    }


def test_older_candles_still_in_progress_follow_one_at_a_time() -> None:
    updates = Updates()
    updates.note(streamed(*[candle(number=n) for n in range(3)]))
    taken = [record.candles[0].open_time for _ in range(3) for record in updates.take()]
    assert taken == [BEGIN + 2 * MINUTE, BEGIN + MINUTE, BEGIN]
    assert not updates
    assert updates.take() == []


def test_what_became_final_needs_no_update() -> None:
    updates = Updates()
    updates.note(streamed(candle(number=0), candle(number=1)))
    updates.note(streamed(candle(number=0, final=True, as_of=2)))
    [record] = updates.take()
    assert [c.open_time for c in record.candles] == [BEGIN + MINUTE]
    assert not updates


def test_markets_do_not_share_a_record() -> None:
    updates = Updates()
    other = Market("kraken", "BTC/USD")
    updates.note(streamed(candle()))
    updates.note(streamed(candle(), market=other))
    assert {record.market for record in updates.take()} == {DEMO, other}


def test_states_that_wait_are_bounded_and_the_oldest_go_first() -> None:
    updates = Updates()
    updates.note(streamed(*[candle(Timeframe.S1, number=n) for n in range(1000)]))
    waiting = 0
    while updates:
        waiting += 1
        [record] = updates.take()
        assert record.candles[0].open_time >= BEGIN + 800 * SECOND
    assert waiting < 200


async def test_rows_that_nobody_told_of_go_out_after_a_look() -> None:
    store, log = Store(), Log()
    one = publisher(store, log)
    await one.publish()
    store.rows += rows(2)
    await one.publish()
    assert len(store.rows) == 2, "nobody looked"
    one.look()
    await one.publish()
    assert not store.rows


def letters_first(letters: int, candles: int) -> list[OutboxRow]:
    """Return letters, and candles that were committed after them."""
    later = [OutboxRow(n, CANDLES, b"k", b"%d" % n) for n in range(letters, letters + candles)]
    return [OutboxRow(n, DEAD_LETTERS, b"k", b"letter") for n in range(letters)] + later


async def test_a_topic_that_refuses_holds_up_its_own_rows_only() -> None:
    store, log = Store(*letters_first(2 * OUTBOX_ROWS, 3)), Log()
    log.refused = {DEAD_LETTERS}
    one = publisher(store, log)
    for _ in range(2):
        with pytest.raises(BusError, match=DEAD_LETTERS):
            await one.publish()
        assert [topic for topic, _ in log.records] == [CANDLES] * 3, "once, and all of them"
        assert [row.topic for row in store.rows] == [DEAD_LETTERS] * 2 * OUTBOX_ROWS
    log.refused.clear()
    await one.publish()
    assert not store.rows
    assert len(log.records) == 2 * OUTBOX_ROWS + 3


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_candles_go_out_at_once_while_another_topic_takes_nothing(fault: str) -> None:
    store, log, conditions = Store(*letters_first(3, 0)), Log(), Conditions()
    setattr(log, fault, {DEAD_LETTERS})
    one = publisher(store, log, conditions=conditions)
    task = asyncio.create_task(one.run())
    for number in range(1, 30):
        store.rows.append(OutboxRow(number + 10, CANDLES, b"k", b"v"))
        one.committed(streamed(candle(), outbox=1))
        await eventually(lambda: not any(row.topic == CANDLES for row in store.rows))
        assert conditions.counts()[Cause.PUBLISHING] == (fault == "refused"), "no less than told"
    if fault == "refused":
        log.refused.clear()
        await eventually(lambda: not store.rows)
        await eventually(lambda: conditions.counts()[Cause.PUBLISHING] == 0)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_what_the_log_has_is_not_published_again_for_what_it_has_not() -> None:
    store, log = Store(*rows(4, size=BATCH_BYTES // 2)), Log()
    log.most_batches = 1
    one = publisher(store, log)
    with pytest.raises(BusError):
        await one.publish()
    assert [row.row_id for row in store.rows] == [3, 4]
    log.most_batches = None
    await one.publish()
    assert [record[1][:1] for _, record in log.records] == [b"1", b"2", b"3", b"4"]


async def test_large_rows_are_read_a_few_at_once() -> None:
    store, log = Store(*rows(30, topic=DEAD_LETTERS, size=350_000)), Log()
    await publisher(store, log).publish()
    assert len(log.records) == 30
    assert not store.rows
    assert store.largest < OUTBOX_BYTES + 2 * 350_000


async def test_a_status_follows_the_candles_before_it_and_holds_up_none() -> None:
    store, log = Store(OutboxRow(1, STATUS, b"k", b"s"), OutboxRow(2, CANDLES, b"k", b"c")), Log()
    log.refused = {CANDLES}
    one = publisher(store, log)
    with pytest.raises(BusError):
        await one.publish()
    assert not log.records
    log.refused = {STATUS}
    with pytest.raises(BusError):
        await one.publish()
    assert [topic for topic, _ in log.records] == [CANDLES]
    log.refused.clear()
    await one.publish()
    assert [topic for topic, _ in log.records] == [CANDLES, STATUS]
