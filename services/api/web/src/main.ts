import "./style.css";
import { Chart, isDoubtful } from "./chart";
import { ApiError, candles as fetchCandles, takeKey, track, trackedMarkets, untrack } from "./http";
import { Series } from "./series";
import { Stream } from "./stream";
import { TIMEFRAMES, type Candle, type Market, type Timeframe, type Trade } from "./types";

const HISTORY = 1000;
const TRADES_SHOWN = 30;
const MARKETS_EVERY_MS = 10_000;

function element<Type extends HTMLElement>(id: string): Type {
  return document.getElementById(id) as Type;
}

class View {
  private markets: Market[] = [];
  private market = "";
  private timeframe: Timeframe = "1m";
  private series = new Series();
  private stream: Stream | null = null;
  private isConnected = false;
  private isLoadingOlder = false;
  private hasAll = false;
  private generation = 0;
  private hovered: number | null = null;
  private tape: Trade[] = [];
  private readonly chart: Chart;

  constructor() {
    const address = new URLSearchParams(location.search);
    this.market = address.get("market") ?? "";
    const wanted = address.get("timeframe") as Timeframe;
    if (TIMEFRAMES.includes(wanted)) this.timeframe = wanted;
    this.chart = new Chart(
      element("chart"),
      (time) => { this.hovered = time; this.drawLegend(); },
      () => void this.loadOlder(),
    );
    this.wire();
  }

  async start(): Promise<void> {
    this.chart.paint();
    this.drawTimeframes();
    element("track").hidden = takeKey() === null;
    await this.refreshMarkets();
    window.setInterval(() => void this.refreshMarkets(), MARKETS_EVERY_MS);
  }

  private wire(): void {
    element<HTMLSelectElement>("market").onchange = (event) => this.open((event.target as HTMLSelectElement).value, this.timeframe);
    element("theme").onclick = () => {
      const isDark = getComputedStyle(document.documentElement).colorScheme.startsWith("dark");
      document.documentElement.dataset["theme"] = isDark ? "light" : "dark";
      localStorage.setItem("vegamite-theme", isDark ? "light" : "dark");
      this.chart.paint();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.chart.paint());
    element<HTMLFormElement>("track").onsubmit = (event) => {
      event.preventDefault();
      const market = element<HTMLInputElement>("track-market").value.trim();
      void this.change(() => track(market), `${market}: will be collected`, market);
    };
    element("untrack").onclick = () => void this.change(() => untrack(this.market), `${this.market}: no longer collected; its history stays`);
  }

  private async change(action: () => Promise<void>, done: string, next?: string): Promise<void> {
    const result = element("track-result");
    try {
      await action();
      result.textContent = done;
      await this.refreshMarkets();
      if (next) this.open(next, this.timeframe);
    } catch (error) {
      result.textContent = error instanceof Error ? error.message : String(error);
    }
  }

  private async refreshMarkets(): Promise<void> {
    try {
      this.markets = await trackedMarkets();
    } catch (error) {
      if (error instanceof ApiError) this.notice(error.message);
      this.drawBadges();
      return;
    }
    this.drawMarkets();
    const known = this.markets.some((market) => market.market === this.market);
    // Right after the start none is live yet: the simulated one will be, with or without internet.
    const first = this.markets.find((market) => market.state === "live") ?? this.markets.find((market) => market.simulated) ?? this.markets[0];
    if (!first) this.notice("No market is tracked yet. Add one with: vegamite markets add kraken:BTC/USD");
    else if (!known || !this.stream) this.open(known ? this.market : first.market, this.timeframe);
    this.drawBadges();
    this.drawFacts();
  }

