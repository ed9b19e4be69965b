"""What single exchanges say in their own way, and ccxt doesn't pass on."""

from collections.abc import Mapping
from typing import Any


def acknowledged_symbols(
    exchange: str, subscriptions: Mapping[str, Any], message: Any
) -> list[str]:
    """Return the symbols whose subscription this message acknowledges; `subscriptions` are the ccxt client's own."""
    if not isinstance(message, Mapping):
        return []
    if exchange.startswith("binance"):
        return _binance(subscriptions, message)
    if exchange == "kraken":
        return _kraken(message)
    return []


def _binance(subscriptions: Mapping[str, Any], message: Mapping[str, Any]) -> list[str]:
    if message.get("id") is None or "result" not in message or message["result"] is not None:
        return []
    asked = str(message["id"])
    return [
        name.rpartition("::")[2]
        for name, subscription in subscriptions.items()
        if name.startswith("trade::")
        and isinstance(subscription, Mapping)
        and str(subscription.get("id")) == asked
    ]


def _kraken(message: Mapping[str, Any]) -> list[str]:
    result = message.get("result")
    if (
        message.get("method") != "subscribe"
        or message.get("success") is not True
        or not isinstance(result, Mapping)
    ):
        return []
    symbol = result.get("symbol")
    return [symbol] if result.get("channel") == "trade" and isinstance(symbol, str) else []
