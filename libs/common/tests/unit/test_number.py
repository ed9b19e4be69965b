from decimal import Decimal, Inexact, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vegamite_common.domain.number import (
    EXACT,
    FINEST,
    MAX_DIGITS,
    at_finest,
    canonical,
    format_decimal,
    is_canonical,
    parse_decimal,
    quotient,
)

digits = st.text("0123456789", min_size=1, max_size=MAX_DIGITS)
plain_texts = st.builds(
    lambda sign, whole, fraction: sign + whole + ("." + fraction if fraction else ""),
    st.sampled_from(["", "-"]),
    digits,
    st.text("0123456789", max_size=MAX_DIGITS),
)
numbers = plain_texts.map(parse_decimal)


@pytest.mark.parametrize(
    ("text", "canonical_text"),
    [
        ("1", "1"),
        ("1.10", "1.1"),
        ("1.000", "1"),
        ("100", "100"),
        ("0100.0", "100"),
        ("+3", "3"),
        ("-0", "0"),
        ("-0.000", "0"),
        ("0e-400", "0"),
        ("1e3", "1000"),
        ("1E-7", "0.0000001"),
        ("12345678901234567890.12345678", "12345678901234567890.12345678"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1" + "0" * 29, "1" + "0" * 29),
        ("0." + "0" * 29 + "1", "0." + "0" * 29 + "1"),
        ("1." + "0" * 200, "1"),
    ],
)
def test_a_number_is_read_exactly_and_written_canonically(text: str, canonical_text: str) -> None:
    assert format_decimal(parse_decimal(text)) == canonical_text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1 ",
        " 1",
        "1\n",
        "one",
        "1,5",
        "1_000",
        "0x10",
        "1.2.3",
        "--1",
        "1e",
        "NaN",
        "sNaN",
        "-Infinity",
        "inf",
        "1e30",
        "1" + "0" * 30,
        "1e-31",
        "0." + "1" * 31,
        "1e999999999999999999999",
        "1e-999999999999999999999",
        "١٢",
        "½",
        "\x00",
    ],
)
def test_what_is_no_number_or_too_large_or_too_fine_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        parse_decimal(text)


@given(st.text(max_size=40))
@example("1e5_0")
@example("0" * 10_000)
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    try:
        value = parse_decimal(text)
    except ValueError:
        return
    assert value.is_finite()
    assert parse_decimal(format_decimal(value)) == value


@given(plain_texts)
def test_parsing_keeps_the_value_and_has_one_form(text: str) -> None:
    value = parse_decimal(text)
    assert Fraction(value) == Fraction(text)
    written = format_decimal(value)
    assert "E" not in written
    assert not ("." in written and written.endswith("0"))
    again = parse_decimal(written)
    assert (again.as_tuple(), format_decimal(again)) == (value.as_tuple(), written)


@given(numbers, st.integers(0, 20))
def test_equal_numbers_have_one_canonical_form(value: Decimal, zeros: int) -> None:
    longer = EXACT.multiply(value, Decimal(1).quantize(Decimal(1).scaleb(-zeros)))
    padded = Decimal(f"{value:f}" + ("" if "." in f"{value:f}" else ".") + "0" * zeros)
    for same in (longer, padded):
        assert canonical(same).as_tuple() == canonical(value).as_tuple()
        assert format_decimal(same) == format_decimal(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1E+5", "100000"), ("-2.50E+3", "-2500"), ("1E-9", "0.000000001"), ("0E+9", "0")],
)
def test_no_exponent_is_ever_written(value: str, expected: str) -> None:
    assert format_decimal(Decimal(value)) == expected


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=10, min_value=-(10**20), max_value=10**20
    )
)
def test_a_number_is_canonical_exactly_when_it_is_written_as_it_is(value: Decimal) -> None:
    assert is_canonical(value) == (str(value) == format_decimal(value))
    plain = canonical(value)
    assert is_canonical(plain) == ("E" not in str(plain))


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_nothing_that_is_not_finite_becomes_canonical(value: str) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        canonical(Decimal(value))


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=30))
def test_sums_of_products_are_exact_in_any_order(
    rows: list[tuple[Decimal, Decimal, Decimal]],
) -> None:
    def total(ordered: list[tuple[Decimal, Decimal, Decimal]]) -> Decimal:
        result = Decimal(0)
        for price, amount, size in ordered:
            result = EXACT.add(result, EXACT.multiply(EXACT.multiply(price, amount), size))
        return result

    expected = sum((Fraction(a) * Fraction(b) * Fraction(c) for a, b, c in rows), Fraction(0))
    assert Fraction(total(rows)) == expected
    assert total(rows[::-1]) == total(rows)


def test_the_exact_context_raises_rather_than_rounds() -> None:
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))
    with pytest.raises(Inexact):
        EXACT.add(Decimal("1e150"), Decimal("1e-150"))


def test_the_surrounding_context_changes_nothing() -> None:
    with localcontext() as surrounding:
        surrounding.prec = 3
        value = parse_decimal("12345.678900")
        assert format_decimal(value) == "12345.6789"
        assert format_decimal(EXACT.multiply(value, value)) == "152415787.50190521"
        assert format_decimal(quotient(Decimal(2), Decimal(3))) == "0.666666666666666667"


@pytest.mark.parametrize(
    ("dividend", "divisor", "expected"),
    [
        ("1", "3", "0.333333333333333333"),
        ("2", "3", "0.666666666666666667"),
        ("10", "4", "2.5"),
        ("0", "7", "0"),
        ("-1", "3", "-0.333333333333333333"),
        ("1", "2000000000000000000", "0"),
        ("3", "2000000000000000000", "0.000000000000000002"),
        ("5", "2000000000000000000", "0.000000000000000002"),
        ("1e29", "1e-30", "1" + "0" * 59),
    ],
)
def test_quotients_round_half_to_even_at_18_decimals(
    dividend: str, divisor: str, expected: str
) -> None:
    assert format_decimal(quotient(Decimal(dividend), Decimal(divisor))) == expected


@given(numbers, numbers.filter(bool))
def test_a_quotient_is_the_nearest_multiple_of_10_to_minus_18(
    dividend: Decimal, divisor: Decimal
) -> None:
    unit = Fraction(1, 10**18)
    exact = Fraction(dividend) / Fraction(divisor)
    assert Fraction(quotient(dividend, divisor)) == round(exact / unit) * unit


@pytest.mark.parametrize("dividend", ["0", "1", "-1"])
def test_nothing_is_divided_by_zero(dividend: str) -> None:
    with pytest.raises(ZeroDivisionError):
        quotient(Decimal(dividend), Decimal(0))


@pytest.mark.parametrize("text", ["1e30", "1e-31", "Infinity", "sNaN", "1e999999", "-1e30"])
def test_too_large_or_too_fine_a_number_has_no_finest_form(text: str) -> None:
    with pytest.raises(ArithmeticError):
        at_finest(Decimal(text), FINEST)
