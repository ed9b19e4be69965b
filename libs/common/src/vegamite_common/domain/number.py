"""Exact decimals: how prices, amounts and their sums are read, added and written.

Sums and products are computed in `EXACT`, which has room for 200 digits and raises instead of rounding.
Only quotients are rounded, by `quotient`, to 18 decimals, half to even.
"""

from decimal import (
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)

MAX_DIGITS = 30
"""Most digits that one price, amount or contract size may have before the point, and most after it.

So the product of three has at most 180, and `EXACT` has room to add up 10**20 of them.
"""

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
_LIMITS = Context(prec=2 * MAX_DIGITS, traps=[Inexact, InvalidOperation, Overflow], flags=[])
FINEST = Decimal(1).scaleb(-MAX_DIGITS)
at_finest = _LIMITS.quantize
"""`at_finest(value, FINEST)` writes a number with 30 decimals; raises `ArithmeticError` where it is infinite or has too many digits.

The quickest test of a number's size; NaN comes back as it is, and fails the next comparison.
"""
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
    """Return the canonical decimal that `text` states; raise `ValueError` unless it is a finite number within `MAX_DIGITS`."""
    try:
        if "_" in text or text != text.strip() or not text.isascii():
            raise ValueError
        value = Decimal(text)
        at_finest(value, FINEST)
        return canonical(value)
    except (ArithmeticError, ValueError):
        raise ValueError(
            f"not a decimal number of at most {MAX_DIGITS} digits before and after the point: {text[:80]!r}"
        ) from None


def format_decimal(value: Decimal) -> str:
    """Return the canonical text of a finite number: no exponent, no trailing zeros, `0` for zero."""
    text = str(value)
    if "E" in text:
        text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def is_canonical(value: Decimal) -> bool:
    """Return whether Python prints the number as `format_decimal` does: no exponent, no trailing zeros."""
    text = str(value)
    return "E" not in text and not (text[-1] == "0" and "." in text) and text != "-0"


def quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    """Return dividend / divisor, rounded half to even to 18 decimals, canonical; raise `ZeroDivisionError` for a zero divisor."""
    if not divisor:
        raise ZeroDivisionError(f"{dividend} / {divisor}")
    return canonical(_QUOTIENT.quantize(_QUOTIENT.divide(dividend, divisor), _QUOTIENT_UNIT))