  private open(market: string, timeframe: Timeframe): void {
    this.market = market;
    this.timeframe = timeframe;
    this.generation += 1;
    this.stream?.close();
    this.series = new Series();
    this.tape = [];
    this.hasAll = false;
    this.hovered = null;
    this.chart.reset();
    this.notice(null);
    history.replaceState(null, "", `?${new URLSearchParams({ market, timeframe })}`);
    document.title = `${market} ${timeframe} · vegamite`;
    this.drawMarkets();
    this.drawTimeframes();
    this.drawTrades();
    this.drawLegend();
    void this.load(true);
    const generation = this.generation;
    const whileOpen = <Args extends unknown[]>(act: (...args: Args) => void) => (...args: Args) => {
      if (generation === this.generation) act(...args);
    };
    this.stream = new Stream(market, timeframe, {
      candles: whileOpen((candles, isSnapshot) => this.take(candles, isSnapshot)),
      trades: whileOpen((trades) => this.takeTrades(trades)),
      status: whileOpen((type) => {
        if (type === "revised") void this.load(false);
        void this.refreshMarkets();
      }),
      connected: whileOpen((isUp) => {
        if (isUp && !this.isConnected && this.series.last) void this.load(false);
        this.isConnected = isUp;
        this.drawBadges();
      }),
      refused: whileOpen((message) => this.notice(message)),
    });
  }

  private async load(fit: boolean): Promise<void> {
    const generation = this.generation;
    try {
      const page = await fetchCandles(this.market, this.timeframe, HISTORY);
      if (generation !== this.generation) return;
      this.series.merge(page);
      this.redraw(fit);
      this.notice(this.series.last ? null : "No trades yet.");
    } catch (error) {
      if (generation === this.generation && error instanceof ApiError) this.notice(error.message);
    }
  }

  private async loadOlder(): Promise<void> {
    const oldest = this.series.first;
    if (!oldest || this.isLoadingOlder || this.hasAll) return;
    this.isLoadingOlder = true;
    const generation = this.generation;
    try {
      const page = await fetchCandles(this.market, this.timeframe, HISTORY, oldest.open_time);
      if (generation !== this.generation) return;
      this.hasAll = page.length < HISTORY;
      if (page.length) {
        this.series.merge(page);
        this.redraw(false);
      }
    } catch {
      // the next scroll asks again
    } finally {
      this.isLoadingOlder = false;
    }
  }

  private take(candles: Candle[], isSnapshot: boolean): void {
    const before = this.series.last;
    const news = this.series.merge(candles);
    if (!news.length) return;
    if (before === undefined) this.redraw(true);
    else if (isSnapshot || news.some((candle) => Date.parse(candle.open_time) < Date.parse(before.open_time))) this.redraw(false);
    else news.forEach((candle) => this.chart.update(candle));
    this.notice(null);
    this.drawLegend();
    this.drawBadges();
  }

  private takeTrades(trades: Trade[]): void {
    const known = new Set(this.tape.map((trade) => trade.trade_id));
    const fresh = trades.filter((trade) => !known.has(trade.trade_id));
    this.tape = [...this.tape, ...fresh]
      .sort((a, b) => Date.parse(b.event_time) - Date.parse(a.event_time))
      .slice(0, TRADES_SHOWN);
    this.drawTrades();
  }

  private redraw(fit: boolean): void {
    this.chart.show(this.series.all(), fit, this.timeframe === "1s");
    this.drawLegend();
    this.drawBadges();
    this.drawFacts();
  }

  private drawMarkets(): void {
    const select = element<HTMLSelectElement>("market");
    const names = this.markets.map((market) => market.market);
    if (this.market && !names.includes(this.market)) names.unshift(this.market);
    const wanted = names.join("\n");
    if (select.dataset["names"] !== wanted) {
      select.dataset["names"] = wanted;
      select.replaceChildren(...names.map((name) => new Option(name, name)));
    }
    select.value = this.market;
  }

