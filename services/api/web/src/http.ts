import type { Candle, Market, Page, Timeframe } from "./types";

const KEY = "vegamite-key";

/** Take the key from the address's fragment, where the server's console puts it, and keep it for this tab alone. */
export function takeKey(): string | null {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY);
}

export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

async function call<Answer>(path: string, init: RequestInit = {}): Promise<Answer> {
  const headers = new Headers(init.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("X-API-Key", key);
  const response = await fetch(path, { ...init, headers });
  const body: unknown = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    const problem = body as { detail?: string; title?: string } | null;
    throw new ApiError(response.status, problem?.detail ?? problem?.title ?? `HTTP ${response.status}`);
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
