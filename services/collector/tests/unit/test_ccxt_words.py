"""Between our words and ccxt's."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from vegamite_collector.adapters.ccxt_quirks import acknowledged_symbols
from vegamite_collector.adapters.ccxt_words import (
    client_config,
    describe_error,
    redirect,
    reference_market,
)
from vegamite_collector.core.profile import profile_for
from vegamite_collector.ports import SourceError
from vegamite_common.runtime.section import ExchangeSection


class RateLimitExceeded(Exception):  # noqa: N818 -- ccxt's name
    """As ccxt raises it."""


def test_one_base_address_replaces_every_host_and_keeps_paths() -> None:
    api = {
        "public": "https://api.kraken.com/0",
        "ws": {"v2": "wss://ws.kraken.com/v2", "n": 3},
        "template": "https://{hostname}/x",
    }
    assert redirect(api, "http://127.0.0.1:99", exchange="kraken") == {
        "public": "http://127.0.0.1:99/0",
        "ws": {"v2": "ws://127.0.0.1:99/v2", "n": 3},
        "template": "http://127.0.0.1:99/x",
    }


def test_a_redirected_binance_is_still_told_to_be_spot() -> None:
    api = {
        "ws": {"spot": "wss://stream.binance.com:9443/ws", "future": "wss://fstream.binance.com/ws"}
    }
    assert (
        redirect(api, "http://127.0.0.1:99", exchange="binance")["ws"]["spot"]
        == "ws://127.0.0.1:99/stream/ws"
    )


def test_a_table_of_addresses_is_laid_over_the_clients_own() -> None:
    api = {"public": "a", "ws": {"spot": "b", "future": "c"}}
    assert redirect(api, {"ws": {"spot": "x"}}, exchange="binance") == {
        "public": "a",
        "ws": {"spot": "x", "future": "c"},
    }


def test_the_configurations_options_lie_over_the_profiles() -> None:
    section = ExchangeSection(
        options={"fetchMarkets": {"types": ["linear"]}},
        rate_limit=20,
        api_key=SecretStr("k"),
        proxy=SecretStr("socks5://localhost:1"),
    )
    config = client_config(profile_for("binance"), section)
    assert config["options"]["fetchMarkets"] == {"types": ["linear"]}
    assert config["rateLimit"] == 50
    assert config["apiKey"] == "k"
    assert config["socksProxy"] == "socks5://localhost:1"
    assert config["enableRateLimit"] is True


def test_an_error_is_one_short_line_and_keeps_the_time_to_wait() -> None:
    error = describe_error(
        "binance",
        RateLimitExceeded("binance 429 Too\nmany " + "x" * 900),
        headers={"retry-after": "7"},
    )
    assert error.retry_after == 7
    assert str(error).startswith("RateLimitExceeded: 429 Too many")
    assert len(str(error)) < 200
    assert "\n" not in str(error)
    known = SourceError("x")
    assert describe_error("binance", known, headers=None) is known


@pytest.mark.parametrize(
    ("precision", "increment"),
    [
        ("0.01", Decimal("0.01")),
        ("1e-8", Decimal("0.00000001")),
        (None, None),
        ("0", None),
        ("x", None),
    ],
)
def test_reference_data_is_exact(precision: Any, increment: Decimal | None) -> None:
    raw = {
        "symbol": "BTC/USDT:USDT",
        "type": "swap",
        "base": "BTC",
        "quote": "USDT",
        "settle": "USDT",
        "contractSize": "0.001",
        "inverse": False,
        "active": None,
        "precision": {"price": precision},
    }
    market = reference_market("binance", raw)
    assert market is not None
    assert market.price_increment == increment
    assert market.contract_size == Decimal("0.001")
    assert market.active


def test_a_symbol_that_is_none_of_ours_is_left_out() -> None:
    assert reference_market("binance", {"symbol": "odd symbol"}) is None
    assert reference_market("binance", {}) is None


@pytest.mark.parametrize(
    ("message", "symbols"),
    [
        ({"result": None, "id": 3}, ["BTC/USDT"]),
        ({"result": None, "id": 4}, []),
        ({"result": [], "id": 3}, []),
        ({"id": 3}, []),
        ({"e": "aggTrade"}, []),
        ([1], []),
        ("text", []),
        (None, []),
    ],
)
def test_binances_answer_names_the_request(message: Any, symbols: list[str]) -> None:
    subscriptions = {
        "trade::BTC/USDT": {"id": 3},
        "ticker::ETH/USDT": {"id": 3},
        "trade::X/Y": True,
    }
    assert acknowledged_symbols("binance", subscriptions, message) == symbols


@pytest.mark.parametrize(
    ("message", "symbols"),
    [
        (
            {
                "method": "subscribe",
                "success": True,
                "result": {"channel": "trade", "symbol": "BTC/USD"},
            },
            ["BTC/USD"],
        ),
        ({"method": "subscribe", "success": False, "error": "x"}, []),
        (
            {
                "method": "subscribe",
                "success": True,
                "result": {"channel": "book", "symbol": "BTC/USD"},
            },
            [],
        ),
        ({"method": "pong"}, []),
    ],
)
def test_krakens_answer_names_the_symbol(message: Any, symbols: list[str]) -> None:
    assert acknowledged_symbols("kraken", {}, message) == symbols


def test_other_exchanges_say_nothing_that_is_known() -> None:
    assert acknowledged_symbols("okx", {}, {"event": "subscribe"}) == []
