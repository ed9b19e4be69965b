"""Trades whose layout isn't ours, as another program writes them: with spaces, say, or with fields in another order.

The document is read by msgspec, a record by the rules of `TradesRecord` but for the trades themselves, whose numbers stay text;
those are packed by the compiled core. As `read_block` it is a short cut: what it doesn't take, `decode_trades` has the say on.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from vegamite_aggregator.core.block_reader import BlockRecord, pack
from vegamite_aggregator.core.storable import require_storable
from vegamite_aggregator.core.trade_block import TradeBlock
from vegamite_common.domain.time import EARLIEST, LATEST_EVENT
from vegamite_common.domain.trade import TakerSide
from vegamite_common.messages.codec import MessageError, decode_with
from vegamite_common.messages.trades import Heartbeat, TradesRecord


class TextTrade(msgspec.Struct, frozen=True, gc=False):
    """What a document says of a trade; `pack_trades` tells whether it can be one."""

    trade_id: str
    sequence: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    event_time: Annotated[int, msgspec.Meta(ge=EARLIEST, lt=LATEST_EVENT)]
    price: str
    amount: str
    taker_side: TakerSide | None = None


class _TextRecord(TradesRecord, frozen=True, kw_only=True, tag="trades", tag_field="kind"):
    trades: tuple[TextTrade, ...]  # type: ignore[assignment]


# One of several, since msgspec insists on the tag of none that is alone.
_DECODER: msgspec.json.Decoder[_TextRecord | Heartbeat] = msgspec.json.Decoder(
    _TextRecord | Heartbeat
)


def read_text(value: bytes) -> BlockRecord | None:
    """Return the trades record that `value` encodes, its trades packed; None where they can't be, and for all else."""
    try:
        record = decode_with(_DECODER, value)
        if not isinstance(record, _TextRecord) or _overwritten(value, len(record.trades)):
            return None
        require_storable(record)
    except MessageError:
        return None
    block = pack_trades(record.trades)
    if block is None:
        return None
    packed = BlockRecord(
        record.exchange, record.symbol, record.received_time, record.origin.value, block
    )
    packed.job = record.job
    packed.covered = record.covered
    return packed


def _overwritten(value: bytes, trades: int) -> bool:
    """Whether a field of these many trades might be there twice: the last counts, but nobody has looked at the first's number."""
    return b"\\" in value or any(value.count(name) != trades for name in (b'"price"', b'"amount"'))


def pack_trades(trades: Sequence[TextTrade]) -> TradeBlock | None:
    """Return the trades, packed; None if there are none, or one has more than 18 digits, an unusual id, or can't be."""
    if not trades:
        return None
    return pack(
        [trade.trade_id for trade in trades],
        [trade.sequence for trade in trades],
        [trade.event_time for trade in trades],
        [trade.price for trade in trades],
        [trade.amount for trade in trades],
        [trade.taker_side for trade in trades],
    )
