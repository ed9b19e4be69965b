"""What an archived day of trades says of itself: the manifest beside its file."""

from typing import NamedTuple

import msgspec

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros

ARCHIVE_VERSION = 1
"""Version of the file's columns and of the manifest's keys."""


class ArchivedTrade(NamedTuple):
    """A trade as it was stored; `price` and `amount` exact as text, times in microseconds."""

    event_time: Micros
    trade_id: str
    sequence: int
    price: str
    amount: str
    taker_side: str | None
    received_time: Micros
    origin: str
    job: str | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of one market's trades of one UTC day (`day`, as 2025-01-31), in the order of (event time, id).

    `file` is the Parquet file beside it, of `bytes` bytes with the SHA-256 `sha256` (hexadecimal). `covered` are the parts of the day
    in which every trade is claimed to be there, as [from, to) in microseconds.
    """

    schema_version: int
    exchange: str
    symbol: str
    day: str
    file: str
    rows: int
    bytes: int
    sha256: str
    first_trade_id: str
    last_trade_id: str
    covered: tuple[tuple[Micros, Micros], ...] = ()

    def __post_init__(self) -> None:
        if self.schema_version != ARCHIVE_VERSION:
            raise ValueError(
                f"schema version {self.schema_version}; this release reads {ARCHIVE_VERSION}"
            )
        if "/" in self.file or self.file in ("", ".", ".."):
            raise ValueError(f"not a file beside the manifest: {self.file[:80]!r}")
        if self.rows < 1:
            raise ValueError("an archive holds at least one trade")
        Market(self.exchange, self.symbol)

    @property
    def market(self) -> Market:
        """The market whose trades these are."""
        return Market(self.exchange, self.symbol)
