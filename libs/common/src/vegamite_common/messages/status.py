"""Records of `market.status.v1`: the state of sources, gaps, and ranges whose candles were revised in bulk."""

from typing import Literal, TypeAlias

import msgspec

from vegamite_common.domain.market import Market
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.codec import (
    Instant,
    Text,
    Versioned,
    checked,
    decode_with,
    require_order,
)

SourceStateName: TypeAlias = Literal[
    "pending", "connecting", "live", "reconnecting", "clock_skew", "unknown_symbol", "unsupported"
]
"""What a market's source is doing, as in `market_state.state`."""


class _Status(Versioned, frozen=True, kw_only=True):
    exchange: str
    symbol: str
    event_time: Instant

    def __post_init__(self) -> None:
        super().__post_init__()
        Market(self.exchange, self.symbol)

    @property
    def market(self) -> Market:
        """The market that the record speaks of."""
        return Market(self.exchange, self.symbol)


class SourceState(
    _Status, frozen=True, kw_only=True, tag="source_state", tag_field="kind", omit_defaults=True
):
    """The market's source entered `state` at `event_time`."""

    state: SourceStateName
    reason: Text | None = None


class GapOpened(_Status, frozen=True, kw_only=True, tag="gap_opened", tag_field="kind"):
    """Trades of [from_time, to_time) may be missing."""

    from_time: Instant = msgspec.field(name="from")
    to_time: Instant = msgspec.field(name="to")
    cause: Text

    def __post_init__(self) -> None:
        super().__post_init__()
        require_order(self.from_time, self.to_time)


class GapFilled(_Status, frozen=True, kw_only=True, tag="gap_filled", tag_field="kind"):
    """[from_time, to_time) is complete now; `recovered` trades were found."""

    from_time: Instant = msgspec.field(name="from")
    to_time: Instant = msgspec.field(name="to")
    recovered: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_order(self.from_time, self.to_time)
        if self.recovered < 0:
            raise ValueError(f"a gap can't have recovered {self.recovered} trades")


class GapUnfillable(_Status, frozen=True, kw_only=True, tag="gap_unfillable", tag_field="kind"):
    """The trades of [from_time, to_time) can't be had any more."""

    from_time: Instant = msgspec.field(name="from")
    to_time: Instant = msgspec.field(name="to")
    reason: Text

    def __post_init__(self) -> None:
        super().__post_init__()
        require_order(self.from_time, self.to_time)


class Revised(_Status, frozen=True, kw_only=True, tag="revised", tag_field="kind"):
    """So many candles of one timeframe with open times in [from_time, to_time) were revised that none is published."""

    timeframe: Timeframe
    from_time: Instant = msgspec.field(name="from")
    to_time: Instant = msgspec.field(name="to")
    reason: Text

    def __post_init__(self) -> None:
        super().__post_init__()
        require_order(self.from_time, self.to_time)


StatusRecord: TypeAlias = SourceState | GapOpened | GapFilled | GapUnfillable | Revised
"""Any record of `market.status.v1`."""

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[StatusRecord] = msgspec.json.Decoder(StatusRecord)


def encode_status(record: StatusRecord) -> bytes:
    """Return the record's JSON; raise `MessageError` above the size limit."""
    return checked(_ENCODER.encode(record), record)


def decode_status(value: bytes) -> StatusRecord:
    """Return the record of `market.status.v1` that `value` encodes; raise `MessageError` for anything else."""
    return decode_with(_DECODER, value)
