from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_common.domain.market import Contract, Market, SymbolParts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kraken:BTC/USD", SymbolParts("BTC", "USD", None, "spot")),
        ("sim:DEMO/USD", SymbolParts("DEMO", "USD", None, "spot")),
        ("binance:BTC/USDT:USDT", SymbolParts("BTC", "USDT", "USDT", "swap")),
        ("okx:BTC/USD:BTC", SymbolParts("BTC", "USD", "BTC", "swap")),
        ("okx:BTC/USD:BTC-261225", SymbolParts("BTC", "USD", "BTC", "future")),
        ("deribit:BTC/USD:BTC-261225-60000-C", SymbolParts("BTC", "USD", "BTC", "option")),
        ("gate:$MEME/USDT", SymbolParts("$MEME", "USDT", None, "spot")),
        ("mexc:币安人生/USDT", SymbolParts("币安人生", "USDT", None, "spot")),
        ("binance:1000SATS/USDT", SymbolParts("1000SATS", "USDT", None, "spot")),
        ("coinbaseexchange:BTC/USD", SymbolParts("BTC", "USD", None, "spot")),
    ],
)
def test_a_market_is_read_from_its_key_and_knows_its_parts(text: str, parts: SymbolParts) -> None:
    market = Market.parse(text)
    assert market.key == text
    assert market.parts == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kraken",
        ":",
        "kraken:",
        ":BTC/USD",
        "Kraken:BTC/USD",
        "kra ken:BTC/USD",
        "kraken:BTC",
        "kraken:BTC/",
        "kraken:/USD",
        "kraken:BTC/USD/EUR",
        "kraken:BTC/USD:",
        "kraken:BTC/USD:A:B",
        "kraken:BTC /USD",
        "kraken:BTC/USD\n",
        "kraken:BTC/US\x00D",
        "kraken:BTC/USD,ETH/USD",
        "kraken:B\u200bTC/USD",
        "kraken:\ud800/USD",
        "kraken:" + "B" * 41 + "/USD",
        "x" * 33 + ":BTC/USD",
    ],
)
def test_what_names_no_market_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a"):
        Market.parse(text)


codes = st.text(st.characters(categories=["Lu", "Ll", "Nd", "Sc"]), min_size=1, max_size=12)


@given(st.from_regex(r"\A[a-z0-9_]{1,32}\Z"), codes, codes, st.none() | codes)
def test_a_key_gives_its_market_back(
    exchange: str, base: str, quote: str, settle: str | None
) -> None:
    market = Market(exchange, f"{base}/{quote}" + (f":{settle}" if settle else ""))
    assert Market.parse(market.key) == market
    assert (market.parts.base, market.parts.quote, market.parts.settle) == (base, quote, settle)
    market.key.encode()


@given(st.text(max_size=60))
def test_any_text_is_a_market_or_a_value_error(text: str) -> None:
    try:
        market = Market.parse(text)
    except ValueError:
        return
    assert market.key == text
    assert "\x00" not in text
    text.encode()


def test_markets_sort_and_hash_by_exchange_and_symbol() -> None:
    markets = [Market("b", "A/B"), Market("a", "C/D"), Market("a", "A/B"), Market("a", "A/B")]
    assert [m.key for m in sorted(set(markets))] == ["a:A/B", "a:C/D", "b:A/B"]


def test_a_linear_contract_counts_base_units() -> None:
    assert Contract(Decimal("0.01")).volumes(Decimal("60000.5"), Decimal(3)) == (
        Decimal("0.03"),
        Decimal("1800.015"),
    )


def test_an_inverse_contract_counts_quote_units_and_rounds_the_base_volume_alone() -> None:
    base, quote = Contract(Decimal(100), inverse=True).volumes(Decimal("60000.5"), Decimal(3))
    assert quote == Decimal(300)
    assert Fraction(base) == Fraction(round(Fraction(300) / Fraction("60000.5") * 10**18), 10**18)


@pytest.mark.parametrize("size", ["0", "-1", "NaN", "sNaN", "Infinity", "1e30", "1e-31"])
def test_a_contract_without_a_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="contract size"):
        Contract(Decimal(size))
