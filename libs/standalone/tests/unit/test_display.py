import io
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from vegamite_common.domain.time import SECOND
from vegamite_standalone.adapters.postgres_status import MarketStatus
from vegamite_standalone.display import Banner, print_banner, render

NOW = 1_700_000_000 * SECOND


def shown(*markets: MarketStatus) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=120).print(render(markets, now=NOW))
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


def market(
    symbol: str = "BTC/USD",
    *,
    ago_s: int | None = None,
    state: str = "live",
    gaps: int = 0,
    exchange: str = "kraken",
) -> MarketStatus:
    return MarketStatus(
        exchange=exchange,
        symbol=symbol,
        state=state,
        price=None if ago_s is None else Decimal("0.0000001"),
        last_trade_time=None if ago_s is None else NOW - ago_s * SECOND,
        open_gaps=gaps,
    )


def test_a_market_is_a_line_and_the_demo_says_what_it_is() -> None:
    lines = shown(
        market("DEMO/USD", exchange="sim", ago_s=3, gaps=1), market(state="unknown_symbol")
    )
    assert lines[0] == "market state price last trade"
    assert lines[1] == "sim:DEMO/USD live 0.0000001 3 s ago simulated, 1 gap being filled"
    assert lines[2] == "kraken:BTC/USD unknown symbol none yet"


@pytest.mark.parametrize(
    ("ago_s", "text"),
    [(-5, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7199, "1 h ago"), (200_000, "2 d ago")],
)
def test_ages_are_in_the_unit_that_reads_best(ago_s: int, text: str) -> None:
    assert text in shown(market(ago_s=ago_s))[1]


def test_a_symbol_does_not_move_the_cursor() -> None:
    assert "\x1b" not in "".join(shown(market("A\x1b[2J/B")))
    assert "[red]" in shown(market("[red]/USD"))[1]


def test_the_address_is_not_wrapped_in_a_narrow_terminal() -> None:
    output = io.StringIO()
    url = "http://127.0.0.1:8000/#key=vgm_" + "x" * 43
    banner = Banner(version="1.2.3", url=url, directory=Path("/data/dir"), log=None)
    print_banner(Console(file=output, width=30), banner)
    assert output.getvalue().splitlines() == ["vegamite 1.2.3", f"chart  {url}", "data   /data/dir"]
