"""ccxt's client of one exchange, made to collect: see `collecting_class`."""

from typing import Any

from vegamite_collector.adapters.ccxt_connection import (
    CollectingConnection,
    Foreign,
    TradeHook,
    Wiring,
    current_feed,
    decode_frame,
)
from vegamite_collector.adapters.ccxt_feed import FeedMap
from vegamite_collector.adapters.ccxt_modules import load_exchange_class
from vegamite_collector.adapters.ccxt_quirks import acknowledged_symbols


def collecting_class(exchange: str) -> type[Any]:
    """Return ccxt's streaming class of the exchange with `CollectingExchange` mixed in; built with a config and a `Wiring`.

    Raises `UnsupportedExchangeError` where ccxt streams nothing of the exchange.
    """
    base = load_exchange_class(exchange)
    from ccxt.async_support.base.ws.cache import ArrayCache
    from ccxt.async_support.base.ws.client import Client

    parts = {
        "hook_class": type("Hook", (TradeHook, ArrayCache), {}),
        "connection_class": type("Connection", (CollectingConnection, Client), {}),
    }
    return type(f"Collecting_{exchange}", (CollectingExchange, base), parts)


class CollectingExchange(Foreign):  # type: ignore[misc]
    """Mixed into an exchange of ccxt: our hook, our connections, exact numbers, and no frame that ends a connection."""

    hook_class: type[Any]
    connection_class: type[Any]

    def __init__(self, config: dict[str, Any], wiring: Wiring) -> None:
        super().__init__(config)
        self.wiring = wiring
        self.number = str
        self.parsed_count = 0
        self.trades = FeedMap(lambda symbol: self.hook_class(symbol, wiring.feeds))

    def on_json_response(self, response_body: str) -> Any:
        """Decode a REST answer; number literals stay text."""
        return decode_frame(response_body)

    def client(self, url: str) -> Any:
        """Return the connection to `url`, ours, and note which feed asked for it."""
        feed = current_feed.get()
        if feed is not None:
            feed.url = url
        found = super().client(url)
        if not isinstance(found, CollectingConnection):
            self.clients[url] = found = self.connection_class(found, self.wiring)
        return found

    def ws_dial_delay(self, url: str) -> float:  # noqa: ARG002 -- ccxt's signature
        """Never wait: the sessions' own backoff has jitter, and is the only one."""
        return 0

    def parse_trades(self, trades: Any, market: Any = None, *_: Any, **__: Any) -> list[Any]:
        """Parse without filtering: ccxt drops what lies before `since`, and a full page would no longer look full."""
        self.parsed_count = len(trades)
        return list(super().parse_trades(trades, market))

    def handle_message(self, client: Any, message: Any) -> None:
        """Let ccxt handle a frame; whatever goes wrong is reported, and the connection goes on."""
        wiring = self.wiring
        try:
            super().handle_message(client, message)
        except Exception as error:  # noqa: BLE001 -- foreign code over foreign bytes may raise anything
            wiring.on_bad_frame("unhandled", f"{type(error).__name__}: {error}"[:200])
            for feed in wiring.feeds.of_connection(client.url):
                feed.lose("unhandled_frame", type(error).__name__)
        for symbol in acknowledged_symbols(self.id, client.subscriptions, message):
            acknowledged = wiring.feeds.get(symbol)
            if acknowledged is not None:
                acknowledged.acknowledge(wiring.clock.now())
        wiring.feeds.end_frame()
