"""The chart page in a real browser, over a whole instance with the simulated market and one whose trades were imported."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess
from vegamite_common.testing.services.process import make_server_directory, remove_directory

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

DEMO, SILENT, IMPORTED = "sim:DEMO/USD", "kraken:BTC/USD", "binance:SHIB/ETH"
DESKTOP, PHONE = (1280, 800), (390, 844)
PATIENCE_MS = 30_000
COMMAND = [sys.executable, "-m", "vegamite_standalone"]
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = Path(__file__).parents[2] / "test-results"
ADDRESS = re.compile(r"^chart\s+(http://127\.0\.0\.1:(\d+))/#key=(\S+)$", re.MULTILINE)
# Pixels of the chart in the colour of bodies and wicks: rising, falling, and those inside of filled bodies.
COUNT_PIXELS = """() => {
  const found = {rising: 0, falling: 0, filled: 0};
  for (const canvas of document.querySelectorAll('#chart canvas')) {
    if (!canvas.height || canvas.width < innerWidth / 3) continue; // the scale's labels are coloured, too
    const {data, width} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const colour = at => ((data[4 * at] ?? 0) << 16) + (data[4 * at + 1] << 8) + data[4 * at + 2];
    for (let at = 0; at < data.length / 4; at++) {
      const own = colour(at);
      if (own !== 0x2a9d73 && own !== 0xd1495b) continue;
      found[own === 0x2a9d73 ? 'rising' : 'falling']++;
      if ([at - 1, at + 1, at - width, at + width].every(near => colour(near) === own)) found.filled++;
    }
  }
  return found;
}"""


class Instance:
    """`vegamite run` on a data directory of its own, always on the port it got first; blocking."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.log = folder / "run.log"
        self.base = self.key = ""
        self._process = self._on_port(0)

    def _on_port(self, port: int) -> ServiceProcess:
        command = [*COMMAND, "run", "--port", str(port), "--data-dir", str(self.data)]
        return ServiceProcess(command, log=self.log)

    def start(self) -> None:
        """Start it, and learn its address and key from what it prints."""
        self._process.start()

    async def wait_until_ready(self) -> None:
        """Return once it answers."""

        async def printed() -> "re.Match[str]":
            found = ADDRESS.search(self.log.read_text(errors="replace"))
            assert found is not None, self.log.read_text(errors="replace")[-2000:]
            return found

        found = await eventually(printed, timeout_s=90)
        self.base, self.key = found[1], found[3]
        await asyncio.to_thread(
            self._process.wait_until_ready, f"{self.base}/readyz", timeout_s=90.0
        )

    def kill(self) -> None:
        """End it by SIGKILL; its next start is on the same port."""
        self._process.kill()
        self._process = self._on_port(int(self.base.rpartition(":")[2]))

    def close(self) -> None:
        """End what still runs, its database server too."""
        self._process.kill()
        note = self.data / "postgres" / "data" / "postmaster.pid"
        try:
            os.kill(int(note.read_text().split("\n", 1)[0]), signal.SIGINT)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return

    async def get(self, path: str, **query: object) -> list[dict[str, Any]]:
        """Return the rows of one answer."""
        address = f"{self.base}{path}?{urlencode(query)}"
        async with aiohttp.ClientSession() as session, session.get(address) as response:
            assert response.status == 200, await response.text()
            rows: list[dict[str, Any]] = (await response.json())["data"]
            return rows


