"""Rows as the store gives them, where the domain's own types do not say all that is served."""

import msgspec

from vegamite_common.domain.coverage import Gap
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import Micros
from vegamite_common.domain.trade import Trade

StateKey = tuple[int, int, bool, int]
"""(epoch, as_of, final, revision) of a candle's state."""


class StoredTrade(msgspec.Struct, frozen=True, gc=False):
    """A trade and when we received it (our clock, microseconds)."""

    trade: Trade
    received_time: Micros


class StoredGap(msgspec.Struct, frozen=True):
    """A gap with the instants (microseconds) at which it was found and decided."""

    gap: Gap
    opened_time: Micros
    closed_time: Micros | None


class ExchangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange that markets can be tracked on; `trades` is `stream`, `poll` or `none`."""

    exchange: str
    name: str
    simulated: bool
    trades: str
    tracked_markets: int


class KnownMarket(msgspec.Struct, frozen=True):
    """A market that has a row, and the number by which the store knows it."""

    market: Market
    market_key: int
