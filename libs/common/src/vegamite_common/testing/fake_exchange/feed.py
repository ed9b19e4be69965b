"""What the fake exchange has to tell: listed markets and their aggregate trades, addressed by id and by time."""

from typing import Protocol

import msgspec

FOREVER_MS = 2**62
"""A time in milliseconds that no trade reaches: no upper bound."""


class AggregateTrade(msgspec.Struct, frozen=True, gc=False):
    """One aggregate trade as Binance's REST tells it: exact decimal texts, time in milliseconds."""

    trade_id: int = msgspec.field(name="a")
    price: str = msgspec.field(name="p")
    amount: str = msgspec.field(name="q")
    first_fill_id: int = msgspec.field(name="f")
    last_fill_id: int = msgspec.field(name="l")
    time_ms: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")
    best_match: bool = msgspec.field(name="M", default=True)


class Listing(msgspec.Struct, frozen=True):
    """A spot market as the exchange lists it; increments are decimal texts as in `0.01000000`."""

    base: str
    quote: str
    price_increment: str = "0.00000001"
    amount_increment: str = "0.00000001"

    @property
    def symbol(self) -> str:
        """The unified symbol, `BASE/QUOTE`."""
        return f"{self.base}/{self.quote}"

    @property
    def market_id(self) -> str:
        """The exchange's own id of the market, `BASEQUOTE`."""
        return f"{self.base}{self.quote}"


class Feed(Protocol):
    """The trades of one market: ids rise by one, times never fall; every answer is in id order.

    All bounds are inclusive and in milliseconds; `until` hides what has not happened yet.
    """

    @property
    def listing(self) -> Listing:
        """The market whose trades these are."""
        ...

    def from_id(self, trade_id: int, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the first `limit` trades with at least this id that happened by `until`."""
        ...

    def from_time(self, start: int, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the first `limit` trades at or after `start` that happened by `until`."""
        ...

    def latest(self, *, until: int, limit: int) -> list[AggregateTrade]:
        """Return the last `limit` trades that happened by `until`."""
        ...


def split_symbol(symbol: str) -> tuple[str, str]:
    """Return base and quote of a spot symbol `BASE/QUOTE`; raise `ValueError` for any other text."""
    base, slash, quote = symbol.partition("/")
    if not (
        slash
        and base.isalnum()
        and quote.isalnum()
        and symbol.isascii()
        and symbol == symbol.upper()
    ):
        raise ValueError(f"not a spot symbol: {symbol[:40]!r}; allowed: BASE/QUOTE in capitals")
    return base, quote
