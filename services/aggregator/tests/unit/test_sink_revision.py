"""Revised ranges on their way to InfluxDB, while others write the same candles."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
import structlog
from prometheus_client import REGISTRY

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.core.point import Point
from vegamite_aggregator.ports import CandlePage, Rejected, SinkError, StoreError
from vegamite_aggregator.service import sink_revision
from vegamite_aggregator.service.sink_revision import RevisionMapping, UnreadMapping
from vegamite_common.bus.port import Message
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import MINUTE, parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.status import Revised, SourceState, encode_status
from vegamite_common.testing.manual_clock import ManualClock

NOON = parse_time("2026-01-15T12:00:00Z")
MARKET = Market("sim", "A/USD")


def a_candle(minute: int, as_of: int, *, final: bool = True) -> Candle:
    price, at = Decimal(1), NOON + minute * MINUTE
    return Candle(
        timeframe=Timeframe.M1, open_time=at, open=price, high=price, low=price, close=price,
        volume=price, quote_volume=price, buy_volume=price, buy_quote_volume=price, trade_count=1,
        first_event_time=at, first_sequence=1, first_trade_id="1", last_event_time=at,
        last_sequence=1, last_trade_id="1", epoch=0, as_of=as_of, updated_at=at, final=final,
    )  # fmt: skip


class Primary:
    """A system of record whose candles change at chosen questions, or that is away for some."""

    def __init__(self, *candles: Candle) -> None:
        self.candles = {candle.open_time: candle for candle in candles}
        self.asked: list[int] = []
        self.changes: dict[int, Candle] = {}
        self.away: set[int] = set()
        self.expired = 0

    async def page(
        self, market: Market, timeframe: Timeframe, *, from_time: int, to_time: int, limit: int
    ) -> CandlePage:
        assert (market, timeframe) == (MARKET, Timeframe.M1)
        self.asked.append(from_time)
        change = self.changes.get(len(self.asked))
        if change is not None:
            self.candles[change.open_time] = change
        if len(self.asked) in self.away:
            raise StoreError("away")
        inside = [c for at, c in sorted(self.candles.items()) if from_time <= at < to_time]
        if len(inside) < limit:
            return CandlePage(tuple(inside), to_time)
        return CandlePage(tuple(inside[:limit]), inside[limit - 1].open_time + 1)

    async def expired_before(self, market: Market, timeframe: Timeframe) -> int:
        return self.expired


class Lines:
    """Takes points, and keeps the last line of each time, in minutes after noon."""

    def __init__(self, *minutes: int) -> None:
        self.count = 0
        self.there = set(minutes)
        self.deletions: list[tuple[int, int]] = []
        self.deletes = True
        self.last: dict[int, str] = {}

    async def write(self, points: Sequence[Point]) -> Sequence[Rejected]:
        for point in points:
            self.count += 1
            line = point.line.decode()
            as_of = line.split("as_of=")[1].split("i")[0]
            self.last[(int(line.split()[-1]) // 1000 - NOON) // MINUTE] = as_of
        return ()

    async def candle_times(
        self, market: Market, timeframe: Timeframe, *, from_time: int, to_time: int, limit: int
    ) -> list[int]:
        times = [NOON + minute * MINUTE for minute in sorted(self.there)]
        return [time for time in times if from_time <= time < to_time][:limit]

    async def delete_candles(
        self, market: Market, timeframe: Timeframe, *, first: int, last: int
    ) -> bool:
        begin, end = (first - NOON) // MINUTE, (last - NOON) // MINUTE
        self.deletions.append((begin, end))
        if self.deletes:
            self.there -= set(range(begin, end + 1))
        return self.deletes


def mapping_of(primary: Primary, lines: Lines, waited: list[int], **keys: bool) -> RevisionMapping:
    async def candles_written(partition: int) -> None:
        assert not lines.count
        waited.append(partition)

    return RevisionMapping(
        lines,  # type: ignore[arg-type]
        primary,
        InfluxSection(**keys),
        clock=ManualClock(NOON),
        partitions=1,
        candles_written=candles_written,
    )


def told(
    minutes: int, *, key: str = MARKET.key, reason: str = "backfill"
) -> dict[int, list[Message]]:
    revised = Revised(
        exchange=MARKET.exchange, symbol=MARKET.symbol, event_time=NOON, timeframe=Timeframe.M1,
        from_time=NOON, to_time=NOON + minutes * MINUTE, reason=reason,
    )  # fmt: skip
    return {0: [Message(0, 7, NOON, key.encode(), encode_status(revised))]}


async def test_what_became_newer_while_it_was_written_is_written_again() -> None:
    primary, lines, waited = Primary(*(a_candle(at, 10) for at in range(4))), Lines(), list[int]()
    primary.changes[2] = a_candle(1, 20)
    primary.candles[NOON + 3 * MINUTE] = a_candle(3, 10, final=False)
    await mapping_of(primary, lines, waited).place(told(4))
    assert waited == [0]
    assert lines.last == {0: "10", 1: "20", 2: "10"}
    assert lines.count == 4
    assert len(primary.asked) == 3


async def test_a_long_range_goes_on_at_the_page_where_the_database_went_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_revision, "PAGE_CANDLES", 2)
    primary, lines, waited = Primary(*(a_candle(at, 10) for at in range(5))), Lines(), list[int]()
    primary.away = {5}
    mapping = mapping_of(primary, lines, waited)
    with pytest.raises(SinkError) as caught:
        await mapping.place(told(5))
    assert caught.value.state == "unread"
    assert lines.last.keys() == {0, 1, 2, 3}
    await mapping.place(told(5))
    assert lines.count == 5
    assert waited == [0]
    assert primary.asked[5] > NOON + 3 * MINUTE


async def test_a_record_under_another_markets_key_is_refused() -> None:
    primary, lines = Primary(a_candle(0, 10)), Lines()
    placed = await mapping_of(primary, lines, []).place(told(1, key="sim:B/USD"))
    assert [refused.reason for refused in placed.refused] == ["key"]
    assert not primary.asked


async def test_a_correction_deletes_the_points_that_are_no_candles_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_revision, "PAGE_CANDLES", 3)
    primary, lines = Primary(*(a_candle(at, 10) for at in (0, 4, 8))), Lines(*range(9))
    await mapping_of(primary, lines, []).place(told(9, reason="backfill"))
    await mapping_of(primary, Lines(*range(9)), [], read_back=False).place(
        told(9, reason="correction")
    )
    assert lines.deletions == []
    lines.count = 0
    await mapping_of(primary, lines, []).place(told(9, reason="correction"))
    assert lines.there == {0, 4, 8}
    assert set(lines.last) == {0, 4, 8}


async def test_what_has_expired_in_the_system_of_record_stays_a_point() -> None:
    primary, lines = Primary(a_candle(4, 10)), Lines(*range(8))
    primary.expired = NOON + 2 * MINUTE
    await mapping_of(primary, lines, []).place(told(6, reason="correction"))
    assert lines.deletions == [(2, 3), (5, 5)]
    assert lines.there == {0, 1, 4, 6, 7}


async def test_a_server_that_deletes_nothing_holds_nothing_up_and_it_is_told() -> None:
    primary, lines = Primary(a_candle(1, 10)), Lines(0, 1)
    lines.deletes = False
    with structlog.testing.capture_logs() as logs:
        await mapping_of(primary, lines, []).place(told(2, reason="correction"))
    assert lines.last == {1: "10"}
    assert [line["first"] for line in logs] == ["2026-01-15T12:00:00Z"]


async def test_ranges_that_nobody_reads_are_counted_and_the_first_is_told() -> None:
    name = "vegamite_aggregator_sink_unread_ranges_total"
    before = REGISTRY.get_sample_value(name) or 0.0
    mapping = UnreadMapping(partitions=1)
    source = SourceState(
        exchange=MARKET.exchange, symbol=MARKET.symbol, event_time=NOON, state="live"
    )
    live = Message(0, 6, NOON, MARKET.key.encode(), encode_status(source))
    with structlog.testing.capture_logs() as logs:
        for taken in (told(2), {0: [live]}, told(3), told(4, key="sim:B/USD")):
            assert not (await mapping.place(taken)).placement.points
    assert REGISTRY.get_sample_value(name) == before + 2
    assert [(line["log_level"], line["market"], line["timeframe"]) for line in logs] == [
        ("warning", MARKET.key, "1m")
    ]