def import_trades(folder: Path, data: Path) -> None:
    """Import 400 trades at very small prices, without a claim that they are all there were."""
    begin = 1_763_000_000_000 // 3_600_000 * 3_600_000
    rows = [
        {
            "a": 1000 + number,
            "p": f"0.00000{123 + number * 37 % 41 - 20}",
            "q": f"{1000 + number}.5",
            "f": 5000 + number,
            "l": 5000 + number,
            "T": begin + number * 20_000,
            "m": number % 3 == 0,
        }
        for number in range(400)
    ]
    archive = folder / "trades.ndjson"
    archive.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ["--market", IMPORTED, "--format", "binance-aggtrades", "--data-dir", str(data)]
    done = subprocess.run(
        [*COMMAND, "import", *where, str(archive)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def instance() -> AsyncIterator[Instance]:
    """A running instance for all tests of the page; its last day is there."""
    folder = make_server_directory("page")
    built = Instance(folder)
    try:
        await asyncio.to_thread(import_trades, folder, built.data)
        built.start()
        await built.wait_until_ready()

        async def day_is_there() -> None:
            hours = await built.get("/v1/candles", market=DEMO, timeframe="1h", limit=100)
            # The oldest hour began before the history did: of all but that one every trade is there.
            assert len(hours) >= 25
            assert all(hour["complete"] for hour in hours[1:] if hour["final"])

        await eventually(day_is_there, timeout_s=90)
        yield built
    finally:
        await asyncio.to_thread(built.close)
        remove_directory(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium_path: Path) -> AsyncIterator[Browser]:
    """One browser; each test opens a window of its own."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=chromium_path, args=BROWSER_ARGUMENTS
        )
        yield started
        await started.close()


@dataclass
class Window:
    """A page that is open, and all it complained of on its console."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def one(self, selector: str) -> Locator:
        """The element."""
        return self.page.locator(selector)

    def badge(self, text: str) -> Locator:
        """The badge of that text."""
        return self.one("#badges").get_by_text(text, exact=True)

    async def legend(self) -> str:
        """The legend's text, on one line."""
        return " ".join((await self.one("#legend").inner_text()).split())

    async def candles_here(self) -> int:
        """How many candles the page says it holds."""
        return int((await self.one("#facts dd").nth(2).inner_text()).replace(",", ""))

    async def newest_trade(self) -> int:
        """The id of the trade on top of the tape."""
        shown = await self.one("#trades tr").first.get_attribute("data-trade")
        assert shown is not None
        return int(shown)

    async def wait_until_drawn(self) -> None:
        """Return once the legend names a candle and the canvas shows some."""
        await expect(self.one("#legend")).to_contain_text("trade", timeout=PATIENCE_MS)

        async def drawn() -> None:
            counted = await self.page.evaluate(COUNT_PIXELS)
            assert counted["rising"] + counted["falling"] > 500

        await eventually(drawn, timeout_s=30)

    async def picture(self, name: str) -> None:
        """Keep a screenshot for who wants to look."""
        PICTURES.mkdir(exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"page-{name}.png")


@asynccontextmanager
async def open_window(
    browser: Browser,
    address: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: Any = "dark",
    expected: Callable[[str], bool] = lambda _: False,
) -> AsyncIterator[Window]:
    """Open the page; on leaving, anything on its console but what is `expected` fails the test."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    try:
        window = Window(await context.new_page())
        window.page.on(
            "console",
            lambda said: window.complaints.append(said.text) if said.type == "error" else None,
        )
        window.page.on("pageerror", lambda error: window.complaints.append(f"uncaught: {error}"))
        await window.page.goto(address)
        yield window
        assert [text for text in window.complaints if not expected(text)] == []
    finally:
        await context.close()


def shown(text: str) -> dict[str, Decimal]:
    """The figures of a legend, by letter."""
    return {name: Decimal(value) for name, value in re.findall(r"\b([OHLCV]) ([\d.]+)", text)}


def figures(candle: dict[str, Any]) -> dict[str, Decimal]:
    """The figures of a served candle, by the legend's letters."""
    names = {"O": "open", "H": "high", "L": "low", "C": "close", "V": "volume"}
    return {letter: Decimal(candle[name]) for letter, name in names.items()}


async def test_it_opens_on_the_simulated_market_says_so_and_draws_what_the_api_serves(
    browser: Browser, instance: Instance
) -> None:
    async with open_window(browser, instance.base) as window:
        await window.wait_until_drawn()
        await expect(window.one("#market")).to_have_value(DEMO)
        await expect(window.badge("simulated")).to_be_visible()
        await expect(window.badge("live")).to_be_visible(timeout=PATIENCE_MS)
        assert "(simulated)" in await window.page.title()
        counted = await window.page.evaluate(COUNT_PIXELS)
        assert min(counted.values()) > 100

        box = await window.one("#chart").bounding_box()
        assert box is not None
        await window.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await expect(window.one("#legend")).to_contain_text(" complete", timeout=PATIENCE_MS)
        legend = await window.legend()
        begin = f"{legend[:10]}T{legend[11:16]}:00Z"
        query = {"market": DEMO, "timeframe": "1m", "start": begin, "limit": 1}
        [candle] = await instance.get("/v1/candles", **query)
        assert candle["open_time"].startswith(begin[:16])
        assert shown(legend) == figures(candle)
        assert f" {candle['trade_count']} trade" in legend


async def test_the_last_day_is_there_and_scrolling_back_reads_it(
    browser: Browser, instance: Instance
) -> None:
    async with open_window(browser, instance.base) as window:
        await window.wait_until_drawn()
        box = await window.one("#chart").bounding_box()
        assert box is not None
        await window.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

        async def day_is_held() -> None:
            await window.page.mouse.wheel(-2000, 0)
            assert await window.candles_here() >= 24 * 60

        await eventually(day_is_held, timeout_s=40)
        await window.page.get_by_role("button", name="1h", exact=True).click()

        async def hours_are_held() -> None:
            assert 24 <= await window.candles_here() <= 30

        await eventually(hours_are_held, timeout_s=40)
        await window.wait_until_drawn()


async def test_what_happens_is_seen(browser: Browser, instance: Instance) -> None:
    address = f"{instance.base}/?{urlencode({'market': DEMO, 'timeframe': '1s'})}"
    async with open_window(browser, address) as window:
        await window.wait_until_drawn()
        legend, newest = await window.legend(), await window.newest_trade()

        async def goes_on() -> None:
            assert await window.newest_trade() > newest
            assert await window.legend() > legend  # it begins with the time

        await eventually(goes_on, timeout_s=40)
        shown_ids = await window.page.eval_on_selector_all(
            "#trades tr", "rows => rows.map(row => Number(row.dataset.trade))"
        )
        assert shown_ids == sorted(set(shown_ids), reverse=True)


async def test_a_market_out_of_reach_says_reconnecting(
    browser: Browser, instance: Instance
) -> None:
    async with open_window(browser, instance.base) as window:
        await window.wait_until_drawn()
        await window.one("#market").select_option(SILENT)
        await expect(window.badge("reconnecting")).to_be_visible(timeout=PATIENCE_MS)
        await expect(window.one("#hints")).to_contain_text("kraken can't be reached")
        await expect(window.one("#notice")).to_have_text("No trades yet")
        await expect(window.badge("simulated")).to_have_count(0)
        assert not any((await window.page.evaluate(COUNT_PIXELS)).values())
        await window.picture("reconnecting")


async def test_candles_that_may_lack_trades_are_hollow_and_small_prices_are_exact(
    browser: Browser, instance: Instance
) -> None:
    address = f"{instance.base}/?{urlencode({'market': IMPORTED, 'timeframe': '15m'})}"
    async with open_window(browser, address) as window:
        await window.wait_until_drawn()
        await expect(window.badge("incomplete")).to_be_visible()
        await expect(window.badge("not tracked")).to_be_visible(timeout=PATIENCE_MS)
        candles = await instance.get("/v1/candles", market=IMPORTED, timeframe="15m")
        assert shown(await window.legend()) == figures(candles[-1])
        assert "incomplete" in await window.legend()
        await expect(window.one("#price")).to_have_text(candles[-1]["close"])
        assert (await window.page.evaluate(COUNT_PIXELS))["filled"] < 20
        await window.picture("incomplete")


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_it_fits_its_window_in_both_colours(
    browser: Browser, instance: Instance, size: tuple[int, int], scheme: str
) -> None:
    async with open_window(browser, instance.base, size=size, scheme=scheme) as window:
        await window.wait_until_drawn()
        await expect(window.badge("live")).to_be_visible(timeout=PATIENCE_MS)
        width = await window.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0]
        red = await window.page.evaluate(
            "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
        )
        assert red < 64 if scheme == "dark" else red > 192
        await window.picture(f"{'phone' if size == PHONE else 'desktop'}-{scheme}")
        await window.one("#theme").click()
        other = "light" if scheme == "dark" else "dark"
        chosen = "getComputedStyle(document.documentElement).colorScheme"
        assert await window.page.evaluate(chosen) == other


async def test_who_has_the_key_adds_and_removes_a_market(
    browser: Browser, instance: Instance
) -> None:
    def refused(text: str) -> bool:
        return "status of 4" in text

    address = f"{instance.base}/#key={instance.key}"
    async with open_window(browser, address, expected=refused) as window:
        await window.wait_until_drawn()
        assert "key" not in window.page.url
        field_, result = window.one("#track-market"), window.one("#track-result")
        await field_.fill("nonsense")
        await field_.press("Enter")
        await expect(result).to_contain_text("kraken:BTC/USD", timeout=PATIENCE_MS)
        await field_.fill("kraken:SOL/USD")
        await field_.press("Enter")
        await expect(window.one("#market")).to_have_value("kraken:SOL/USD", timeout=PATIENCE_MS)
        await expect(window.one("#notice")).to_have_text("No trades yet", timeout=PATIENCE_MS)
        await window.one("#untrack").click()
        await expect(window.one("#market")).to_have_value(DEMO, timeout=PATIENCE_MS)
        tracked = await instance.get("/v1/markets", tracked="true")
        assert "kraken:SOL/USD" not in [market["market"] for market in tracked]


async def test_a_key_that_is_not_valid_is_forgotten(browser: Browser, instance: Instance) -> None:
    def refused(text: str) -> bool:
        return "status of 401" in text

    address = f"{instance.base}/#key=of-another-day"
    async with open_window(browser, address, expected=refused) as window:
        await window.wait_until_drawn()
        await expect(window.badge("live")).to_be_visible(timeout=PATIENCE_MS)
        await expect(window.one("#track")).to_be_hidden()
        assert await window.page.evaluate("sessionStorage.length") == 0


@pytest_asyncio.fixture(loop_scope="module")
async def proxied(instance: Instance) -> AsyncIterator[str]:
    """The address of the page behind a reverse proxy that takes a path prefix away."""
    async with aiohttp.ClientSession() as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            target = f"{instance.base}/{request.match_info['rest']}"
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await pass_socket_on(session, target, request)
            async with session.get(target, params=request.query) as answer:
                kind = {"Content-Type": answer.headers["Content-Type"]}
                return web.Response(body=await answer.read(), status=answer.status, headers=kind)

        app = web.Application()
        app.router.add_get("/charts/vegamite/{rest:.*}", pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/charts/vegamite/"
        finally:
            await runner.cleanup()


async def pass_socket_on(
    session: aiohttp.ClientSession, target: str, request: web.Request
) -> web.WebSocketResponse:
    """Copy messages both ways until either end leaves."""
    inner = web.WebSocketResponse()
    await inner.prepare(request)

    async def copy(source: Any, sink: Any) -> None:
        async for message in source:
            await sink.send_str(message.data)
        await sink.close()

    async with session.ws_connect(target) as outer:
        await asyncio.gather(copy(inner, outer), copy(outer, inner))
    return inner


async def test_it_works_under_a_path_prefix(browser: Browser, proxied: str) -> None:
    async with open_window(browser, proxied) as window:
        await window.wait_until_drawn()
        await expect(window.badge("live")).to_be_visible(timeout=PATIENCE_MS)
        newest = await window.newest_trade()

        async def goes_on() -> None:
            assert await window.newest_trade() > newest

        await eventually(goes_on, timeout_s=40)


async def test_it_reconnects_by_itself_and_goes_on_after_the_server_was_killed(
    browser: Browser, instance: Instance
) -> None:
    def out_of_reach(text: str) -> bool:
        return "ERR_CONNECTION_REFUSED" in text or "Failed to load resource" in text

    async with open_window(browser, instance.base, expected=out_of_reach) as window:
        await window.wait_until_drawn()
        await expect(window.badge("live")).to_be_visible(timeout=PATIENCE_MS)
        newest, held = await window.newest_trade(), await window.candles_here()
        instance.kill()
        await expect(window.badge("reconnecting")).to_be_visible(timeout=PATIENCE_MS)
        await expect(window.one("body")).to_have_class("stale")
        await window.picture("server-down")
        instance.start()
        await expect(window.badge("reconnecting")).to_have_count(0, timeout=60_000)
        await expect(window.badge("live")).to_be_visible(timeout=60_000)
        await instance.wait_until_ready()

        async def goes_on() -> None:
            assert await window.newest_trade() > newest
            assert await window.candles_here() >= held

        await eventually(goes_on, timeout_s=60)
        await expect(window.badge("simulated")).to_be_visible()
