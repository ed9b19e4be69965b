import { ApiError, candles as fetchCandles } from "./http";
import { Series } from "./series";
import { Stream } from "./stream";
import type { Candle, Timeframe, Trade } from "./types";

const PAGE = 1000;
const MOST_HELD = 20_000;
const TRADES_KEPT = 30;
const REFRESH_PAUSE_MS = 1000;
const RETRY_PAUSE_MS = 5000;

export type Link = "connecting" | "up" | "down";

export interface Watcher {
  /** These candles are new or have changed; the tape, the link or an error may have, too. */
  changed(candles: Candle[]): void;
  /** The server's view of the market has changed: its source or its gaps. */
  marketChanged(): void;
}

/** All that is known here of one market and timeframe: history by HTTP, and what happens by WebSocket, as one. */
export class Feed {
  readonly series = new Series();
  /** The newest trades, newest first. */
  tape: Trade[] = [];
  link: Link = "connecting";
  error: string | null = null;
  isLoaded = false;
  private hasOldest = false;
  private isLoadingOlder = false;
  private isRefreshing = false;
  private isStale = false;
  private closed = false;
  private readonly stream: Stream;

  constructor(
    readonly market: string,
    readonly timeframe: Timeframe,
    private readonly watcher: Watcher,
  ) {
    this.stream = new Stream(market, timeframe, {
      candles: (candles) => this.take(this.adjoining(candles)),
      trades: (trades) => this.takeTrades(trades),
      status: (type) => {
        if (type === "revised" || type === "gap_filled") void this.refresh();
        watcher.marketChanged();
      },
      connected: (isUp) => {
        // What changed while nobody was told is read again.
        if (isUp && this.link === "down") void this.refresh();
        this.link = isUp ? "up" : "down";
        watcher.changed([]);
        watcher.marketChanged();
      },
      refused: (message) => this.fail(message),
    });
    void this.refresh();
  }

  close(): void {
    this.closed = true;
    this.stream.close();
  }

  /** Read all that is shown again, and whatever is newer; asked for while reading, it reads once more. */
  async refresh(): Promise<void> {
    this.isStale = true;
    if (this.isRefreshing) return;
    this.isRefreshing = true;
    while (this.isStale && !this.closed) {
      this.isStale = false;
      let pause = REFRESH_PAUSE_MS;
      try {
        await this.readBackTo(this.series.first);
      } catch (error) {
        if (error instanceof ApiError) this.fail(error.message);
        const mayPass = !(error instanceof ApiError) || error.status >= 500;
        // Where the stream is down, too, its return is what asks again.
        this.isStale ||= mayPass && this.link === "up";
        pause = RETRY_PAUSE_MS;
      }
      await new Promise((resolve) => window.setTimeout(resolve, pause));
    }
    this.isRefreshing = false;
  }

  private async readBackTo(oldest: Candle | undefined): Promise<void> {
    let end: string | undefined;
    for (;;) {
      const page = await fetchCandles(this.market, this.timeframe, PAGE, end);
      if (this.closed) return;
      this.error = null;
      this.isLoaded = true;
      const isLast = page.length < PAGE;
      this.take(page);
      end = page[0]?.open_time;
      this.hasOldest = isLast;
      if (isLast || !end || !oldest || Date.parse(end) <= Date.parse(oldest.open_time)) return;
    }
  }

  /** Read the page before what is held, unless that is being done or there is none. */
  async loadOlder(): Promise<void> {
    const oldest = this.series.first;
    if (!oldest || !this.isLoaded || this.isLoadingOlder || this.hasOldest || this.closed) return;
    this.isLoadingOlder = true;
    try {
      const page = await fetchCandles(this.market, this.timeframe, PAGE, oldest.open_time);
      if (this.closed) return;
      this.hasOldest = page.length < PAGE;
      this.take(page);
    } catch (error) {
      if (error instanceof ApiError) this.fail(error.message);
      // Out of reach: the next scroll asks again.
    } finally {
      this.isLoadingOlder = false;
    }
  }

  /** Forget old candles where there are very many, for a page that is left open for days; true where it did. */
  trim(): boolean {
    if (this.series.size <= MOST_HELD) return false;
    this.series.keepNewest(MOST_HELD / 2);
    this.hasOldest = false;
    return true;
  }

  /** Without candles of the past that would leave a hole before what is held; scrolling back reads those. */
  private adjoining(candles: Candle[]): Candle[] {
    const first = this.series.first;
    if (!first || this.hasOldest) return candles;
    const time = Date.parse(first.open_time);
    return candles.filter((candle) => Date.parse(candle.open_time) >= time);
  }

  private take(candles: Candle[]): void {
    this.watcher.changed(this.series.merge(candles));
  }

  private takeTrades(trades: Trade[]): void {
    const known = new Set(this.tape.map((trade) => trade.trade_id));
    const fresh = trades.filter((trade) => !known.has(trade.trade_id) && known.add(trade.trade_id));
    if (!fresh.length) return;
    const time = new Map([...this.tape, ...fresh].map((trade) => [trade, Date.parse(trade.event_time)]));
    this.tape = [...time.keys()]
      .sort((a, b) => time.get(b)! - time.get(a)! || b.sequence - a.sequence)
      .slice(0, TRADES_KEPT);
    this.watcher.changed([]);
  }

  private fail(message: string): void {
    if (this.closed) return;
    this.error = message;
    this.watcher.changed([]);
  }
}
