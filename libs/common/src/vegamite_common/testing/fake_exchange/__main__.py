"""Start a fake exchange; it prints one line of JSON with its addresses, its clock and settings for ccxt, and runs on.

For example `--speed 60 --seed 7 --symbols BTC/USDT,ETH/USDT`, or `--speed 60 --file aggtrades.ndjson.gz --symbol XRP/ETH`.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vegamite_common.domain.time import DAY, HOUR, parse_time
from vegamite_common.runtime.clock import Clock, SimulatedClock, SystemClock, wall_now
from vegamite_common.testing.fake_exchange.control import ControlServer
from vegamite_common.testing.fake_exchange.feed import Feed
from vegamite_common.testing.fake_exchange.generator import GeneratedFeed
from vegamite_common.testing.fake_exchange.recording import RecordedFeed
from vegamite_common.testing.fake_exchange.server import FakeExchange

CCXT_OPTIONS: dict[str, Any] = {
    "fetchMarkets": {"types": ["spot"]},
    "watchTrades": {"name": "aggTrade"},
    "watchTradesForSymbols": {"name": "aggTrade"},
}
"""ccxt's options for one kind of trade, aggregate ones, on REST and sockets, and for spot markets only."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings; exits with a sentence for a wrong one."""
    parser = argparse.ArgumentParser(
        prog="python -m vegamite_common.testing.fake_exchange",
        description="A fake exchange on loopback that speaks Binance's spot protocol.",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port of REST and sockets; 0: any free one (default)"
    )
    parser.add_argument(
        "--control-port",
        type=int,
        default=0,
        help="port of the switches; 0: any free one (default)",
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="seconds of the exchange's time in a real one"
    )
    parser.add_argument(
        "--file", type=Path, help="recorded aggregate trades, one JSON object a line, .gz or not"
    )
    parser.add_argument(
        "--symbol", default="XRP/ETH", help="whose trades --file holds (default: %(default)s)"
    )
    parser.add_argument(
        "--symbols", default="BTC/USDT,ETH/USDT", help="generated markets (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the generated markets (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="trades a second of a generated market (default: 1)"
    )
    parser.add_argument(
        "--origin",
        type=parse_time_argument,
        help="the exchange's time at --wall-origin: RFC 3339 or microseconds; default: the last hour of the recorded "
        "day begins, or the real time",
    )
    parser.add_argument(
        "--wall-origin", type=parse_time_argument, help="RFC 3339 or microseconds (default: now)"
    )
    parser.add_argument(
        "--message-limit",
        type=int,
        default=5,
        help="frames a second that a socket may send; 0: any number",
    )
    settings = parser.parse_args(arguments)
    if settings.speed <= 0:
        parser.error("--speed must be above 0")
    return settings


def parse_time_argument(text: str) -> int:
    """Return microseconds from RFC 3339 or microseconds as text; raise `ArgumentTypeError` for any other text."""
    try:
        return int(text) if text.isdecimal() else parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def choose_feeds(settings: argparse.Namespace) -> list[Feed]:
    """Return the recorded market, or the generated ones."""
    if settings.file is not None:
        return [RecordedFeed.read(settings.file, settings.symbol)]
    return [
        GeneratedFeed(symbol, seed=settings.seed, rate=settings.rate)
        for symbol in settings.symbols.split(",")
    ]


def choose_clock(settings: argparse.Namespace, feeds: Sequence[Feed]) -> Clock:
    """Return the machine's clock, or a simulated one where speed, an origin or a recording asks for it."""
    origin: int | None = settings.origin
    first = feeds[0]
    if origin is None and isinstance(first, RecordedFeed):
        last_day = first.trades[-1].time_ms * 1000 // DAY
        origin = (last_day + 1) * DAY - HOUR
    if origin is None and settings.speed == 1:
        return SystemClock()
    wall_origin = wall_now() if settings.wall_origin is None else settings.wall_origin
    return SimulatedClock(
        origin=wall_origin if origin is None else origin,
        wall_origin=wall_origin,
        speed=settings.speed,
    )


def describe(exchange: FakeExchange, control: ControlServer) -> dict[str, Any]:
    """Return what a client needs to know, JSON-ready; `clock` is null where it is the machine's."""
    clock = exchange.clock
    shared = None
    if isinstance(clock, SimulatedClock):
        shared = {"origin": clock.origin, "wall_origin": clock.wall_origin, "speed": clock.speed}
    return {
        "url": exchange.url,
        "control_url": control.url,
        "symbols": exchange.symbols,
        "clock": shared,
        "ccxt": {"urls": {"api": exchange.urls}, "options": CCXT_OPTIONS},
    }


async def run(settings: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    feeds = choose_feeds(settings)
    exchange = FakeExchange(
        feeds,
        clock=choose_clock(settings, feeds),
        port=settings.port,
        message_limit=settings.message_limit or None,
    )
    async with exchange, ControlServer(exchange, port=settings.control_port) as control:
        sys.stdout.write(json.dumps(describe(exchange, control)) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Run the command; a file that can't be read or a taken port is one sentence."""
    settings = parse_arguments()
    try:
        asyncio.run(run(settings))
    except (OSError, ValueError) as error:
        sys.exit(f"fake exchange: {error}")


if __name__ == "__main__":
    main()
