"""`CcxtSource`: one exchange as a source of trades, through the real ccxt client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import structlog

from vegamite_collector.adapters.ccxt_client import collecting_class
from vegamite_collector.adapters.ccxt_connection import Wiring, current_feed
from vegamite_collector.adapters.ccxt_feed import AHEAD_SECONDS, Feed, Feeds, Gate
from vegamite_collector.core.normalise import SyntheticIds, normalise
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.core.repair import Page, PageRequest
from vegamite_collector.ports import (
    ReferenceMarket,
    SourceError,
    SourceEvent,
    UnknownSymbolError,
    UnsupportedExchangeError,
)
from vegamite_common.domain.market import Market
from vegamite_common.domain.number import parse_decimal
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.section import ExchangeSection

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_MS = 10_000
_LONGEST_TEXT = 160


class CcxtSource:
    """One exchange through ccxt; its connections are opened when they are first needed.

    `on_bad_frame(kind, text)` is told of each frame that couldn't be used. At most `queue_limit` trades wait to be taken.
    """

    def __init__(
        self,
        exchange: str,
        *,
        profile: ExchangeProfile,
        section: ExchangeSection,
        clock: Clock,
        on_bad_frame: Callable[[str, str], None],
        queue_limit: int,
    ) -> None:
        self.profile = profile
        self._clock = clock
        gate = Gate(queue_limit)
        self._feeds = Feeds(lambda symbol: Feed(symbol, profile=profile, clock=clock, gate=gate))
        wiring = Wiring(clock=clock, feeds=self._feeds, gate=gate, on_bad_frame=on_bad_frame)
        self._client = collecting_class(exchange)(client_config(profile, section), wiring)
        if not self._client.has.get("watchTrades"):
            raise UnsupportedExchangeError(
                f"{exchange}: ccxt knows no stream of trades for this exchange"
            )
        if section.urls is not None:
            self._client.urls["api"] = redirect(
                self._client.urls["api"], section.urls, exchange=exchange
            )

    @asynccontextmanager
    async def stream(self, symbol: str) -> AsyncIterator[AsyncIterator[SourceEvent]]:
        """Subscribe for as long as the block lasts; see `TradeSource`."""
        feed = self._feeds.open(symbol)
        holding = asyncio.create_task(
            self._hold(feed), name=f"subscription {self.profile.exchange}:{symbol}"
        )
        try:
            yield _events(feed)
        finally:
            holding.cancel()
            with suppress(asyncio.CancelledError):
                await holding
            self._feeds.close(feed)
            await self._leave(feed)

    async def _hold(self, feed: Feed) -> None:
        """Keep the subscription: the watch call returns only by an error, since our connections never resolve it."""
        current_feed.set(feed)
        try:
            await self._require(feed.symbol)
            while True:
                await self._client.watch_trades(
                    feed.symbol, None, None, dict(self.profile.stream_params)
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # ccxt cancels the futures of a connection that it closes.
            feed.fail(SourceError("the connection was closed", cause="socket_closed"))
        except SourceError as error:
            feed.fail(error)
        except Exception as error:  # noqa: BLE001 -- foreign code over a network: whatever it raises, the subscription has ended
            feed.fail(self._source_error(error))

    async def _require(self, symbol: str) -> None:
        await self._load_markets()
        if symbol not in self._client.markets:
            raise UnknownSymbolError(
                f"{self.profile.exchange} lists no market {symbol}",
                known=tuple(self._client.markets),
            )

    async def _leave(self, feed: Feed) -> None:
        """Close the connection that the feed was alone on; else take the symbol off it."""
        if feed.url is None:
            return
        connection = self._client.clients.get(feed.url)
        if connection is None:
            return
        if self._feeds.of_connection(feed.url):
            with suppress(Exception):
                async with asyncio.timeout(2):
                    await self._client.un_watch_trades(
                        feed.symbol, dict(self.profile.stream_params)
                    )
            return
        del self._client.clients[feed.url]
        connection.error = connection.error or SourceError("closed by us")
        await connection.close()

    async def fetch(self, symbol: str, request: PageRequest) -> Page:
        """Return one page of history; see `TradeSource`."""
        asked_time = self._clock.now()
        params: dict[str, Any] = dict(self.profile.history_params)
        since = None
        if request.from_id is not None:
            params["fromId"] = request.from_id
        elif request.since is not None:
            since = (request.since - self.profile.since_margin) // 1000
            if request.until is not None:
                params["until"] = request.until // 1000 - 1
        try:
            await self._require(symbol)
            raw = await self._client.fetch_trades(symbol, since, request.limit, params)
            sent = max(self._client.parsed_count, len(raw)) if raw else 0
        except SourceError:
            raise
        except Exception as error:
            raise self._source_error(error) from error
        arrived = normalise(
            raw,
            profile=self.profile,
            received_time=self._clock.now(),
            ahead_limit=self._clock.span(AHEAD_SECONDS),
            synthetic_ids=SyntheticIds(),
        )
        return Page(arrived.trades, sent, asked_time, len(arrived.quarantined))

    async def markets(self, *, reload: bool = False) -> Sequence[ReferenceMarket]:
        """Return every market that the exchange lists; see `TradeSource`."""
        try:
            await self._load_markets(reload=reload)
        except Exception as error:
            raise self._source_error(error) from error
        rows = (
            reference_market(self.profile.exchange, raw) for raw in self._client.markets.values()
        )
        return [row for row in rows if row is not None]

    async def _load_markets(self, *, reload: bool = False) -> None:
        if reload or not self._client.markets:
            await self._client.load_markets(reload)

    async def close(self) -> None:
        """End all connections."""
        with suppress(Exception):
            await self._client.close()

    def _source_error(self, error: Exception) -> SourceError:
        return describe_error(
            self.profile.exchange, error, headers=self._client.last_response_headers
        )


async def _events(feed: Feed) -> AsyncIterator[SourceEvent]:
    while True:
        yield await feed.next()


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
