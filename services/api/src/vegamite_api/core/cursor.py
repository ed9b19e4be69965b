"""Paging cursors: the place of the last row sent, opaque to clients, bound to the question that was asked.

A cursor is url-safe base64 of a checksum, the question's fingerprint and the place. It holds no secret: a forged one
reads other rows of the same market, nothing else; the checksum tells a mangled one from a place.
"""

import base64
import binascii
import zlib
from typing import Any

import msgspec

from vegamite_api.core.refusal import RefusedError, invalid
from vegamite_common.domain.time import LATEST, Micros
from vegamite_common.domain.trade import TradeOrder

_MAX_TEXT = 400
_INT64 = 2**63


def _fingerprint(question: str) -> int:
    return zlib.crc32(question.encode("utf-8", "surrogatepass"))


def encode_cursor(question: str, place: tuple[int | str | bytes, ...]) -> str:
    """Return the opaque cursor of `place` for a question: all that the next page must ask alike, as one string."""
    body = msgspec.msgpack.encode((_fingerprint(question), *place))
    packed = zlib.crc32(body).to_bytes(4, "big") + body
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def _decode(text: str, question: str) -> list[Any]:
    refusal = invalid("cursor", "not a cursor of this API", "next_cursor of the page before")
    if len(text) > _MAX_TEXT or not text.isascii():
        raise refusal
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        body = packed[4:]
        if zlib.crc32(body) != int.from_bytes(packed[:4], "big"):
            raise refusal
        fingerprint, *place = msgspec.msgpack.decode(body, type=list[Any])
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        if isinstance(error, RefusedError):
            raise
        raise refusal from None
    if fingerprint != _fingerprint(question):
        raise invalid(
            "cursor",
            "the cursor belongs to another question",
            "next_cursor of the page before, with the other parameters unchanged (limit, start and end aside)",
        )
    return place


def _broken() -> RefusedError:
    return invalid("cursor", "not a cursor of this endpoint", "next_cursor of the page before")


def encode_instant_cursor(question: str, instant: Micros) -> str:
    """Return the cursor of a list that is ordered by one instant (microseconds)."""
    return encode_cursor(question, (instant,))


def decode_instant_cursor(text: str, question: str) -> Micros:
    """Return the instant that `encode_instant_cursor` put in; raise `RefusedError` naming `cursor` for anything else."""
    match _decode(text, question):
        case [int() as instant] if 0 <= instant < LATEST:
            return instant
    raise _broken()


def encode_trade_cursor(question: str, place: TradeOrder) -> str:
    """Return the cursor of a trade's place in the total order of its market."""
    return encode_cursor(question, place)


def decode_trade_cursor(text: str, question: str) -> TradeOrder:
    """Return the place that `encode_trade_cursor` put in; raise `RefusedError` naming `cursor` for anything else."""
    match _decode(text, question):
        case [int() as event_time, int() as sequence, bytes() as trade_id] if (
            0 <= event_time < LATEST and -_INT64 <= sequence < _INT64
        ):
            try:
                name = trade_id.decode()
            except UnicodeDecodeError:
                raise _broken() from None
            if "\x00" not in name:
                return (event_time, sequence, trade_id)
    raise _broken()


def encode_name_cursor(question: str, name: str) -> str:
    """Return the cursor of a list that is ordered by one name, as bytes."""
    return encode_cursor(question, (name,))


def decode_name_cursor(text: str, question: str) -> str:
    """Return the name that `encode_name_cursor` put in; raise `RefusedError` naming `cursor` for anything else."""
    match _decode(text, question):
        case [str() as name] if "\x00" not in name:
            return name
    raise _broken()
