/** How many digits a decimal's text has after the point. */
export function decimals(text: string): number {
  return text.split(".")[1]?.length ?? 0;
}

/** The same number with at least so many digits after the point, so that a column of prices lines up. */
export function padded(text: string, digits: number): string {
  const missing = digits - decimals(text);
  if (missing <= 0) return text;
  return `${text}${text.includes(".") ? "" : "."}${"0".repeat(missing)}`;
}

/** A change from one price to another in percent, with its sign. */
export function change(from: string, to: string): { text: string; isUp: boolean } {
  const percent = (Number(to) / Number(from) - 1) * 100;
  if (!Number.isFinite(percent)) return { text: "", isUp: true };
  const digits = Math.abs(percent).toFixed(2);
  const sign = digits === "0.00" ? "" : percent < 0 ? "−" : "+";
  return { text: `${sign}${digits} %`, isUp: percent >= 0 };
}

export function count(number: number, noun: string): string {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** The time of a candle as its timeframe needs it: a date alone, or minutes, or seconds. */
export function openTime(time: string, timeframe: string): string {
  const length = /[dwM]$/.test(timeframe) ? 10 : timeframe === "1s" ? 19 : 16;
  return time.slice(0, length).replace("T", " ");
}
