import { element, fill, make } from "./dom";
import { change, count, openTime, padded } from "./text";
import type { Candle, Timeframe } from "./types";

function word(name: string, value: string, className = ""): HTMLElement {
  const shown = make("span", "", className);
  shown.append(make("b", name), ` ${value}`);
  return shown;
}

/** Say a candle's figures, exactly as they are stored, and how final they are. */
export function drawLegend(candle: Candle | undefined, digits: number): void {
  if (!candle) {
    fill(element("legend"), []);
    return;
  }
  const moved = change(candle.open, candle.close);
  const state = candle.final ? (candle.complete ? "complete" : "incomplete") : "in progress";
  fill(element("legend"), [
    make("time", openTime(candle.open_time, candle.timeframe)),
    ...(["open", "high", "low", "close"] as const).map((name) =>
      word(name.charAt(0).toUpperCase(), padded(candle[name], digits), moved.isUp ? "rise" : "fall"),
    ),
    make("span", moved.text, moved.isUp ? "rise" : "fall"),
    word("V", candle.volume),
    make("span", count(candle.trade_count, "trade")),
    make("span", candle.revision ? `${state}, revision ${candle.revision}` : state, candle.final && !candle.complete ? "doubt" : ""),
  ]);
}

/** Say the newest price, and how it has moved in its candle. */
export function drawPrice(last: Candle | undefined, timeframe: Timeframe, digits: number): void {
  element("price").textContent = last ? padded(last.close, digits) : "–";
  const moved = last && change(last.open, last.close);
  const shown = element("moved");
  shown.textContent = moved?.text ? `${moved.text} in this ${timeframe}` : "";
  shown.className = moved?.isUp === false ? "fall" : "rise";
}