  private drawTimeframes(): void {
    element("timeframes").replaceChildren(
      ...TIMEFRAMES.map((timeframe) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = timeframe;
        button.setAttribute("role", "radio");
        button.setAttribute("aria-checked", String(timeframe === this.timeframe));
        button.onclick = () => this.open(this.market, timeframe);
        return button;
      }),
    );
  }

  private drawBadges(): void {
    const market = this.markets.find((candidate) => candidate.market === this.market);
    const badges: [string, string, string][] = [];
    if (market?.simulated) badges.push(["simulated", "note", "Trades of this market are made up by a formula, for demonstration"]);
    if (!this.isConnected) badges.push(["reconnecting", "warn", "The connection to vegamite is down; trying again"]);
    else if (market?.state === "live") badges.push(["live", "good", "Trades arrive from the exchange"]);
    else if (market?.state) badges.push([market.state.replaceAll("_", " "), "warn", sourceHint(market)]);
    const doubtful = this.series.all().filter(isDoubtful).length;
    if (doubtful) badges.push([`${doubtful} incomplete`, "warn", "Candles drawn hollow may lack trades; gaps are fetched again by themselves"]);
    element("badges").replaceChildren(
      ...badges.map(([text, kind, hint]) => {
        const badge = document.createElement("span");
        badge.className = `badge ${kind}`;
        badge.textContent = text;
        badge.title = hint;
        return badge;
      }),
    );
  }

  private drawLegend(): void {
    const candle = this.hovered === null ? this.series.last : this.series.at(this.hovered);
    const legend = element("legend");
    if (!candle) {
      legend.textContent = "";
      return;
    }
    const state = candle.final ? (candle.complete ? "complete" : "incomplete") : "in progress";
    const words = [
      `${candle.open_time.slice(0, 19).replace("T", " ")}`,
      `O ${candle.open}`, `H ${candle.high}`, `L ${candle.low}`, `C ${candle.close}`,
      `V ${candle.volume}`, `${candle.trade_count} trades`,
      candle.revision ? `${state}, revision ${candle.revision}` : state,
    ];
    legend.replaceChildren(...words.map((word) => Object.assign(document.createElement("span"), { textContent: word })));
    if (this.hovered === null || candle === this.series.last) this.drawPrice();
  }

  private drawPrice(): void {
    const last = this.series.last;
    if (!last) return;
    const change = (Number(last.close) / Number(last.open) - 1) * 100;
    element("price").textContent = last.close;
    const moved = element("moved");
    moved.textContent = `${change >= 0 ? "+" : ""}${change.toFixed(2)} % in this ${this.timeframe}`;
    moved.className = change >= 0 ? "rise" : "fall";
  }

  private drawFacts(): void {
    const market = this.markets.find((candidate) => candidate.market === this.market);
    const facts: [string, string][] = [
      ["Source", market ? (market.state ?? "pending").replaceAll("_", " ") : "not tracked"],
      ["Open gaps", market ? String(market.open_gaps) : "–"],
      ["Candles here", String(this.series.all().length)],
    ];
    element("facts").replaceChildren(
      ...facts.flatMap(([name, value]) => [
        Object.assign(document.createElement("dt"), { textContent: name }),
        Object.assign(document.createElement("dd"), { textContent: value }),
      ]),
    );
  }

  private drawTrades(): void {
    element("trades").replaceChildren(
      ...this.tape.map((trade) => {
        const row = document.createElement("tr");
        row.className = trade.taker_side === "sell" ? "fall" : trade.taker_side === "buy" ? "rise" : "";
        row.replaceChildren(
          ...[trade.event_time.slice(11, 19), trade.price, trade.amount].map((text) =>
            Object.assign(document.createElement("td"), { textContent: text }),
          ),
        );
        return row;
      }),
    );
  }

  private notice(text: string | null): void {
    const notice = element("notice");
    notice.hidden = text === null;
    notice.textContent = text ?? "";
  }
}

function sourceHint(market: Market): string {
  const reason = market.state_reason ?? "The exchange can't be reached at the moment; trying again";
  return market.suggestions.length ? `${reason}. Did you mean ${market.suggestions.join(", ")}?` : reason;
}

const theme = localStorage.getItem("vegamite-theme");
if (theme) document.documentElement.dataset["theme"] = theme;
void new View().start();
