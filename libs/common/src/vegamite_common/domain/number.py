"""Exact decimals: how prices, amounts and their sums are read, added and written.

Sums and products are computed in `EXACT`, which has room for 200 digits and raises instead of rounding.
Only quotients are rounded, by `quotient`, to 18 decimals, half to even.
"""

from decimal import (
    ROUND_HALF_EVEN,
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)

MAX_DIGITS = 60
"""Most digits that one price or amount may have, before and after the point together."""

QUOTIENT_DECIMALS = 18

EXACT = Context(
    prec=200,
    rounding=ROUND_HALF_EVEN,
    traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, Underflow, FloatOperation],
    flags=[],
)
"""Context for sums and products: 200 digits; raises `decimal.Inexact` rather than round."""

_QUOTIENT = Context(
    prec=400, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow], flags=[]
)
_QUOTIENT_UNIT = Decimal(1).scaleb(-QUOTIENT_DECIMALS)
_PARSE = Context(
    prec=MAX_DIGITS, traps=[Inexact, InvalidOperation, Overflow, Underflow, Clamped], flags=[]
)
_NORMALIZE = Context(prec=400, traps=[InvalidOperation, Inexact], flags=[])

ZERO = Decimal(0)


def canonical(value: Decimal) -> Decimal:
    """Return the same finite number without exponent and trailing zeros; raise `ValueError` for NaN and infinities."""
    if not value.is_finite():
        raise ValueError(f"not a finite number: {value}")
    if not value:
        return ZERO
    reduced = _NORMALIZE.normalize(value)
    exponent = reduced.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        return _NORMALIZE.quantize(reduced, Decimal(1))
    return reduced


def parse_decimal(text: str) -> Decimal:
    """Return the canonical decimal that `text` states; raise `ValueError` unless it is a finite number of at most 60 digits."""
    try:
        if "_" in text or text != text.strip() or not text.isascii():
            raise ValueError
        value = _PARSE.create_decimal(text)
        if not value.is_finite() or abs(value.adjusted()) > MAX_DIGITS:
            raise ValueError
        value = canonical(value)
        digits = value.as_tuple()
    except (ArithmeticError, ValueError):
        raise ValueError(
            f"not a decimal number of at most {MAX_DIGITS} digits: {text[:80]!r}"
        ) from None
    if len(digits.digits) > MAX_DIGITS or -int(digits.exponent) > MAX_DIGITS:
        raise ValueError(f"not a decimal number of at most {MAX_DIGITS} digits: {text[:80]!r}")
    return value


def format_decimal(value: Decimal) -> str:
    """Return the canonical text of a finite number: no exponent, no trailing zeros, `0` for zero."""
    text = str(value)
    if "E" in text:
        text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    """Return dividend / divisor, rounded half to even to 18 decimals, canonical; raise `ZeroDivisionError` for a zero divisor."""
    return canonical(_QUOTIENT.quantize(_QUOTIENT.divide(dividend, divisor), _QUOTIENT_UNIT))
