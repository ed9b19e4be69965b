import { key } from "./key";
import type { Candle, Market, Page, Timeframe } from "./types";

const PATIENCE_MS = 30_000;

/** The server answered, with an error. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

async function call<Answer>(path: string, init: RequestInit = {}): Promise<Answer> {
  const presented = key.value;
  const headers = new Headers(init.headers);
  if (presented) headers.set("X-API-Key", presented);
  const response = await fetch(path, { ...init, headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  if (response.status === 401 && presented) {
    key.drop(presented);
    return call(path, init);
  }
  const body: unknown = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    const problem = body as { detail?: string; title?: string; allowed?: string } | null;
    const said = problem?.detail ?? problem?.title ?? `the server answered ${response.status}`;
    throw new ApiError(response.status, problem?.allowed ? `${said}; allowed: ${problem.allowed}` : said);
  }
  return body as Answer;
}

export async function trackedMarkets(): Promise<Market[]> {
  const markets: Market[] = [];
  let cursor: string | null = null;
  do {
    const query: URLSearchParams = new URLSearchParams({ tracked: "true" });
    if (cursor) query.set("cursor", cursor);
    const page: Page<Market> = await call<Page<Market>>(`v1/markets?${query}`);
    markets.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor);
  return markets;
}

/** The newest candles before `end` (exclusive; now where absent), oldest first. */
export async function candles(market: string, timeframe: Timeframe, limit: number, end?: string): Promise<Candle[]> {
  const query = new URLSearchParams({ market, timeframe, limit: String(limit) });
  if (end) {
    query.set("end", end);
    query.set("sort", "desc");
  }
  const { data } = await call<Page<Candle>>(`v1/candles?${query}`);
  return end ? data.reverse() : data;
}

export async function track(market: string): Promise<void> {
  await call("v1/tracked-markets", {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ markets: [market] }),
  });
}

export async function untrack(market: string): Promise<void> {
  await call(`v1/tracked-markets?${new URLSearchParams({ market })}`, { method: "DELETE" });
}
