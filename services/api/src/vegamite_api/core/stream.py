"""Streams, and the messages of each: made once from a log record, for all receivers on all connections alike.

A stream is one channel of one market (and timeframe). `seq` is the record's place in the log. `prev_seq` names the
stream's message before it that must not be missed (trades, finals, revisions; status too), so a hole shows at once; an update of a
candle in progress has none, since it may be superseded unseen.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from vegamite_api.core.row import StoredTrade
from vegamite_api.core.seq import Seq
from vegamite_api.core.view import candle_view, trade_view
from vegamite_common.domain.candle import Candle, StateOrder
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros, format_time
from vegamite_common.messages.candles import CandlesRecord
from vegamite_common.messages.status import (
    GapFilled,
    GapOpened,
    GapUnfillable,
    Revised,
    SourceState,
    StatusRecord,
)
from vegamite_common.messages.trades import TradesRecord

Channel = Literal["candles", "trades", "status"]
CHANNELS: tuple[Channel, ...] = ("candles", "trades", "status")

_ENCODER = msgspec.json.Encoder()


class Stream(NamedTuple):
    """One channel of one market, and of one timeframe for candles."""

    channel: Channel
    market: str
    timeframe: str | None = None

    @property
    def name(self) -> str:
        """The stream's name in `seqs`: `candles:kraken:BTC/USD:1m`, `trades:kraken:BTC/USD`."""
        parts = (self.channel, self.market, self.timeframe)
        return ":".join(part for part in parts if part is not None)

    @property
    def described(self) -> dict[str, object]:
        """The stream's fields in a message."""
        fields: dict[str, object] = {"channel": self.channel, "market": self.market}
        if self.timeframe is not None:
            fields["timeframe"] = self.timeframe
        return fields


class Event:
    """One message of one stream; its text is written at the first use and shared by all receivers."""

    __slots__ = ("_body", "_text", "candles", "droppable", "seq", "stream")

    def __init__(
        self,
        stream: Stream,
        seq: Seq,
        body: dict[str, Any],
        *,
        candles: Sequence[Candle] = (),
        droppable: bool = False,
    ) -> None:
        self.stream = stream
        self.seq = seq
        self.candles = candles
        self.droppable = droppable
        self._body = body
        self._text: str | None = None

    @property
    def text(self) -> str:
        """The message as JSON."""
        if self._text is None:
            self._text = encode(self._body)
        return self._text

    @property
    def opens(self) -> frozenset[Micros]:
        """The open times of the candles that the message speaks of."""
        return frozenset(candle.open_time for candle in self.candles)

    def newer_than(self, held: Mapping[Micros, StateOrder]) -> "Event | None":
        """Return the event without the states that are not greater than those held; None where none is left."""
        if not self.candles:
            return self
        newer = [
            candle
            for candle in self.candles
            if candle.open_time not in held or candle.state_order > held[candle.open_time]
        ]
        if len(newer) == len(self.candles):
            return self
        return self.with_candles(newer) if newer else None

    def with_candles(self, candles: Sequence[Candle]) -> "Event":
        """Return the same message with other candles, possibly none: the chain of `prev_seq` stays whole."""
        body = {**self._body, "data": _candle_data(self.stream.market, candles)}
        return Event(self.stream, self.seq, body, candles=candles, droppable=self.droppable)


def encode(body: object) -> str:
    """Return a message's JSON text."""
    return _ENCODER.encode(body).decode()


def _candle_data(market_key: str, candles: Sequence[Candle]) -> list[object]:
    market = Market.parse(market_key)
    return [candle_view(market, candle, format_time) for candle in candles]


def trades_event(record: TradesRecord, seq: Seq, prev: Seq | None) -> Event:
    """Return the message of a trades record."""
    market = record.market
    body = {
        "channel": "trades",
        "type": "update",
        "market": market.key,
        "seq": str(seq),
        "prev_seq": None if prev is None else str(prev),
        "origin": record.origin.value,
        "data": [
            trade_view(market, StoredTrade(trade, record.received_time), format_time)
            for trade in record.trades
        ],
    }
    return Event(Stream("trades", market.key), seq, body)


def candles_event(record: CandlesRecord, timeframe: str, seq: Seq, prev: Seq | None) -> Event:
    """Return the message of the candles of one timeframe in a record."""
    stream = Stream("candles", record.market.key, timeframe)
    candles = [candle for candle in record.candles if candle.timeframe == timeframe]
    body: dict[str, Any] = {
        "channel": "candles",
        "type": record.type,
        "market": stream.market,
        "timeframe": timeframe,
        "seq": str(seq),
    }
    if record.type != "update":
        body["prev_seq"] = None if prev is None else str(prev)
    if record.reason is not None:
        body["reason"] = record.reason
    body["data"] = _candle_data(stream.market, candles)
    return Event(stream, seq, body, candles=candles, droppable=record.type == "update")


def status_event(record: StatusRecord, seq: Seq, prev: Seq | None) -> Event:
    """Return the message of a status record."""
    stream = Stream("status", record.market.key)
    kind, details = _status_details(record)
    body = {
        "channel": "status",
        "type": kind,
        "market": stream.market,
        "seq": str(seq),
        "prev_seq": None if prev is None else str(prev),
        "event_time": format_time(record.event_time),
        **details,
    }
    return Event(stream, seq, body)


def _status_details(record: StatusRecord) -> tuple[str, dict[str, object]]:
    match record:
        case SourceState():
            kind = "source_up" if record.state == "live" else "source_down"
            return kind, {"state": record.state, "reason": record.reason}
        case GapOpened():
            return "gap_opened", {**_bounds(record), "cause": record.cause}
        case GapFilled():
            return "gap_filled", {**_bounds(record), "recovered": record.recovered}
        case GapUnfillable():
            return "gap_unfillable", {**_bounds(record), "reason": record.reason}
        case Revised():
            timeframe = record.timeframe.value
            return "revised", {
                "timeframe": timeframe,
                **_bounds(record),
                "reason": record.reason,
            }


def _bounds(record: GapOpened | GapFilled | GapUnfillable | Revised) -> dict[str, object]:
    return {"from_time": format_time(record.from_time), "to_time": format_time(record.to_time)}


def candle_snapshot(stream: Stream, seq: Seq, candles: Sequence[Candle]) -> str:
    """Return the snapshot message of a candle stream, oldest first."""
    return _snapshot(stream, seq, _candle_data(stream.market, candles))


def trade_snapshot(stream: Stream, seq: Seq, trades: Sequence[StoredTrade]) -> str:
    """Return the snapshot message of a trade stream, in the total order."""
    market = Market.parse(stream.market)
    return _snapshot(stream, seq, [trade_view(market, trade, format_time) for trade in trades])


def _snapshot(stream: Stream, seq: Seq, data: list[Any]) -> str:
    return encode({**stream.described, "type": "snapshot", "seq": str(seq), "data": data})
