// What the API sends, as far as the page uses it. Decimals are strings; they become numbers only where pixels need them.

export const TIMEFRAMES = [
  "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M",
] as const;
export type Timeframe = (typeof TIMEFRAMES)[number];

export interface Candle {
  market: string;
  timeframe: Timeframe;
  open_time: string;
  close_time: string;
  open: string;
  high: string;
  low: string;
  close: string;
  volume: string;
  quote_volume: string;
  vwap: string | null;
  trade_count: number;
  final: boolean;
  complete: boolean;
  revision: number;
  /** The place in the log that the state was computed up to: "epoch-offset", ordered as two numbers. */
  as_of: string | number;
}

/** A candle whose interval is over, but of which it isn't known that every trade is in it. */
export function isDoubtful(candle: Candle): boolean {
  return candle.final && !candle.complete;
}

export interface Trade {
  trade_id: string;
  sequence: number;
  event_time: string;
  price: string;
  amount: string;
  taker_side: "buy" | "sell" | null;
}

export interface Market {
  market: string;
  exchange: string;
  symbol: string;
  tracked: boolean;
  simulated: boolean;
  state: string | null;
  state_reason: string | null;
  suggestions: string[];
  open_gaps: number;
}

export interface Page<Item> {
  data: Item[];
  next_cursor: string | null;
}
