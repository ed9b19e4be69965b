"""Records of `market.trades.v1`: trades with the coverage that they prove, coverage alone, and control.

All records of one market are in one partition, in the order in which they were sent. A record's coverage speaks of trades
before it in the log, or in it; so whoever reads in order never believes a time complete whose trades are still to come.
"""

from decimal import Decimal
from typing import TypeAlias

import msgspec

from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal, is_canonical
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.codec import (
    Instant,
    Text,
    Versioned,
    checked,
    decode_with,
    require_order,
)

MAX_TRADES = 1_000
"""Most trades in one record."""


class _OfMarket(Versioned, frozen=True, kw_only=True):
    exchange: str
    symbol: str

    def __post_init__(self) -> None:
        super().__post_init__()
        Market(self.exchange, self.symbol)

    @property
    def market(self) -> Market:
        """The market that the record speaks of."""
        return Market(self.exchange, self.symbol)


class TradesRecord(
    _OfMarket, frozen=True, kw_only=True, tag="trades", tag_field="kind", omit_defaults=True
):
    """Trades of one market that arrived together, at most 1,000, in arrival order; none only where `covered` is stated.

    `received_time` is the writer's clock, in microseconds. `covered` is the half-open interval (from, to) that these
    trades, with those before them in the log, make complete. `job` names the bulk job they belong to.
    """

    received_time: Instant
    origin: Origin
    trades: tuple[Trade, ...]
    job: Text | None = None
    covered: tuple[Instant, Instant] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.trades) > MAX_TRADES or (not self.trades and self.covered is None):
            raise ValueError(
                f"a trades record has 1 to {MAX_TRADES} trades, not {len(self.trades)}"
            )
        if self.covered is not None:
            require_order(*self.covered)


class SpanOpened(_OfMarket, frozen=True, kw_only=True, tag="span_opened", tag_field="kind"):
    """From `from_time` on, every trade of the market is in the log before the heartbeats of `writer` that cover it.

    Repeated each minute; while the writer's span is open a repeat means nothing, else it opens the span anew.
    """

    writer: Text
    from_time: Instant = msgspec.field(name="from")


class Heartbeat(Versioned, frozen=True, kw_only=True, tag="heartbeat", tag_field="kind"):
    """Every open span of `writer` in this partition reaches to `to_time` (exclusive), in microseconds."""

    writer: Text
    to_time: Instant = msgspec.field(name="to")


class SpanClosed(_OfMarket, frozen=True, kw_only=True, tag="span_closed", tag_field="kind"):
    """The writer's span of the market ends at `to_time` (exclusive); `cause` is a short word, as `socket_closed`."""

    writer: Text
    to_time: Instant = msgspec.field(name="to")
    cause: Text


class JobStarted(
    _OfMarket, frozen=True, kw_only=True, tag="job_started", tag_field="kind", omit_defaults=True
):
    """A bulk job on the market begins: candles that it touches wait for its end.

    Its trades of the whole days in `restores`, [from, to), are taken also where they have expired; each portion that is
    whole is followed by a `Rebuild` with `restored_since`.
    """

    job: Text
    origin: Origin
    restores: tuple[Instant, Instant] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restores is not None:
            require_order(*self.restores)


class Unfillable(msgspec.Struct, frozen=True, array_like=True):
    """An interval (from, to, reason), in microseconds, whose trades can't be had any more."""

    from_time: Instant
    to_time: Instant
    reason: Text

    def __post_init__(self) -> None:
        require_order(self.from_time, self.to_time)


class JobEnded(
    _OfMarket, frozen=True, kw_only=True, tag="job_ended", tag_field="kind", omit_defaults=True
):
    """The bulk job has sent all it will; `unfillable` is what it found to be gone."""

    job: Text
    unfillable: Unfillable | None = None


class Rebuild(
    _OfMarket, frozen=True, kw_only=True, tag="rebuild", tag_field="kind", omit_defaults=True
):
    """Compute the candles of [from_time, to_time) again from the stored trades; revisions have the reason `correction`.

    Expired time is left out. With `restored_since` it is the expired time alone: a job that restores it says that the
    trades of whole days are all there again, without a hole from `restored_since` on; the reason is `import`. `covered` are
    the half-open intervals (from, to) among them of which those are all the trades that ever were.
    """

    from_time: Instant = msgspec.field(name="from")
    to_time: Instant = msgspec.field(name="to")
    restored_since: Instant | None = None
    covered: tuple[tuple[Instant, Instant], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_order(self.from_time, self.to_time)
        if self.restored_since is not None:
            require_order(self.restored_since, self.to_time)
        for interval in self.covered:
            require_order(*interval)


TradesTopicRecord: TypeAlias = (
    TradesRecord | SpanOpened | Heartbeat | SpanClosed | JobStarted | JobEnded | Rebuild
)
"""Any record of `market.trades.v1`."""

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[TradesTopicRecord] = msgspec.json.Decoder(TradesTopicRecord)


def encode_trades(record: TradesTopicRecord) -> bytes:
    """Return the record's JSON, decimals as canonical strings; raise `MessageError` above the size limit."""
    if isinstance(record, TradesRecord) and not all(
        is_canonical(t.price) and is_canonical(t.amount) for t in record.trades
    ):
        return checked(_encode_plainly(record), record)
    return checked(_ENCODER.encode(record), record)


def _encode_plainly(record: TradesRecord) -> bytes:
    """Write numbers that Python would print with an exponent (below 0.000001) or trailing zeros as all others are."""
    document = msgspec.to_builtins(record, builtin_types=(Decimal,))
    for trade in document["trades"]:
        trade["price"] = format_decimal(trade["price"])
        trade["amount"] = format_decimal(trade["amount"])
    return _ENCODER.encode(document)


def decode_trades(value: bytes) -> TradesTopicRecord:
    """Return the record of `market.trades.v1` that `value` encodes; raise `MessageError` for anything else."""
    return decode_with(_DECODER, value)
