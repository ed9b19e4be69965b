"""Records of `market.candles.v1`: changed candles, as absolute states."""

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from vegamite_common.domain.candle import Candle
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import format_decimal, is_canonical
from vegamite_common.messages.codec import Versioned, checked, decode_with

MAX_CANDLES = 500
"""Most candles in one record."""

RevisionReason: TypeAlias = Literal["late_trade", "backfill", "import", "correction", "coverage"]
"""Why a final candle changed; `coverage` where only `complete` did."""

ChangeType: TypeAlias = Literal["update", "final", "revision"]


class CandlesRecord(
    Versioned, frozen=True, kw_only=True, tag="candles", tag_field="kind", omit_defaults=True
):
    """Candles of one market that changed together, 1 to 500, of any timeframes.

    `update` is in progress and may be superseded unseen; `final` and `revision` are each published once or more often,
    never lost. Readers keep the state that is greatest by (epoch, as_of, final, revision).
    """

    exchange: str
    symbol: str
    type: ChangeType
    candles: tuple[Candle, ...]
    reason: RevisionReason | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        Market(self.exchange, self.symbol)
        if not 1 <= len(self.candles) <= MAX_CANDLES:
            raise ValueError(
                f"a candles record has 1 to {MAX_CANDLES} candles, not {len(self.candles)}"
            )
        if (self.type == "revision") != (self.reason is not None):
            raise ValueError("a revision, and nothing else, has a reason")

    @property
    def market(self) -> Market:
        """The market that the record speaks of."""
        return Market(self.exchange, self.symbol)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(CandlesRecord)
_DECIMALS = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "buy_volume",
    "buy_quote_volume",
)


def _is_canonical(candle: Candle) -> bool:
    return all(is_canonical(getattr(candle, name)) for name in _DECIMALS)


def encode_candles(record: CandlesRecord) -> bytes:
    """Return the record's JSON, decimals as canonical strings; raise `MessageError` above the size limit."""
    if all(_is_canonical(candle) for candle in record.candles):
        return checked(_ENCODER.encode(record), record)
    document = msgspec.to_builtins(record, builtin_types=(Decimal,))
    for candle in document["candles"]:
        for name in _DECIMALS:
            candle[name] = format_decimal(candle[name])
    return checked(_ENCODER.encode(document), record)


def decode_candles(value: bytes) -> CandlesRecord:
    """Return the record of `market.candles.v1` that `value` encodes; raise `MessageError` for anything else."""
    return decode_with(_DECODER, value)
