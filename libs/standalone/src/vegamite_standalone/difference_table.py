"""Differences as a person or a program reads them: aligned lines, or a JSON object each."""

import json

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from vegamite_aggregator.core.verification import Difference
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import format_time
from vegamite_common.runtime.logging import escape

_TIME_WIDTH = len("2026-01-31T12:00:00Z")
_FIELD_WIDTH = len("buy_quote_volume")
_VALUE_WIDTH = 20
_NOTHING = "none"


_REMARKS = ("limits", "trade")
"""Fields that have no other side."""


class PipeConsole(Console):
    """A console that leaves it to the caller what becomes of a process whose output nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Raise the error on, instead of ending the process in its middle."""
        raise BrokenPipeError


class DifferenceTable:
    """Prints differences one by one, under a heading; long values on a terminal stand one below the other."""

    def __init__(self, console: Console, *, market_width: int) -> None:
        """Print on `console`, with room for market names of that many cells."""
        self._console = console
        self._market_width = max(market_width, len("market"))
        self._begun = False

    def add(self, market: Market, difference: Difference) -> None:
        """Print a difference."""
        if not self._begun:
            self._begun = True
            heading = self._place("market", "candle", "opens at", "field")
            self._print(Text(f"{heading}{'stored':<{_VALUE_WIDTH}}  computed", style="dim"))
        timeframe = "" if difference.timeframe is None else difference.timeframe.value
        opened = format_time(difference.open_time)
        place = Text(self._place(escape(market.key), timeframe, opened, difference.field))
        stored, computed = _values(difference)
        room = cell_len(place.plain) + max(cell_len(stored.plain), _VALUE_WIDTH) + 2
        fits = room + cell_len(computed.plain) <= self._console.width
        if fits or not computed or not self._console.is_terminal:
            stored.pad_right(max(0, _VALUE_WIDTH - cell_len(stored.plain)))
            self._print(Text.assemble(place, stored, "  ", computed))
            return
        # Digit under digit, where the terminal is too narrow for both beside one another.
        beside = cell_len(place.plain)
        self._print(Text.assemble(place, stored))
        self._print(Text.assemble(" " * beside, computed))

    def _place(self, market: str, timeframe: str, opened: str, field: str) -> str:
        cells = (
            set_cell_size(market, max(self._market_width, cell_len(market))),
            f"{timeframe:<6}",
            f"{opened:<{_TIME_WIDTH}}",
            f"{field:<{_FIELD_WIDTH}}",
        )
        return "  ".join(cells) + "  "

    def _print(self, line: Text) -> None:
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def _values(difference: Difference) -> tuple[Text, Text]:
    """Return both values; what they have in common at their beginning is left plain."""
    if difference.field in _REMARKS:
        return Text(escape(difference.stored or ""), style="red"), Text()
    if difference.stored is None or difference.computed is None:
        return (
            _value(difference.stored, 0, "red"),
            _value(difference.computed, 0, "green"),
        )
    same = _same(difference.stored, difference.computed)
    return _value(difference.stored, same, "red"), _value(difference.computed, same, "green")


def _same(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _value(value: str | None, same: int, style: str) -> Text:
    if value is None:
        return Text(_NOTHING, style="dim")
    return Text.assemble(escape(value[:same]), (escape(value[same:]), style))


def as_json(market: Market, difference: Difference) -> str:
    """Return the difference as one line of JSON; values are texts, null where there is nothing."""
    timeframe = difference.timeframe
    return json.dumps(
        {
            "market": market.key,
            "timeframe": None if timeframe is None else timeframe.value,
            "open_time": format_time(difference.open_time),
            "field": difference.field,
            "stored": difference.stored,
            "computed": difference.computed,
        },
        ensure_ascii=False,
    )
