"""`vegamite markets` against an instance's interface, played by a server of our own."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

Vegamite = Callable[..., Any]

REASON = "kraken doesn't list [red]BTC/USC\x1b[2J" + ", as far as it says" * 5
MARKETS: list[dict[str, Any]] = [
    {
        "market": "kraken:BTC/USC",
        "state": "unknown_symbol",
        "state_reason": REASON,
        "suggestions": ["BTC/USD", "BTC/USDC"],
        "last_trade": None,
        "open_gaps": 0,
    },
    {
        "market": "kraken:BTC/USD",
        "state": "live",
        "state_reason": None,
        "suggestions": [],
        "last_trade": {"event_time": "2026-01-31T12:00:59Z"},
        "open_gaps": 2,
    },
]


class Interface(BaseHTTPRequestHandler):
    """Lists two markets, and lets each of them go once."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: object) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        """`GET /v1/markets`."""
        self._answer(200, {"data": MARKETS, "next_cursor": None})

    def do_DELETE(self) -> None:
        """`DELETE /v1/tracked-markets?market=`."""
        (market,) = parse_qs(urlsplit(self.path).query)["market"]
        tracked: set[str] = self.server.tracked  # type: ignore[attr-defined]
        if market in tracked:
            tracked.remove(market)
            self._answer(204, None)
        else:
            detail = f"not tracked: {market!r}"
            self._answer(404, {"title": "Not Found", "detail": detail, "code": "not_tracked"})


@pytest.fixture
def interface() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Interface)
    server.tracked = {market["market"] for market in MARKETS}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(interface: Any) -> str:
    return f"http://127.0.0.1:{interface.server_port}"


def test_a_market_that_is_not_tracked_keeps_no_other_from_being_removed(
    interface: Any, vegamite: Vegamite
) -> None:
    names = ("kraken:BTC/USC", "kraken:ETH/USD", "kraken:BTC/USD", "kraken:BTC/USD")
    done = vegamite("markets", "remove", *names, "--url", url(interface))
    assert done.returncode == 1
    assert done.stderr == "not tracked: 'kraken:ETH/USD'\n"
    assert done.stdout.splitlines() == [
        "kraken:BTC/USC isn't tracked any more",
        "kraken:BTC/USD isn't tracked any more",
    ]
    again = vegamite("markets", "remove", "kraken:BTC/USD", "--url", url(interface))
    assert (again.returncode, again.stdout) == (2, "")


def test_a_word_that_is_no_market_removes_none(interface: Any, vegamite: Vegamite) -> None:
    done = vegamite("markets", "remove", "kraken:BTC/USD", "BTC", "--url", url(interface))
    assert (done.returncode, done.stdout) == (2, "")
    assert "kraken:BTC/USD" in interface.tracked


def test_the_list_says_why_a_market_is_not_live_and_what_may_have_been_meant(
    interface: Any, vegamite: Vegamite
) -> None:
    done = vegamite("markets", "list", "--url", url(interface))
    assert done.returncode == 0
    _, unknown, live = [" ".join(line.split()) for line in done.stdout.splitlines()]
    told = REASON.replace("\x1b", "\\x1b")
    assert unknown == (
        f"kraken:BTC/USC unknown symbol none yet 0 {told}; did you mean BTC/USD or BTC/USDC?"
    )
    assert live == "kraken:BTC/USD live 2026-01-31T12:00:59Z 2"
