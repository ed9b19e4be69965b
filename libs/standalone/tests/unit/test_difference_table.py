import io
import json

import pytest
from rich.console import Console

from vegamite_aggregator.core.verification import Difference
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import parse_time
from vegamite_common.domain.timeframe import Timeframe
from vegamite_standalone.difference_table import DifferenceTable, PipeConsole, as_json

MARKET = Market("kraken", "BTC/USD")
OPENED = parse_time("2024-02-27T12:00:00Z")
LONG_ONE = "1" + "0" * 30 + ".000000001"
LONG_OTHER = "1" + "0" * 30 + ".000000002"
DIFFERENCES = [
    Difference(Timeframe.M1, OPENED, "high", "1.25", "1.5"),
    Difference(Timeframe.MO1, OPENED, "candle", None, "3 trades"),
    Difference(Timeframe.D1, OPENED, "candle", "2 trades", None),
    Difference(Timeframe.H1, OPENED, "buy_quote_volume", LONG_ONE, LONG_OTHER),
    Difference(Timeframe.H1, OPENED, "limits", "candle prices contradict: " + "x" * 60, None),
    Difference(None, OPENED + 1, "trade", "id: price must be above 0", None),
]


def printed(*, terminal: bool, width: int) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=width, color_system=None)
    table = DifferenceTable(console, market_width=20)
    for difference in DIFFERENCES:
        table.add(MARKET, difference)
    return output.getvalue().splitlines()


def test_a_program_gets_a_line_a_difference_however_long_and_all_columns_aligned() -> None:
    heading, *lines = printed(terminal=False, width=40)
    assert len(lines) == len(DIFFERENCES)
    stored = heading.index("stored")
    assert all(line[:stored].endswith("  ") for line in lines)
    assert [line[stored:].split() for line in lines[:4]] == [
        ["1.25", "1.5"],
        ["none", "3", "trades"],
        ["2", "trades", "none"],
        [LONG_ONE, LONG_OTHER],
    ]
    assert lines[0].index("1.5") == heading.index("computed")
    assert lines[5].split()[:3] == ["kraken:BTC/USD", "2024-02-27T12:00:00.000001Z", "trade"]
    assert all("\x1b" not in line for line in lines)


def test_on_a_terminal_values_that_do_not_fit_stand_one_below_the_other() -> None:
    heading, *lines = printed(terminal=True, width=120)
    (at,) = [number for number, line in enumerate(lines) if LONG_ONE in line]
    assert lines[at].index(LONG_ONE) == lines[at + 1].index(LONG_OTHER) == heading.index("stored")
    assert lines[at + 1].strip() == LONG_OTHER
    assert len(lines) == len(DIFFERENCES) + 1


def test_only_what_differs_is_coloured() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=200, color_system="standard")
    DifferenceTable(console, market_width=0).add(MARKET, DIFFERENCES[0])
    assert "1.\x1b[31m25" in output.getvalue()
    assert "1.\x1b[32m5" in output.getvalue()


def test_a_name_with_control_characters_moves_no_cursor() -> None:
    output = io.StringIO()
    table = DifferenceTable(Console(file=output), market_width=0)
    table.add(MARKET, Difference(None, OPENED, "trade", "\x1b[2Jid: no", None))
    assert "\x1b" not in output.getvalue()


def test_a_machine_gets_texts_and_null() -> None:
    assert json.loads(as_json(MARKET, DIFFERENCES[1])) == {
        "market": "kraken:BTC/USD",
        "timeframe": "1M",
        "open_time": "2024-02-27T12:00:00Z",
        "field": "candle",
        "stored": None,
        "computed": "3 trades",
    }
    assert json.loads(as_json(MARKET, DIFFERENCES[5]))["timeframe"] is None


def test_an_output_that_nobody_reads_is_the_callers_matter() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        PipeConsole(file=Closed()).print("x")
