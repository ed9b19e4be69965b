"""What reaches InfluxDB, by hand: a store that keeps points as InfluxDB does, by measurement, tags and time."""

import re
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.point import Point
from vegamite_aggregator.core.timing import Timing
from vegamite_aggregator.core.written import Series, Slots, Window
from vegamite_aggregator.ports import Rejected, SinkError
from vegamite_aggregator.service.sink_mapping import CandleMapping, Placed, TradeMapping
from vegamite_common.bus.partition import partition_for
from vegamite_common.bus.port import Message
from vegamite_common.domain.candle import Candle, StateOrder
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, MINUTE, SECOND, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.candles import CandlesRecord, ChangeType, encode_candles
from vegamite_common.messages.trades import Rebuild, TradesRecord, encode_trades
from vegamite_common.testing.manual_clock import ManualClock

NOON = parse_time("2026-01-15T12:00:00Z")
MARKETS = [Market("sim", "A/USD"), Market("sim", "B/USD")]
_LINE = re.compile(r"^(\w+),exchange=(\w+),symbol=([^,]+),(\w+)=(\w+) (.*) (\d+)$")


class HeldPoints:
    """A `PointStore` in memory."""

    def __init__(self) -> None:
        self.points: dict[tuple[str, str, str, str, int], str] = {}
        self.questions = 0
        self.broken = False

    async def prepare(self) -> None:
        """There is nothing to make."""

    def _asked(self) -> None:
        self.questions += 1
        if self.broken:
            raise SinkError("away", "broken by the test")

    async def newest_trades(self, markets: Sequence[Market], since: int) -> dict[Market, int]:
        self._asked()
        found: dict[Market, int] = {}
        for measurement, exchange, symbol, _, time in self.points:
            market = Market(exchange, symbol)
            if measurement == "trade" and market in markets and time // 1000 >= since:
                found[market] = max(found.get(market, 0), time // 1000)
        return found

    async def newest_candles(
        self, markets: Sequence[Market], since: int
    ) -> dict[Market, dict[Timeframe, int]]:
        self._asked()
        found: dict[Market, dict[Timeframe, int]] = {}
        for measurement, exchange, symbol, timeframe, time in self.points:
            market = Market(exchange, symbol)
            if measurement == "candle" and market in markets and time // 1000 >= since:
                times = found.setdefault(market, {})
                times[Timeframe(timeframe)] = max(times.get(Timeframe(timeframe), 0), time // 1000)
        return found

    async def trades(self, window: Window) -> dict[Series, dict[int, Slots]]:
        self._asked()
        found: dict[Series, dict[int, Slots]] = {}
        for (measurement, exchange, symbol, slot, time), fields in self.points.items():
            market = Market(exchange, symbol)
            inside = window.first <= time // 1000 <= window.last
            if measurement == "trade" and market in window.markets and inside:
                times = found.setdefault((market, None), {})
                trade_id = re.findall(r'trade_id="(.*?)"', fields)[0]
                times.setdefault(time // 1000, Slots())[trade_id] = int(slot)
        return found

    async def candles(self, window: Window) -> dict[Series, dict[int, StateOrder]]:
        self._asked()
        found: dict[Series, dict[int, StateOrder]] = {}
        for (measurement, exchange, symbol, timeframe, time), fields in self.points.items():
            market = Market(exchange, symbol)
            inside = window.first <= time // 1000 <= window.last
            if measurement == "candle" and market in window.markets and inside:
                if timeframe != window.timeframe:
                    continue
                told = dict(pair.split("=") for pair in fields.split(","))
                state = (
                    int(told["epoch"][:-1]),
                    int(told["as_of"][:-1]),
                    told["final"] == "true",
                    int(told["revision"][:-1]),
                )
                found.setdefault((market, Timeframe(timeframe)), {})[time // 1000] = state
        return found

    async def candle_times(
        self, market: Market, timeframe: Timeframe, *, from_time: int, to_time: int, limit: int
    ) -> Sequence[int]:
        raise AssertionError("placing asks for whole states")

    async def delete_candles(
        self, market: Market, timeframe: Timeframe, *, first: int, last: int
    ) -> bool:
        raise AssertionError("placing deletes nothing")

    async def write(self, points: Sequence[Point]) -> Sequence[Rejected]:
        for point in points:
            match = _LINE.match(point.line.decode())
            assert match is not None, point.line
            measurement, exchange, symbol, _, value, fields, time = match.groups()
            self.points[(measurement, exchange, symbol, value, int(time))] = fields
        return ()

    async def close(self) -> None:
        """There is nothing to end."""

    def trade_ids(self) -> list[str]:
        return sorted(
            f"{key[2]} {found}"
            for key, fields in self.points.items()
            for found in re.findall(r'trade_id="(.*?)"', fields)
        )


def trade_mapping(store: HeldPoints, **changes: object) -> TradeMapping:
    section = InfluxSection().model_copy(update=changes)
    return TradeMapping(store, section, clock=ManualClock(NOON), timing=Timing(), partitions=1)


def candle_mapping(store: HeldPoints, **changes: object) -> CandleMapping:
    section = InfluxSection().model_copy(update=changes)
    return CandleMapping(store, section, clock=ManualClock(NOON), partitions=1)


def a_trade(trade_id: str, *, at: int = NOON, price: str = "1.5") -> Trade:
    return Trade(
        trade_id=trade_id, sequence=0, event_time=at, price=Decimal(price), amount=Decimal(1)
    )


def messages(
    *records: TradesRecord | Rebuild | CandlesRecord, start: int = 0
) -> dict[int, list[Message]]:
    return {
        0: [
            Message(
                0,
                start + at,
                NOON,
                record.market.key.encode(),
                encode_candles(record)
                if isinstance(record, CandlesRecord)
                else encode_trades(record),
            )
            for at, record in enumerate(records)
        ]
    }


def trades_of(market: Market, *trades: Trade) -> TradesRecord:
    return TradesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        received_time=NOON + DAY,
        origin=Origin.LIVE,
        trades=trades,
    )


def candles_of(*candles: Candle, change: ChangeType = "final") -> CandlesRecord:
    return CandlesRecord(
        exchange="sim",
        symbol="A/USD",
        type=change,
        candles=candles,
        reason="late_trade" if change == "revision" else None,
    )


def a_candle(as_of: int, *, at: int = NOON, timeframe: Timeframe = Timeframe.M1) -> Candle:
    price = Decimal(1)
    return Candle(
        timeframe=timeframe, open_time=at, open=price, high=price, low=price, close=price,
        volume=price, quote_volume=price, buy_volume=price, buy_quote_volume=price, trade_count=1,
        first_event_time=at, first_sequence=1, first_trade_id="1", last_event_time=at,
        last_sequence=1, last_trade_id="1", epoch=0, as_of=as_of, updated_at=at, final=True,
    )  # fmt: skip


async def carry(
    mapping: TradeMapping | CandleMapping, store: HeldPoints, taken: dict[int, list[Message]]
) -> Placed:
    placed = await mapping.place(taken)
    await store.write(placed.placement.points)
    return placed


_ids = st.sampled_from([*map(str, range(998, 1004)), "5", "1005", "2005", "x", "yy", "é"])
_trades = st.tuples(st.sampled_from(MARKETS), _ids, st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(_trades, min_size=1, max_size=5), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=4),
    st.integers(1, 8),
)
async def test_whatever_is_delivered_again_after_whatever_start_each_trade_is_one_point(
    records: list[list[tuple[Market, str, int]]], starts: list[tuple[int, bool]], memory: int
) -> None:
    """`starts`: at this record, sinks begin anew, at the log's beginning or where the last one was."""
    store = HeldPoints()
    log = []
    for record in records:
        market = record[0][0]
        log.append(trades_of(market, *(a_trade(name, at=NOON + at) for _, name, at in record)))
    begin = 0
    for at, from_the_start in [*sorted(starts), (len(log), False)]:
        mapping = trade_mapping(store, memory_points=memory)
        for offset in range(0 if from_the_start else begin, min(at, len(log))):
            await carry(mapping, store, messages(log[offset], start=offset))
        begin = max(begin, min(at, len(log)) - 2, 0)
    wanted = {f"{record[0][0].symbol} {name} {at}" for record in records for _, name, at in record}
    assert len(store.points) == len(wanted)
    assert {
        f"{key[2]} {trade_id} {key[4] // 1000 - NOON}"
        for key, fields in store.points.items()
        for trade_id in re.findall(r'trade_id="(.*?)"', fields)
    } == wanted


async def test_in_steady_state_nothing_is_asked() -> None:
    store = HeldPoints()
    mapping = trade_mapping(store)
    await carry(mapping, store, messages(trades_of(MARKETS[0], a_trade("1", at=NOON + 1))))
    first = store.questions
    for number in range(2, 50):
        some = (
            a_trade(str(number), at=NOON + number),
            a_trade(str(number - 1), at=NOON + number - 1),
        )
        await carry(mapping, store, messages(trades_of(MARKETS[0], *some)))
    assert store.questions == first == 1
    assert len(store.points) == 49


async def test_the_first_of_two_that_contradict_stays() -> None:
    store = HeldPoints()
    await carry(trade_mapping(store), store, messages(trades_of(MARKETS[0], a_trade("1"))))
    again = messages(trades_of(MARKETS[0], a_trade("1", price="9")))
    placed = await carry(trade_mapping(store), store, again)
    assert placed.placement.held == 1
    assert "price=1.5," in next(iter(store.points.values()))


async def test_without_flux_nothing_is_asked_and_numbered_trades_stay_one_point_each() -> None:
    store = HeldPoints()
    log = [trades_of(MARKETS[0], *(a_trade(str(n)) for n in range(at, at + 10))) for at in (0, 10)]
    for _ in range(3):
        mapping = trade_mapping(store, read_back=False)
        for offset, record in enumerate(log):
            await carry(mapping, store, messages(record, start=offset))
    assert store.questions == 0
    assert len(store.points) == 20


async def test_a_question_without_an_answer_leaves_nothing_remembered() -> None:
    store = HeldPoints()
    await carry(trade_mapping(store), store, messages(trades_of(MARKETS[0], a_trade("1005"))))
    mapping = trade_mapping(store)
    record = messages(trades_of(MARKETS[0], a_trade("5"), a_trade("1005")))
    store.broken = True
    with pytest.raises(SinkError):
        await mapping.place(record)
    store.broken = False
    await carry(mapping, store, record)
    assert store.trade_ids() == ["A/USD 1005", "A/USD 5"]


async def test_what_the_aggregator_refuses_is_refused_here() -> None:
    store = HeldPoints()
    late = TradesRecord(
        exchange="sim", symbol="A/USD", received_time=NOON, origin=Origin.LIVE,
        trades=(a_trade("1", at=NOON + 6 * SECOND), a_trade("2")),
    )  # fmt: skip
    taken = messages(late, trades_of(MARKETS[1], a_trade("3")))
    wrong_key = Message(0, 2, NOON, b"sim:X/USD", taken[0][1].value)
    no_record = Message(0, 3, NOON, b"sim:A/USD", b"{")
    placed = await carry(trade_mapping(store), store, {0: [*taken[0], wrong_key, no_record]})
    assert [refused.reason for refused in placed.refused] == ["future", "key", "undecodable"]
    assert store.trade_ids() == ["A/USD 2", "B/USD 3"]


async def test_what_follows_rebuilds_among_the_records_is_taken_too() -> None:
    store = HeldPoints()
    asked = Rebuild(exchange="sim", symbol="A/USD", from_time=NOON, to_time=NOON + 1)
    log: list[TradesRecord | Rebuild] = [
        asked,
        trades_of(MARKETS[0], a_trade("1")),
        asked,
        asked,
        trades_of(MARKETS[1], a_trade("2")),
    ]
    await carry(trade_mapping(store), store, messages(*log, start=7))
    assert store.trade_ids() == ["A/USD 1", "B/USD 2"]


async def test_candle_records_that_cannot_be_are_refused_and_the_others_taken() -> None:
    store = HeldPoints()
    good = messages(candles_of(a_candle(1)))[0][0]
    wrong_key = Message(0, 1, NOON, b"sim:X/USD", good.value)
    no_record = Message(0, 2, NOON, good.key, b"[]")
    placed = await carry(candle_mapping(store), store, {0: [good, wrong_key, no_record]})
    assert [refused.reason for refused in placed.refused] == ["key", "undecodable"]
    assert len(store.points) == 1
    assert good.key is not None
    elsewhere = CandleMapping(store, InfluxSection(), clock=ManualClock(NOON), partitions=64)
    own = partition_for(good.key, 64)
    placed = await elsewhere.place({(own + 1) % 64: [good]})
    assert [refused.reason for refused in placed.refused] == ["partition"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.booleans()), max_size=25))
