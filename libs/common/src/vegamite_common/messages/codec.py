"""Shared by the topics: how records are written, and the error for bytes that are none."""

from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from vegamite_common.domain.time import LATEST, Micros

RecordT = TypeVar("RecordT")

Instant: TypeAlias = Annotated[Micros, msgspec.Meta(ge=0, lt=LATEST)]
"""An instant on the wire; readers refuse one that no calendar of ours can hold."""

Text: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]
"""A name or reason on the wire; readers refuse the one character that PostgreSQL can't store."""

VERSION = 1
"""The `v` of every record; readers refuse another one."""

MAX_RECORD_BYTES = 1_000_000
"""Largest encoded record; below the broker's default limit of one mebibyte."""


class MessageError(ValueError):
    """Bytes from a topic that are no record of it, or a record too large to send; the text says why."""


def _version() -> int:
    return (
        VERSION  # a factory, since a plain default would be left out of the wire where defaults are
    )


class Versioned(msgspec.Struct, frozen=True, kw_only=True):
    """What every record has: its version, always 1."""

    v: int = msgspec.field(default_factory=_version)

    def __post_init__(self) -> None:
        if self.v != VERSION:
            raise ValueError(f"record version {self.v}, this reader knows {VERSION}")


def decode_with(decoder: msgspec.json.Decoder[RecordT], value: bytes) -> RecordT:
    """Return the record that `value` encodes; raise `MessageError` for anything else."""
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError) as error:
        raise MessageError(str(error)[:500]) from error


def require_order(from_time: int, to_time: int) -> None:
    """Raise `ValueError` unless [from_time, to_time) has a length."""
    if not from_time < to_time:
        raise ValueError(f"an interval ends after it begins: [{from_time}, {to_time})")


def checked(value: bytes, what: Any) -> bytes:
    """Return `value` unchanged; raise `MessageError` where it is larger than a record may be."""
    if len(value) > MAX_RECORD_BYTES:
        raise MessageError(
            f"{type(what).__name__} record of {len(value)} bytes, at most {MAX_RECORD_BYTES} are allowed"
        )
    return value
