"""The records that tell of a step: finals and revisions of candles, gaps, and dead letters.

Each final and each revision is published; only where more than `MAX_REVISIONS` candles of one market and timeframe were
revised or released at once, one `revised` record stands for them, and whoever reads candles reads them again.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from vegamite_aggregator.core.changes import OutboxRecord
from vegamite_aggregator.core.facts import RefusedRecord
from vegamite_aggregator.core.gap_projection import Projection
from vegamite_aggregator.core.reason import weightier
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import (
    MAX_CANDLES,
    CandlesRecord,
    ChangeType,
    RevisionReason,
    encode_candles,
)
from vegamite_common.messages.codec import MessageError
from vegamite_common.messages.dead_letters import MAX_KEY_BYTES, dead_letter, encode_dead_letter
from vegamite_common.messages.status import (
    GapFilled,
    GapOpened,
    GapUnfillable,
    Revised,
    StatusRecord,
    encode_status,
)

CANDLES_TOPIC = "market.candles.v1"
STATUS_TOPIC = "market.status.v1"
DEAD_LETTERS_TOPIC = "market.trades.dead-letter.v1"

MAX_REVISIONS = 500
"""Most candles of one market and timeframe that one step publishes as revisions or as released from jobs."""


class Told(msgspec.Struct, frozen=True):
    """A candle to be published as `final` or `revision`; `reason` is why it changed, or what the jobs were that held it.

    `bulk`: it counts towards `MAX_REVISIONS`.
    """

    candle: Candle
    change: ChangeType
    reason: RevisionReason | None
    bulk: bool


def publish_candles(
    market: Market,
    told: Iterable[Told],
    rebuilt: Iterable[tuple[Timeframe, Micros, Micros]],
    now: Micros,
) -> list[OutboxRecord]:
    """Return the records for one market's candles; `rebuilt` are ranges of open times whose readers have to read again."""
    single: list[Told] = []
    bulk: dict[Timeframe, list[Told]] = {}
    for one in told:
        (bulk.setdefault(one.candle.timeframe, []) if one.bulk else single).append(one)
    records: list[OutboxRecord] = []
    for timeframe, many in bulk.items():
        if len(many) > MAX_REVISIONS:
            records.append(_status(market, _revised(market, timeframe, many, now)))
        else:
            single += many
    groups: dict[tuple[ChangeType, RevisionReason | None], list[Candle]] = {}
    for one in single:
        reason = one.reason if one.change == "revision" else None
        groups.setdefault((one.change, reason), []).append(one.candle)
    for (change, reason), candles in groups.items():
        # In one order, whatever was in memory and whatever was read.
        candles.sort(key=lambda candle: (candle.open_time, candle.timeframe))
        for start in range(0, len(candles), MAX_CANDLES):
            portion = candles[start : start + MAX_CANDLES]
            records += _candles(market, change, reason, portion)
    for timeframe, from_time, to_time in rebuilt:
        revised = Revised(
            exchange=market.exchange,
            symbol=market.symbol,
            event_time=now,
            timeframe=timeframe,
            from_time=from_time,
            to_time=to_time,
            reason="correction",
        )
        records.append(_status(market, revised))
    return records


def _revised(market: Market, timeframe: Timeframe, many: Sequence[Told], now: Micros) -> Revised:
    reason: RevisionReason | None = None
    for one in many:
        reason = weightier(reason, one.reason)
    return Revised(
        exchange=market.exchange,
        symbol=market.symbol,
        event_time=now,
        timeframe=timeframe,
        from_time=min(one.candle.open_time for one in many),
        to_time=max(one.candle.close_time for one in many),
        reason=reason or "coverage",
    )


def _candles(
    market: Market, change: ChangeType, reason: RevisionReason | None, candles: Sequence[Candle]
) -> Iterator[OutboxRecord]:
    record = CandlesRecord(
        exchange=market.exchange,
        symbol=market.symbol,
        type=change,
        reason=reason,
        candles=tuple(candles),
    )
    try:
        value = encode_candles(record)
    except MessageError:
        # Numbers of many digits can make 500 candles too large for one record; one alone always fits.
        half = len(candles) // 2
        if half == 0:
            raise
        yield from _candles(market, change, reason, candles[:half])
        yield from _candles(market, change, reason, candles[half:])
        return
    yield OutboxRecord(topic=CANDLES_TOPIC, key=market.key.encode(), value=value)


def publish_gaps(market: Market, gaps: Projection, now: Micros) -> list[OutboxRecord]:
    """Return the records that tell which gaps were opened, filled, and found to be unfillable."""
    exchange, symbol = market.exchange, market.symbol
    records: list[StatusRecord] = [
        GapOpened(
            exchange=exchange,
            symbol=symbol,
            event_time=now,
            from_time=row.from_time,
            to_time=row.to_time,
            cause=row.cause,
        )
        for row in gaps.opened
    ]
    records += [
        GapFilled(
            exchange=exchange,
            symbol=symbol,
            event_time=now,
            from_time=row.from_time,
            to_time=row.to_time,
            recovered=row.recovered,
        )
        for row in gaps.filled
    ]
    records += [
        GapUnfillable(
            exchange=exchange,
            symbol=symbol,
            event_time=now,
            from_time=row.from_time,
            to_time=row.to_time,
            reason=row.reason or "",
        )
        for row in gaps.unfillable
    ]
    return [_status(market, record) for record in records]


def _status(market: Market, record: StatusRecord) -> OutboxRecord:
    return OutboxRecord(topic=STATUS_TOPIC, key=market.key.encode(), value=encode_status(record))


def publish_dead_letters(
    refused: Iterable[RefusedRecord], *, epoch: int, partition: int
) -> list[OutboxRecord]:
    """Return a letter for each refused record, under the record's own key (none where that is too long to be one)."""
    return [
        OutboxRecord(
            topic=DEAD_LETTERS_TOPIC,
            key=None if key is None or len(key) > MAX_KEY_BYTES else key,
            value=encode_dead_letter(
                dead_letter(
                    epoch=epoch,
                    partition=partition,
                    offset=each.record.offset,
                    append_time=each.record.append_time,
                    key=key,
                    value=each.record.value,
                    reason=each.reason,
                    detail=each.detail,
                    trade_ids=each.trade_ids,
                )
            ),
        )
        for each in refused
        for key in (each.record.key,)
    ]
