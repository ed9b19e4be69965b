import type { Candle } from "./types";

/** Of two states of one candle the newer one has the greater (epoch, offset, final, revision). */
function isNewer(candidate: Candle, held: Candle): boolean {
  const [a, b] = [rank(candidate), rank(held)];
  for (let at = 0; at < a.length; at++) {
    if (a[at] !== b[at]) return a[at]! > b[at]!;
  }
  return false;
}

function rank(candle: Candle): number[] {
  const [epoch = 0, , offset = 0] = candle.as_of.split("-").map(Number);
  return [epoch, offset, candle.final ? 1 : 0, candle.revision];
}

/** The candles of one market and timeframe by open time, each in its newest state, whatever order states arrive in. */
export class Series {
  private readonly byTime = new Map<string, Candle>();
  private sorted: Candle[] | null = null;

  /** Take states in; returns those that are news. */
  merge(candles: Candle[]): Candle[] {
    const news = candles.filter((candle) => {
      const held = this.byTime.get(candle.open_time);
      if (held && !isNewer(candle, held)) return false;
      if (!held) this.sorted = null;
      else if (this.sorted) this.sorted[this.sorted.lastIndexOf(held)] = candle;
      this.byTime.set(candle.open_time, candle);
      return true;
    });
    return news;
  }

  /** All candles, oldest first. */
  all(): Candle[] {
    this.sorted ??= [...this.byTime.values()].sort((a, b) => Date.parse(a.open_time) - Date.parse(b.open_time));
    return this.sorted;
  }

  get first(): Candle | undefined {
    return this.all()[0];
  }

  get last(): Candle | undefined {
    return this.all().at(-1);
  }

  at(seconds: number): Candle | undefined {
    return this.all().find((candle) => Date.parse(candle.open_time) / 1000 === seconds);
  }
}
