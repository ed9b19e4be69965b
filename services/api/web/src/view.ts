import { drawBadges } from "./badge";
import { Chart } from "./chart";
import { element, fill, make } from "./dom";
import { Feed } from "./feed";
import { ApiError, trackedMarkets } from "./http";
import { drawLegend, drawPrice } from "./legend";
import { drawTape } from "./tape";
import { decimals } from "./text";
import { followTheme } from "./theme";
import { wireTracking } from "./tracking";
import { TIMEFRAMES, isDoubtful, type Candle, type Market, type Timeframe } from "./types";

const MARKETS_EVERY_MS = 10_000;
const MARKETS_PAUSE_MS = 1000;
const DRAW_EVERY_MS = 80;

/** The page: one market in one timeframe, and the choice of both. */
export class View {
  market: string;
  private timeframe: Timeframe = "1m";
  private markets: Market[] = [];
  private feed: Feed | null = null;
  private error: string | null = null;
  private hovered: number | null = null;
  private changed: Candle[] = [];
  private isDrawing = false;
  private isAsking = false;
  private askAgain = false;
  private readonly chart: Chart;

  constructor() {
    const address = new URLSearchParams(location.search);
    this.market = address.get("market") ?? "";
    const wanted = address.get("timeframe") as Timeframe;
    if (TIMEFRAMES.includes(wanted)) this.timeframe = wanted;
    this.chart = new Chart(
      element("chart"),
      (seconds) => { this.hovered = seconds; this.requestDraw(); },
      () => void this.feed?.loadOlder(),
    );
    followTheme(() => this.chart.paint());
    this.chart.paint();
    wireTracking(this, () => void this.readMarkets());
    element<HTMLSelectElement>("market").onchange = (event) => this.open((event.target as HTMLSelectElement).value, this.timeframe);
    this.makeTimeframes();
  }

  async start(): Promise<void> {
    if (this.market) this.open(this.market, this.timeframe);
    await this.readMarkets();
    window.setInterval(() => void this.readMarkets(), MARKETS_EVERY_MS);
  }

  async afterChange(market: string | null): Promise<void> {
    if (market === null) this.market = "";
    await this.readMarkets();
    if (market !== null) this.open(market, this.timeframe);
  }

  private makeTimeframes(): void {
    const buttons = TIMEFRAMES.map((timeframe) => {
      const button = make("button", timeframe);
      button.type = "button";
      button.onclick = () => this.open(this.market, timeframe);
      return button;
    });
    element("timeframes").replaceChildren(...buttons);
  }

  /** Ask which markets are tracked, and how they are; asked for often, it asks once a second. */
  private async readMarkets(): Promise<void> {
    this.askAgain = true;
    if (this.isAsking) return;
    this.isAsking = true;
    while (this.askAgain) {
      this.askAgain = false;
      await this.askMarkets();
      if (this.askAgain) await new Promise((resolve) => window.setTimeout(resolve, MARKETS_PAUSE_MS));
    }
    this.isAsking = false;
  }

  private async askMarkets(): Promise<void> {
    try {
      this.markets = await trackedMarkets();
    } catch (error) {
      if (!(error instanceof ApiError)) return;
      element("unlock").hidden = error.status !== 401;
      this.error = error.status === 401 ? "This server shows its data to those who have a key." : error.message;
      this.requestDraw();
      return;
    }
    element("unlock").hidden = true;
    // Right after the start none is live yet: the simulated one will be, with or without internet.
    const first = this.markets.find(({ state }) => state === "live") ?? this.markets.find(({ simulated }) => simulated) ?? this.markets[0];
    const isUnknown = this.feed?.error && this.markets.some(({ market }) => market === this.market);
    if (!this.market && first) this.open(first.market, this.timeframe);
    else if (isUnknown || (this.market && !this.feed)) this.open(this.market, this.timeframe);
    this.error = this.market || first ? null : "No market is tracked yet. Add one: vegamite markets add kraken:BTC/USD";
    this.drawChoice();
    this.requestDraw();
  }

