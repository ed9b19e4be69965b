"""What a person at the terminal sees of a running instance: its address, and quietly how each market is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vegamite_common.domain.number import format_decimal
from vegamite_common.domain.time import SECOND, Micros
from vegamite_common.runtime.lifecycle import Resources, Stop
from vegamite_common.runtime.logging import escape
from vegamite_common.runtime.postgres import POSTGRES_FAULTS
from vegamite_standalone.adapters.postgres_status import MarketStatus, read_status

REFRESH_SECONDS = 2.0

_STYLES = {"live": "green", "reconnecting": "yellow", "unknown_symbol": "red", "unsupported": "red"}


@dataclass(frozen=True, kw_only=True)
class Banner:
    """What is said once: version, where the page is, where data and log are."""

    version: str
    url: str
    directory: Path
    log: Path | None

    def lines(self) -> list[tuple[str, str]]:
        """Return name and value of each line, most important first."""
        told = [("chart", self.url), ("data", str(self.directory))]
        if self.log is not None:
            told.append(("log", str(self.log)))
        return told


def print_banner(console: Console, banner: Banner) -> None:
    """Say it, one line a value, unwrapped: a program may read it."""
    console.print(f"vegamite {banner.version}", highlight=False, soft_wrap=True)
    for name, value in banner.lines():
        console.print(Text(f"{name:<6} {value}"), soft_wrap=True)


async def show_status(console: Console, resources: Resources, stop: Stop) -> None:
    """Keep a table of the tracked markets at the bottom of the terminal until `stop`."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not stop.requested:
            try:
                async with asyncio.timeout(5):
                    markets = await read_status(resources.pool)
            except POSTGRES_FAULTS:
                live.update(Text("the database doesn't answer"), refresh=True)
            else:
                live.update(render(markets, now=resources.clock.now()), refresh=True)
            await stop.wait_for(REFRESH_SECONDS)
    console.print("stopping")


def render(markets: Sequence[MarketStatus], *, now: Micros) -> Group:
    """Return the table, as of the instant `now` (microseconds)."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("market", "state", "price", "last trade", ""):
        table.add_column(title, justify="right" if title == "price" else "left", no_wrap=True)
    for market in markets:
        table.add_row(
            Text(escape(f"{market.exchange}:{market.symbol}")),
            Text(market.state.replace("_", " "), style=_STYLES.get(market.state, "")),
            "" if market.price is None else format_decimal(market.price),
            _age(market.last_trade_time, now),
            Text(_note(market), style="dim"),
        )
    return Group(table, Text("Ctrl-C stops", style="dim"))


def _age(instant: Micros | None, now: Micros) -> str:
    if instant is None:
        return "none yet"
    seconds = max(0, now - instant) // SECOND
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _note(market: MarketStatus) -> str:
    notes = ["simulated"] if market.exchange == "sim" else []
    if market.open_gaps:
        notes.append(f"{market.open_gaps} gap{'s' if market.open_gaps > 1 else ''} being filled")
    return ", ".join(notes)
