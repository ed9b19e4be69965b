"""The control messages of Binance's WebSocket streams, as pure code: a text in, the new state and the answer out."""

import re
from typing import Any

import msgspec

from vegamite_common.testing.fake_exchange.feed import AggregateTrade

MAX_STREAMS = 1024
STREAM_SUFFIX = "@aggTrade"
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_METHOD_LIST = ", ".join(f"`{method}`" for method in _METHODS)


class RequestError(Exception):
    """A control message that the exchange refuses: its code and message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Subscriptions:
    """What one socket has asked for: its streams in the order they were asked for, and the form of its frames."""

    def __init__(self, *, combined: bool) -> None:
        self.combined = combined
        self.streams: dict[str, None] = {}

    def handle(self, text: str) -> tuple[bytes, list[str]]:
        """Carry out one control message; return the answer to send and the streams that are new by it."""
        request_id: Any = None
        try:
            try:
                request = msgspec.json.decode(text)
            except msgspec.DecodeError:
                raise RequestError(3, "Invalid JSON: expected value at line 1 column 1") from None
            if not isinstance(request, dict):
                raise RequestError(2, "Invalid request: missing field `method` at line 1 column 2")
            request_id = _request_id(request)
            result, added = self._carry_out(request)
        except RequestError as error:
            refusal = {"error": {"code": error.code, "msg": error.text}, "id": request_id}
            return msgspec.json.encode(refusal), []
        return msgspec.json.encode({"result": result, "id": request_id}), added

    def _carry_out(self, request: dict[str, Any]) -> tuple[Any, list[str]]:
        if "method" not in request:
            raise RequestError(2, "Invalid request: missing field `method` at line 1 column 2")
        method, arguments = request["method"], request.get("params", [])
        if method not in _METHODS:
            raise RequestError(
                2,
                f"Invalid request: unknown variant `{method}`, expected one of {_METHOD_LIST} at line 1 column 2",
            )
        if not isinstance(arguments, list):
            raise RequestError(2, "Invalid request: params must be an array")
        match method:
            case "SUBSCRIBE":
                return None, self._subscribe(_stream_names(arguments))
            case "UNSUBSCRIBE":
                for stream in _stream_names(arguments):
                    self.streams.pop(stream, None)
                return None, []
            case "LIST_SUBSCRIPTIONS":
                return list(self.streams), []
            case _:
                return self._property(arguments, setting=method == "SET_PROPERTY"), []

    def _subscribe(self, streams: list[str]) -> list[str]:
        added = [stream for stream in dict.fromkeys(streams) if stream not in self.streams]
        if len(self.streams) + len(added) > MAX_STREAMS:
            raise RequestError(2, "Invalid request: too many streams")
        self.streams.update(dict.fromkeys(added))
        return added

    def _property(self, arguments: list[Any], *, setting: bool) -> bool | None:
        if not arguments or not isinstance(arguments[0], str):
            raise RequestError(2, "Invalid request: property name must be a string")
        if arguments[0] != "combined":
            raise RequestError(0, "Unknown property")
        if len(arguments) != 1 + setting:
            raise RequestError(2, "Invalid request: too many parameters")
        if not setting:
            return self.combined
        if not isinstance(arguments[1], bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        self.combined = arguments[1]
        return None


def stream_name(market_id: str) -> str:
    """Return the name of a market's stream of aggregate trades."""
    return market_id.lower() + STREAM_SUFFIX


def trade_frame(market_id: str, trade: AggregateTrade, *, sent_ms: int, combined: bool) -> str:
    """Return the frame that tells one aggregate trade, raw or wrapped with its stream's name."""
    event = {
        "e": "aggTrade",
        "E": sent_ms,
        "s": market_id,
        "a": trade.trade_id,
        "p": trade.price,
        "q": trade.amount,
        "f": trade.first_fill_id,
        "l": trade.last_fill_id,
        "T": trade.time_ms,
        "m": trade.buyer_is_maker,
        "M": trade.best_match,
    }
    frame = {"stream": stream_name(market_id), "data": event} if combined else event
    return msgspec.json.encode(frame).decode()


def _request_id(request: dict[str, Any]) -> int | str | None:
    found = request.get("id")
    if found is None or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,36}", found):
        return found
    raise RequestError(2, "Invalid request: request ID must be an unsigned integer")


def _stream_names(arguments: list[Any]) -> list[str]:
    for name in arguments:
        if not isinstance(name, str) or "@" not in name:
            raise RequestError(2, "Invalid request: invalid stream")
    return arguments
