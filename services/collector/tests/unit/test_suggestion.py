"""What may have been meant."""

from vegamite_collector.core.suggestion import suggest_symbols

KNOWN = ["BTC/USDT", "BTC/USDC", "BTC/EUR", "ETH/USDT", "BTC/USDT:USDT", "WBTC/BTC"]


def test_the_same_base_comes_first_and_derivatives_not() -> None:
    assert suggest_symbols("BTC/USD", KNOWN)[:2] in (
        ("BTC/USDT", "BTC/USDC"),
        ("BTC/USDC", "BTC/USDT"),
    )
    assert "BTC/USDT:USDT" not in suggest_symbols("BTC/GBP", KNOWN, limit=3)


def test_case_is_no_obstacle() -> None:
    assert suggest_symbols("btc/usdt", KNOWN)[0] == "BTC/USDT"


def test_nothing_alike_suggests_nothing() -> None:
    assert suggest_symbols("QQQQ/ZZZZ", KNOWN) == ()


def test_never_more_than_asked_for() -> None:
    assert len(suggest_symbols("BTC/USD", KNOWN, limit=2)) == 2
