"""What `helm test` asks of a running api: its health, its history and its stream, as a client sees them."""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

API = os.environ["API"]
MANAGEMENT = os.environ["MANAGEMENT"]
MARKET = os.environ.get("MARKET", "")
READABLE = os.environ["READABLE"] == "true"
KEY = os.environ.get("API_KEY", "")
DEADLINE = time.monotonic() + float(os.environ["WAIT_SECONDS"])
HEADERS = {"X-API-Key": KEY} if KEY else {}


class NotYetError(Exception):
    """What was asked isn't so, but may become so."""


def get(address: str) -> tuple[int, bytes]:
    """Answer of a GET: status and body; raises `NotYetError` where nobody answers."""
    try:
        with urllib.request.urlopen(  # noqa: S310 -- the addresses are the release's own
            urllib.request.Request(address, headers=HEADERS),  # noqa: S310
            timeout=10,
        ) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        raise NotYetError(f"{address}: {error}") from None


def health() -> str:
    """Both probes say yes, and the figures are those of an api."""
    for path in ("/healthz", "/readyz"):
        status, body = get(MANAGEMENT + path)
        if status != 200:
            raise NotYetError(f"{path} answers {status}: {body.decode(errors='replace').strip()}")
    status, body = get(MANAGEMENT + "/metrics")
    if status != 200 or b"vegamite_api_" not in body:
        raise NotYetError(f"/metrics answers {status} without the api's figures")
    return "alive, ready, telling its figures"


def history() -> str:
    """Stored candles come; where a key is needed and there is none, the refusal does."""
    if not READABLE:
        status, body = get(API + "/v1/markets")
        if status != 401 or json.loads(body).get("code") != "unauthorized":
            raise NotYetError(f"/v1/markets answers {status} to a reader without a key, not 401")
        return "refused to a reader without a key, as it is set"
    if not MARKET:
        status, body = get(API + "/v1/markets?limit=1")
        if status != 200:
            raise NotYetError(f"/v1/markets answers {status}: {body[:200]!r}")
        return "answers"
    query = urllib.parse.urlencode({"market": MARKET, "timeframe": "1m", "limit": 10})
    status, body = get(f"{API}/v1/candles?{query}")
    rows = json.loads(body).get("data", []) if status == 200 else []
    if not rows:
        raise NotYetError(f"/v1/candles answers {status} without a candle of {MARKET}")
    return f"{len(rows)} candles of {MARKET}, the last from {rows[-1]['open_time']}"


def stream() -> str:
    """A WebSocket opens and answers; with a market, its candles move."""
    address = API.replace("http", "ws", 1) + "/v1/ws"
    try:
        with connect(address, additional_headers=HEADERS, open_timeout=10) as socket:
            return _converse(socket)
    except (OSError, WebSocketException, TimeoutError) as error:
        raise NotYetError(f"{address}: {error or type(error).__name__}") from None


def _converse(socket: Any) -> str:
    if not READABLE:
        socket.send(json.dumps({"method": "list", "req_id": 1}))
        answer = json.loads(socket.recv(timeout=10))
        if answer.get("success") is not False:
            raise NotYetError(f"a client without a key is answered {answer}")
        return "refused to a client without a key, as it is set"
    if not MARKET:
        socket.send(json.dumps({"method": "ping", "req_id": 1}))
        answer = _first(socket, lambda message: message.get("req_id") == 1)
        return f"answers {answer.get('method')}"
    wanted = {"channel": "candles", "markets": [MARKET], "timeframe": "1m", "snapshot": 5}
    socket.send(json.dumps({"method": "subscribe", "req_id": 1, "params": wanted}))
    answer = _first(socket, lambda message: message.get("req_id") == 1)
    if not answer.get("success"):
        raise NotYetError(f"the subscription is answered {answer}")
    kinds = ("update", "final", "revision")
    moved = _first(socket, lambda message: message.get("type") in kinds)
    candle = moved["data"][-1]
    return f"{MARKET} moves: {moved['type']} of {candle['open_time']}, close {candle['close']}"


def _first(socket: Any, wanted: Any) -> dict[str, Any]:
    """The first message that is wanted; raises `TimeoutError` where none comes in 20 s."""
    until = time.monotonic() + 20
    while True:
        message: dict[str, Any] = json.loads(
            socket.recv(timeout=max(0.1, until - time.monotonic()))
        )
        if wanted(message):
            return message
        if time.monotonic() > until:
            raise TimeoutError("nothing of what is awaited came in 20 s")


def main() -> None:
    """Ask until all is so, or the time is over; the exit code says which."""
    for name, question in (("health", health), ("history", history), ("stream", stream)):
        while True:
            try:
                print(f"{name}: {question()}", flush=True)  # noqa: T201 -- the test's log
                break
            except NotYetError as error:
                if time.monotonic() > DEADLINE:
                    sys.exit(f"{name}: {error}")
                time.sleep(1)


main()
