import type { Candle } from "./types";

/** Of two states of one candle the newer one has the greater (epoch, offset, final, revision). */
function isNewer(candidate: Candle, held: Candle): boolean {
  const [a, b] = [rank(candidate), rank(held)];
  for (let at = 0; at < a.length; at++) {
    if (a[at] !== b[at]) return a[at]! > b[at]!;
  }
  return false;
}

/** A bare number is an offset in the only epoch there is. */
function rank(candle: Candle): number[] {
  const numbers = String(candle.as_of).split("-").map(Number);
  const [epoch, offset] = numbers.length > 1 ? [numbers[0]!, numbers.at(-1)!] : [0, numbers[0]!];
  return [epoch, offset, candle.final ? 1 : 0, candle.revision];
}

/** The candles of one market and timeframe by open time, each in its newest state, whatever order states arrive in. */
export class Series {
  private readonly byTime = new Map<number, Candle>();
  private sorted: Candle[] | null = null;

  /** Take states in; returns those that are news. */
  merge(candles: Candle[]): Candle[] {
    return candles.filter((candle) => {
      const time = Date.parse(candle.open_time);
      const held = this.byTime.get(time);
      if (held && !isNewer(candle, held)) return false;
      this.byTime.set(time, candle);
      if (held && this.sorted) this.sorted[this.sorted.lastIndexOf(held)] = candle;
      else this.sorted = null;
      return true;
    });
  }

  /** All candles, oldest first. */
  all(): Candle[] {
    this.sorted ??= [...this.byTime].sort(([a], [b]) => a - b).map(([, candle]) => candle);
    return this.sorted;
  }

  get size(): number {
    return this.byTime.size;
  }

  get first(): Candle | undefined {
    return this.all()[0];
  }

  get last(): Candle | undefined {
    return this.all().at(-1);
  }

  /** The candle that opened at this instant, in seconds since the epoch. */
  at(seconds: number): Candle | undefined {
    return this.byTime.get(seconds * 1000);
  }

  /** Forget the oldest candles beyond `count`. */
  keepNewest(count: number): void {
    for (const candle of this.all().slice(0, -count)) this.byTime.delete(Date.parse(candle.open_time));
    this.sorted = null;
  }
}
