import { element, fill, make } from "./dom";
import { decimals, padded } from "./text";
import type { Trade } from "./types";

/** Show the newest trades, newest first; prices have at least `digits` after the point. */
export function drawTape(trades: Trade[], digits: number): void {
  const prices = trades.reduce((most, trade) => Math.max(most, decimals(trade.price)), digits);
  const amounts = trades.reduce((most, trade) => Math.max(most, decimals(trade.amount)), 0);
  element("tape").hidden = trades.length === 0;
  fill(
    element("trades"),
    trades.map((trade) => {
      const row = make("tr", "", trade.taker_side === "sell" ? "fall" : trade.taker_side === "buy" ? "rise" : "");
      row.dataset["trade"] = trade.trade_id;
      row.append(
        make("td", trade.event_time.slice(11, 19)),
        make("td", padded(trade.price, prices)),
        make("td", padded(trade.amount, amounts)),
      );
      return row;
    }),
  );
}
