"""What trades, and where: `Market`, the parts of its symbol, and the terms of a contract."""

import re
from decimal import Decimal

import msgspec

from vegamite_common.domain.number import EXACT, FINEST, at_finest, quotient

_EXCHANGE = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)
_CODE = r"[A-Za-z0-9$@._+!&|*#()'~-]{1,40}|[^\x00-\x20\x7f:/,\s]{1,40}"
_SYMBOL = re.compile(rf"({_CODE})/({_CODE})(?::({_CODE}))?")


class SymbolParts(msgspec.Struct, frozen=True):
    """The parts of a unified symbol: `BTC/USDT:USDT-261225` has base BTC, quote USDT, settle USDT and an expiry."""

    base: str
    quote: str
    settle: str | None
    type: str
    """`spot`, `swap`, `future` or `option`, as far as the symbol alone says it."""


class Market(msgspec.Struct, frozen=True, order=True):
    """One market: a ccxt exchange id and ccxt's unified symbol; raises `ValueError` when either has an impossible form."""

    exchange: str
    symbol: str

    def __post_init__(self) -> None:
        if not _EXCHANGE.fullmatch(self.exchange):
            raise ValueError(
                f"not an exchange id: {self.exchange[:40]!r}; allowed: lower-case letters, digits and _"
            )
        if (
            len(self.symbol) > 100
            or not _SYMBOL.fullmatch(self.symbol)
            or not self.symbol.isprintable()
        ):
            raise ValueError(
                f"not a unified symbol: {self.symbol[:60]!r}; allowed: BASE/QUOTE or BASE/QUOTE:SETTLE"
            )

    @classmethod
    def parse(cls, text: str) -> "Market":
        """Return the market that `exchange:SYMBOL` names; raise `ValueError` where it names none."""
        exchange, colon, symbol = text.partition(":")
        if not colon:
            raise ValueError(
                f"not a market: {text[:60]!r}; allowed: exchange:SYMBOL, as in kraken:BTC/USD"
            )
        return cls(exchange, symbol)

    @property
    def key(self) -> str:
        """`exchange:SYMBOL`: the market's name for people, and its key in the log."""
        return f"{self.exchange}:{self.symbol}"

    @property
    def parts(self) -> SymbolParts:
        """Base, quote, settle currency and type, read from the symbol."""
        base, _, rest = self.symbol.partition("/")
        quote, _, settlement = rest.partition(":")
        settle, *terms = settlement.split("-") if settlement else ("",)
        kind = (
            "spot" if not settlement else ("swap", "future", "option", "option")[min(len(terms), 3)]
        )
        return SymbolParts(base=base, quote=quote, settle=settle or None, type=kind)


class Contract(msgspec.Struct, frozen=True):
    """Terms of a derivative: `size` units of base (quote, where inverse) a contract; raises `ValueError` unless size > 0."""

    size: Decimal
    inverse: bool = False

    def __post_init__(self) -> None:
        try:
            possible = at_finest(self.size, FINEST) > 0
        except ArithmeticError:
            possible = False
        if not possible:
            raise ValueError(f"contract size must be above 0, not {str(self.size)[:80]}")

    def volumes(self, price: Decimal, amount: Decimal) -> tuple[Decimal, Decimal]:
        """Return (base volume, quote volume) of `amount` contracts at `price`; only an inverse base volume is rounded."""
        units = EXACT.multiply(amount, self.size)
        if self.inverse:
            return quotient(units, price), units
        return units, EXACT.multiply(units, price)
