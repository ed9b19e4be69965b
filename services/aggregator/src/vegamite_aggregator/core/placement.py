"""From records to the points that are still to be written: what is new is placed, what InfluxDB has already is left out."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from vegamite_aggregator.core.facts import LogRecord, Quarantined, TradeBatch
from vegamite_aggregator.core.packed_trades import event_times
from vegamite_aggregator.core.point import (
    BucketRole,
    Point,
    can_be_written,
    candle_point,
    market_tags,
    plain_id,
    trade_point,
)
from vegamite_aggregator.core.written import Series, Slots, Written
from vegamite_common.domain.candle import Candle, StateOrder
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import decode_candles
from vegamite_common.messages.codec import MessageError


class MarketCandles(msgspec.Struct, frozen=True):
    """States of one market's candles, of one record or several."""

    market: Market
    candles: tuple[Candle, ...]


class CandleIntake(msgspec.Struct, frozen=True):
    """Records of `market.candles.v1`, read: the states in log order, and the records that were refused."""

    states: tuple[MarketCandles, ...]
    quarantined: tuple[Quarantined, ...]


class Placement(msgspec.Struct, frozen=True):
    """What is to be written, and what became of the rest.

    `held`: InfluxDB has it already, or something newer. `expired`: older than its bucket keeps. `impossible`: of no point
    that line protocol can say.
    """

    points: tuple[Point, ...]
    held: int = 0
    expired: int = 0
    impossible: int = 0


def read_candles(
    records: Iterable[LogRecord],
    *,
    partition: int,
    partition_of: Callable[[bytes], int],
    updates: bool,
) -> CandleIntake:
    """Return what the records say; states in progress only with `updates`. Never raises for what is in them."""
    states: list[MarketCandles] = []
    refused: list[Quarantined] = []
    for record in records:
        try:
            decoded = decode_candles(record.value)
        except MessageError as error:
            refused.append(Quarantined(record.offset, None, "undecodable", str(error)[:500]))
            continue
        market = decoded.market
        key = market.key.encode()
        if record.key != key:
            detail = f"a record of {market.key} under the key {record.key!r}"[:500]
            refused.append(Quarantined(record.offset, market, "key", detail))
        elif partition_of(key) != partition:
            detail = f"{market.key} belongs to another partition"
            refused.append(Quarantined(record.offset, market, "partition", detail))
        elif updates or decoded.type != "update":
            states.append(MarketCandles(market, decoded.candles))
    return CandleIntake(tuple(states), tuple(refused))


def times_of_trades(batches: Sequence[TradeBatch]) -> dict[Series, set[Micros]]:
    """Return the times that have to be known before these trades are placed."""
    times: dict[Series, set[Micros]] = {}
    for batch in batches:
        times.setdefault((batch.market, None), set()).update(event_times(batch.trades))
    return times


def place_trades(
    written: Written[Slots], batches: Sequence[TradeBatch], *, oldest: Micros | None
) -> Placement:
    """Give each trade that isn't there yet its slot, and remember it; `oldest` is the first instant that is kept."""
    points: list[Point] = []
    held = expired = impossible = 0
    for batch in batches:
        market = batch.market
        tags = market_tags(market)
        series: Series = (market, None)
        for trade in batch.trades:
            time = trade.event_time
            if not can_be_written(market, time):
                impossible += 1
                continue
            if oldest is not None and time < oldest:
                expired += 1
                continue
            slots = written.get(series, time)
            if slots is None:
                slots = Slots()
                written.put(series, time, slots)
            trade_id = plain_id(trade.trade_id)
            if trade_id in slots:
                held += 1
                continue
            slot = slots.take(trade_id)
            points.append(
                trade_point(
                    tags, trade, slot=slot, received_time=batch.received_time, origin=batch.origin
                )
            )
    return Placement(tuple(points), held, expired, impossible)


def times_of_candles(states: Sequence[MarketCandles]) -> dict[Series, set[Micros]]:
    """Return the open times that have to be known before these states are placed."""
    times: dict[Series, set[Micros]] = {}
    for part in states:
        for candle in part.candles:
            times.setdefault((part.market, candle.timeframe), set()).add(candle.open_time)
    return times


def place_candles(
    written: Written[StateOrder],
    states: Sequence[MarketCandles],
    *,
    bucket_of: Mapping[Timeframe, BucketRole],
    oldest: Mapping[BucketRole, Micros],
) -> Placement:
    """Keep, of each candle, the greatest state if it is greater than what is there, and remember it.

    `oldest` has the first instant that a bucket keeps, where it doesn't keep all.
    """
    points: dict[tuple[Series, Micros], Point] = {}
    held = expired = impossible = 0
    for part in states:
        tags = market_tags(part.market)
        for candle in part.candles:
            time = candle.open_time
            bucket = bucket_of[candle.timeframe]
            if not can_be_written(part.market, time):
                impossible += 1
                continue
            if time < oldest.get(bucket, time):
                expired += 1
                continue
            series: Series = (part.market, candle.timeframe)
            known = written.get(series, time)
            if known is not None and known >= candle.state_order:
                held += 1
                continue
            written.put(series, time, candle.state_order)
            held += (series, time) in points
            points[(series, time)] = candle_point(tags, candle, bucket)
    return Placement(tuple(points.values()), held, expired, impossible)
