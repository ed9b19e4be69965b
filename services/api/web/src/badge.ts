import { element, fill, make } from "./dom";
import type { Link } from "./feed";
import { count } from "./text";
import type { Market } from "./types";

/** What decides which badges are shown. */
export interface Standing {
  market: Market | undefined;
  isListed: boolean;
  link: Link | null;
  doubtful: number;
}

interface Badge {
  text: string;
  kind: "note" | "good" | "warn";
  hint: string;
}

/** What there is to know about what is shown, most important first. */
export function badges({ market, isListed, link, doubtful }: Standing): Badge[] {
  const found: Badge[] = [];
  if (market?.simulated) {
    found.push({ text: "simulated", kind: "note", hint: "The trades of this market are made up by a formula, to show vegamite at work." });
  }
  if (link === "connecting") found.push({ text: "connecting", kind: "note", hint: "Connecting to vegamite." });
  else if (link === "down") found.push({ text: "reconnecting", kind: "warn", hint: "The connection to vegamite is down; trying again." });
  else if (link && market) found.push(source(market));
  else if (link && isListed) found.push({ text: "not tracked", kind: "note", hint: "This market is not collected now; what is stored of it is shown." });
  if (market?.open_gaps) {
    found.push({ text: count(market.open_gaps, "open gap"), kind: "note", hint: "Trades of some time aren't here yet; they are fetched as soon as it can be done." });
  }
  if (doubtful) found.push({ text: "incomplete", kind: "warn", hint: "Candles drawn hollow may lack trades." });
  return found;
}

function source(market: Market): Badge {
  const state = market.state ?? "pending";
  if (state === "live") return { text: "live", kind: "good", hint: "Trades arrive from the exchange." };
  const guess = market.suggestions.length ? ` Did you mean ${market.suggestions.join(", ")}?` : "";
  const text = state.replaceAll("_", " ");
  if (state === "pending" || state === "connecting") return { text, kind: "note", hint: "Collection is about to begin." };
  if (state === "reconnecting") {
    const why = market.state_reason ? ` (${market.state_reason})` : "";
    return { text, kind: "warn", hint: `${market.exchange} can't be reached; trying again${why}.` };
  }
  return { text, kind: "warn", hint: `${market.state_reason ?? `The source is: ${text}`}.${guess}`.replaceAll("..", ".") };
}

/** Show the badges; what is wrong is said in full beside them, as a phone shows no tooltips. */
export function drawBadges(standing: Standing): void {
  const shown = badges(standing);
  fill(
    element("badges"),
    shown.map(({ text, kind, hint }) => Object.assign(make("span", text, `badge ${kind}`), { title: hint })),
  );
  fill(element("hints"), shown.filter(({ kind }) => kind === "warn").map(({ hint }) => make("p", hint)));
}
