"""Records of `market.trades.dead-letter.v1`: what the trades log had and the aggregator could not take, with the reason.

A letter is one refused record, whole up to a limit, so that it can be looked at and put back. It stands in the partition
of the record, under the record's own key; (epoch, partition, offset) name the record, and a letter that is delivered again
is the same.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from vegamite_common.messages.codec import Instant, Versioned, checked, decode_with

MAX_VALUE_BYTES = 262_144
"""Most bytes of a refused record's value that a letter carries; twice what 1,000 ordinary trades take."""

MAX_KEY_BYTES = 4_096
"""Most bytes of its key."""

MAX_DETAIL = 500
"""Most characters of the detail."""

MAX_TRADE_IDS = 100
"""Most refused trades that a letter names; `refused_trades` counts all."""


class DeadLetter(Versioned, frozen=True, kw_only=True, omit_defaults=True):
    """One record of `market.trades.v1` that was refused, or of which `refused_trades` trades were (0: the whole record).

    `epoch`, `partition` and `offset` say where it was, `append_time` (microseconds) since when. `reason` is a short word,
    `detail` what was wrong in words. `key` and `value` are the record's bytes (base64 on the wire), cut to `MAX_KEY_BYTES`
    and `MAX_VALUE_BYTES`; `value_bytes` and `value_sha256` are the size and hash of the whole value. The trades that were
    not refused are stored as ever; `trade_ids` names the refused ones, up to `MAX_TRADE_IDS`.
    """

    epoch: int
    partition: int
    offset: int
    append_time: Instant
    reason: str
    detail: str
    key: bytes | None
    value: bytes
    value_bytes: int
    value_sha256: str
    refused_trades: int = 0
    trade_ids: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the value is all there, so that the record can be put back."""
        return len(self.value) == self.value_bytes


def dead_letter(
    *,
    epoch: int,
    partition: int,
    offset: int,
    append_time: int,
    key: bytes | None,
    value: bytes,
    reason: str,
    detail: str,
    trade_ids: Sequence[str] = (),
) -> DeadLetter:
    """Return the letter of a refused record, cut to what a letter may hold; `trade_ids` are all its refused trades."""
    return DeadLetter(
        epoch=epoch,
        partition=partition,
        offset=offset,
        append_time=append_time,
        reason=reason,
        detail=detail.encode(errors="backslashreplace").decode()[:MAX_DETAIL],
        key=None if key is None else key[:MAX_KEY_BYTES],
        value=value[:MAX_VALUE_BYTES],
        value_bytes=len(value),
        value_sha256=hashlib.sha256(value).hexdigest(),
        refused_trades=len(trade_ids),
        trade_ids=tuple(trade_ids[:MAX_TRADE_IDS]),
    )


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[DeadLetter] = msgspec.json.Decoder(DeadLetter)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """Return the letter's JSON; raise `MessageError` above the size limit, which no letter of `dead_letter` reaches."""
    return checked(_ENCODER.encode(letter), letter)


def decode_dead_letter(value: bytes) -> DeadLetter:
    """Return the letter that `value` encodes; raise `MessageError` for anything else."""
    return decode_with(_DECODER, value)
