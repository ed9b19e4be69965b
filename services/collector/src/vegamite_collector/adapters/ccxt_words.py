"""Between our words and ccxt's: its constructor's config, its addresses, its errors and its lists of markets."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.ports import ReferenceMarket, SourceError
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import parse_decimal
from vegamite_common.runtime.section import ExchangeSection

REQUEST_TIMEOUT_MS = 10_000
_LONGEST_TEXT = 160


def describe_error(
    exchange: str, error: Exception, *, headers: Mapping[str, Any] | None
) -> SourceError:
    """Return a `SourceError` that says in one short line what ccxt said; `headers` are those of its last REST answer."""
    if isinstance(error, SourceError):
        return error
    text = " ".join(str(error).split()).removeprefix(f"{exchange} ")[:_LONGEST_TEXT]
    name = type(error).__name__
    retry_after = None
    cause = {"RequestTimeout": "timeout", "NetworkError": "socket_closed"}.get(name, "source_error")
    if name in ("DDoSProtection", "RateLimitExceeded") and headers:
        value = next((headers[key] for key in headers if key.lower() == "retry-after"), None)
        if value is not None and str(value).isdigit():
            retry_after = float(value)
    return SourceError(f"{name}: {text}" if text else name, retry_after=retry_after, cause=cause)


def client_config(profile: ExchangeProfile, section: ExchangeSection) -> dict[str, Any]:
    """Return what ccxt's constructor is given: the profile's options under those of the configuration."""
    config: dict[str, Any] = {
        "enableRateLimit": True,
        "timeout": REQUEST_TIMEOUT_MS,
        "options": {**profile.options, **section.options},
    }
    if section.rate_limit is not None:
        config["rateLimit"] = 1000 / section.rate_limit
    for name, secret in (
        ("apiKey", section.api_key),
        ("secret", section.api_secret),
        ("password", section.api_password),
    ):
        if secret is not None:
            config[name] = secret.get_secret_value()
    if section.proxy is not None:
        proxy = section.proxy.get_secret_value()
        socks = proxy.startswith("socks")
        config["socksProxy" if socks else "httpsProxy"] = proxy
        config["wsSocksProxy" if socks else "wssProxy"] = proxy
    return config


def redirect(api: Any, urls: str | Mapping[str, Any], *, exchange: str) -> Any:
    """Return ccxt's `urls['api']` with another base address everywhere, or with a table of addresses laid over it."""
    if isinstance(urls, Mapping):
        return _merge(api, urls)
    base = urlsplit(urls)
    redirected = _rebase(api, host=base.netloc, secure=base.scheme in ("https", "wss"))
    if exchange.startswith("binance"):
        # ccxt tells spot from derivatives by a `/stream` in the socket's address.
        scheme = "wss" if base.scheme in ("https", "wss") else "ws"
        redirected["ws"]["spot"] = f"{scheme}://{base.netloc}/stream/ws"
    return redirected


def _rebase(value: Any, *, host: str, secure: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _rebase(item, host=host, secure=secure) for key, item in value.items()}
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    scheme = "ws" if parts.scheme in ("ws", "wss") else "http"
    return urlunsplit((scheme + "s" * secure, host, parts.path, parts.query, parts.fragment))


def _merge(lower: Any, upper: Any) -> Any:
    if isinstance(lower, Mapping) and isinstance(upper, Mapping):
        return {**lower, **{key: _merge(lower.get(key), value) for key, value in upper.items()}}
    return upper


def reference_market(exchange: str, raw: Mapping[str, Any]) -> ReferenceMarket | None:
    """Return what ccxt says of a market, None where its symbol is none of ours."""
    try:
        market = Market(exchange, str(raw["symbol"]))
        return ReferenceMarket(
            market=market,
            type=str(raw.get("type") or market.parts.type),
            base=str(raw.get("base") or market.parts.base),
            quote=str(raw.get("quote") or market.parts.quote),
            settle=raw.get("settle") or None,
            contract_size=_decimal(raw.get("contractSize")),
            inverse=raw.get("inverse"),
            price_increment=_decimal((raw.get("precision") or {}).get("price")),
            amount_increment=_decimal((raw.get("precision") or {}).get("amount")),
            active=raw.get("active") is not False,
        )
    except (KeyError, ValueError):
        return None


def _decimal(value: Any) -> Decimal | None:
    """Increments: ccxt's tick sizes; a count of decimal places (an integer above 0) isn't one, and is left out."""
    if value is None:
        return None
    try:
        number = parse_decimal(str(value))
    except ValueError:
        return None
    return number if number > 0 else None
