"""Binance's spot REST protocol, as far as market data goes: `exchangeInfo`, `aggTrades`, `time` and `ping`.

Of `aggTrades`, as Binance documents it (since 2022 without the limit of one hour): bounds are inclusive; `startTime`,
alone or with `endTime`, gives trades from there upwards; `endTime` alone and no bound at all give the newest; `fromId`
goes upwards and can't be combined with times; `limit` is 500 unless said otherwise, and never above 1,000.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from vegamite_common.testing.fake_exchange.feed import FOREVER_MS, AggregateTrade, Feed, Listing

DEFAULT_LIMIT = 500
MAX_LIMIT = 1000
_SYMBOL_RANGE = "^[A-Z0-9-_.]{1,20}$"
_NUMBER_RANGE = "^[0-9]{1,20}$"


class RestError(Exception):
    """An error object of the protocol: HTTP status, Binance's code and its message."""

    def __init__(self, code: int, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        return {"code": self.code, "msg": self.text}


class RestApi:
    """Answers one request at a time from the feeds; `now` gives the exchange's time, `visible` the newest known, in ms."""

    def __init__(
        self, feeds: Mapping[str, Feed], *, now: Callable[[], int], visible: Callable[[], int]
    ) -> None:
        self._feeds = feeds
        self._now = now
        self._visible = visible
        self._endpoints: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "ping": self._ping,
            "time": self._time,
            "exchangeInfo": self._exchange_info,
            "aggTrades": self._aggregate_trades,
        }

    def knows(self, endpoint: str) -> bool:
        """Return whether `/api/v3/<endpoint>` exists."""
        return endpoint in self._endpoints

    def answer(self, endpoint: str, query: Mapping[str, str]) -> bytes:
        """Return the JSON body for a GET of a known endpoint; raise `RestError` for what the exchange refuses."""
        return msgspec.json.encode(self._endpoints[endpoint](query))

    def _ping(self, query: Mapping[str, str]) -> dict[str, Any]:
        _refuse_others(query, set())
        return {}

    def _time(self, query: Mapping[str, str]) -> dict[str, Any]:
        _refuse_others(query, set())
        return {"serverTime": self._now()}

    def _exchange_info(self, query: Mapping[str, str]) -> dict[str, Any]:
        _refuse_others(
            query, {"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"}
        )
        wanted = list(self._feeds)
        if "symbol" in query:
            wanted = [query["symbol"]]
        elif "symbols" in query:
            wanted = _symbol_list(query["symbols"])
        return {
            "timezone": "UTC",
            "serverTime": self._now(),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": 6000,
                },
                {
                    "rateLimitType": "RAW_REQUESTS",
                    "interval": "MINUTE",
                    "intervalNum": 5,
                    "limit": 61000,
                },
            ],
            "exchangeFilters": [],
            "symbols": [_describe(self._feed(market_id).listing) for market_id in wanted],
        }

    def _aggregate_trades(self, query: Mapping[str, str]) -> list[AggregateTrade]:
        _refuse_others(query, {"symbol", "fromId", "startTime", "endTime", "limit"})
        feed = self._feed(query.get("symbol", ""))
        limit = _number(query, "limit")
        if limit == 0:
            raise RestError(-1130, "Data sent for parameter 'limit' is not valid.")
        limit = min(limit or DEFAULT_LIMIT, MAX_LIMIT)
        from_id, start, end = (_number(query, name) for name in ("fromId", "startTime", "endTime"))
        until = min(self._visible(), FOREVER_MS if end is None else end)
        if from_id is not None:
            if start is not None or end is not None:
                raise RestError(-1128, "Combination of optional parameters invalid.")
            return feed.from_id(from_id, until=until, limit=limit)
        if start is not None:
            return feed.from_time(start, until=until, limit=limit)
        return feed.latest(until=until, limit=limit)

    def _feed(self, market_id: str) -> Feed:
        if not market_id:
            raise RestError(
                -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        if not re.fullmatch(r"[A-Z0-9\-_.]{1,20}", market_id):
            raise RestError(
                -1100,
                f"Illegal characters found in parameter 'symbol'; legal range is '{_SYMBOL_RANGE}'.",
            )
        feed = self._feeds.get(market_id)
        if feed is None:
            raise RestError(-1121, "Invalid symbol.")
        return feed


def _refuse_others(query: Mapping[str, str], known: set[str]) -> None:
    read = len(known & set(query))
    if read < len(query):
        raise RestError(
            -1104,
            f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(query)}'.",
        )


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise RestError(
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '{_NUMBER_RANGE}'.",
        )
    return min(int(text), FOREVER_MS)


def _symbol_list(text: str) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        raise RestError(-1100, "Illegal characters found in parameter 'symbols'.") from None


def _describe(listing: Listing) -> dict[str, Any]:
    """Return a market's entry in `exchangeInfo`."""
    return {
        "symbol": listing.market_id,
        "status": "TRADING",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": listing.price_increment,
                "maxPrice": "1000000.00000000",
                "tickSize": listing.price_increment,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": listing.amount_increment,
                "maxQty": "90000000.00000000",
                "stepSize": listing.amount_increment,
            },
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