  private open(market: string, timeframe: Timeframe): void {
    if (!market) return;
    this.market = market;
    this.timeframe = timeframe;
    this.feed?.close();
    this.hovered = null;
    this.changed = [];
    this.error = null;
    this.chart.reset(timeframe);
    history.replaceState(null, "", `?${new URLSearchParams({ market, timeframe })}`);
    this.drawChoice();
    const feed: Feed = new Feed(market, timeframe, {
      changed: (candles) => {
        if (this.feed !== feed) return;
        for (const candle of candles) this.changed.push(candle);
        this.requestDraw();
      },
      marketChanged: () => {
        if (this.feed === feed) void this.readMarkets();
      },
    });
    this.feed = feed;
    this.requestDraw();
  }

  /** Draw soon, however often it is asked for; not at all while nobody looks. */
  private requestDraw(): void {
    if (this.isDrawing) return;
    this.isDrawing = true;
    window.setTimeout(() => requestAnimationFrame(() => {
      this.isDrawing = false;
      this.draw();
    }), DRAW_EVERY_MS);
  }

  private draw(): void {
    const feed = this.feed;
    if (feed && this.chart.isAtNewest && feed.trim()) {
      this.chart.reset(this.timeframe);
      this.changed = feed.series.all();
    }
    const all = feed?.series.all() ?? [];
    this.chart.draw(all, this.changed);
    this.changed = [];
    const listed = this.markets.find(({ market }) => market === this.market);
    const doubtful = all.filter(isDoubtful).length;
    const digits = all.slice(-100).reduce((most, { close }) => Math.max(most, decimals(close)), 0);
    const last = feed?.series.last;
    drawLegend(this.hovered === null ? last : (feed?.series.at(this.hovered) ?? last), digits);
    drawPrice(last, this.timeframe, digits);
    drawTape(feed?.tape ?? [], digits);
    drawBadges({ market: listed, isListed: this.markets.length > 0, link: feed?.link ?? null, doubtful });
    this.drawFacts(listed, all.length, doubtful);
    this.drawNotice(feed);
    const simulated = listed?.simulated ? " (simulated)" : "";
    document.title = this.market ? `${last?.close ?? ""} ${this.market} ${this.timeframe}${simulated} · vegamite`.trim() : "vegamite";
    document.body.classList.toggle("stale", feed?.link === "down");
  }

  private drawChoice(): void {
    const select = element<HTMLSelectElement>("market");
    const shown = new Map(this.markets.map(({ market, simulated }) => [market, simulated ? `${market} (simulated)` : market]));
    if (this.market && !shown.has(this.market)) shown.set(this.market, this.market);
    fill(select, [...shown].map(([market, text]) => Object.assign(make("option", text), { value: market })));
    select.value = this.market;
    for (const button of element("timeframes").children as HTMLCollectionOf<HTMLButtonElement>) {
      const isChosen = button.textContent === this.timeframe;
      if (isChosen && button.ariaPressed !== "true") {
        const row = element("timeframes");
        row.scrollTo({ left: button.offsetLeft - row.offsetLeft - row.clientWidth / 2 + button.clientWidth / 2 });
      }
      button.ariaPressed = String(isChosen);
    }
    element<HTMLButtonElement>("untrack").hidden = !this.markets.some(({ market }) => market === this.market);
  }

  private drawFacts(market: Market | undefined, candles: number, doubtful: number): void {
    const facts = {
      Source: market ? (market.state ?? "pending").replaceAll("_", " ") : "not tracked",
      "Open gaps": market ? market.open_gaps.toLocaleString("en") : "–",
      "Candles here": candles.toLocaleString("en"),
      ...(doubtful ? { "of them incomplete": doubtful.toLocaleString("en") } : {}),
    };
    fill(element("facts"), Object.entries(facts).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  }

  private drawNotice(feed: Feed | null): void {
    const isEmpty = feed !== null && feed.isLoaded && feed.series.size === 0;
    const text = this.error ?? feed?.error ?? (isEmpty ? "No trades yet" : null);
    const notice = element("notice");
    notice.hidden = text === null;
    notice.textContent = text ?? "";
  }
}