async def test_the_greatest_state_stays_however_often_sinks_begin_anew(
    states: list[tuple[int, int, bool]],
) -> None:
    store = HeldPoints()
    mapping = candle_mapping(store, memory_points=2)
    greatest: dict[int, int] = {}
    for as_of, minute, anew in states:
        if anew:
            mapping = candle_mapping(store, memory_points=2)
        at = NOON + minute * MINUTE
        greatest[at] = max(greatest.get(at, 0), as_of)
        await carry(mapping, store, messages(candles_of(a_candle(as_of, at=at))))
    assert {
        key[4] // 1000: int(re.findall(r"as_of=(\d+)i", fields)[0])
        for key, fields in store.points.items()
    } == greatest


async def test_candles_in_progress_are_written_where_that_is_wanted() -> None:
    record = messages(candles_of(a_candle(1), change="update"))
    for updates in (False, True):
        store = HeldPoints()
        await carry(candle_mapping(store, updates=updates), store, record)
        assert len(store.points) == updates


async def test_a_bucket_gets_what_it_keeps() -> None:
    store = HeldPoints()
    mapping = candle_mapping(store, retention_days=1, downsampled_retention_days=0)
    old = NOON - 10 * DAY
    old -= old % DAY
    placed = await carry(
        mapping,
        store,
        messages(candles_of(a_candle(1, at=old), a_candle(1, at=old, timeframe=Timeframe.D1))),
    )
    assert placed.placement.expired == 1
    assert [point.bucket for point in placed.placement.points] == ["downsampled"]
