import {
  CandlestickSeries,
  ColorType,
  HistogramSeries,
  createChart,
  type CandlestickData,
  type HistogramData,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from "lightweight-charts";
import type { Candle } from "./types";

const RISE = "#2a9d73";
const FALL = "#d1495b";

function seconds(candle: Candle): UTCTimestamp {
  return (Date.parse(candle.open_time) / 1000) as UTCTimestamp;
}

function decimals(text: string): number {
  return text.split(".")[1]?.length ?? 0;
}

/** Hollow where the interval is over and trades of it may be missing, so that a doubt can be seen. */
function bar(candle: Candle): CandlestickData<UTCTimestamp> {
  const data = {
    time: seconds(candle),
    open: Number(candle.open),
    high: Number(candle.high),
    low: Number(candle.low),
    close: Number(candle.close),
  };
  return isDoubtful(candle) ? { ...data, color: "transparent" } : data;
}

function volume(candle: Candle): HistogramData<UTCTimestamp> {
  const isUp = Number(candle.close) >= Number(candle.open);
  return { time: seconds(candle), value: Number(candle.volume), color: (isUp ? RISE : FALL) + "66" };
}

/** A candle whose interval is over, but of which it isn't known that every trade is in it. */
export function isDoubtful(candle: Candle): boolean {
  return candle.final && !candle.complete;
}

export class Chart {
  private readonly chart: IChartApi;
  private readonly prices: ISeriesApi<"Candlestick">;
  private readonly volumes: ISeriesApi<"Histogram">;
  private precision = -1;

  constructor(element: HTMLElement, onHover: (time: number | null) => void, onOldestNear: () => void) {
    this.chart = createChart(element, {
      autoSize: true,
      crosshair: { mode: 0 },
      timeScale: { timeVisible: true, secondsVisible: false, rightOffset: 4 },
      rightPriceScale: { scaleMargins: { top: 0.12, bottom: 0.24 } },
    });
    this.prices = this.chart.addSeries(CandlestickSeries, {
      upColor: RISE, downColor: FALL, borderUpColor: RISE, borderDownColor: FALL, wickUpColor: RISE, wickDownColor: FALL,
    });
    this.volumes = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.chart.subscribeCrosshairMove((event) => onHover(typeof event.time === "number" ? event.time : null));
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && range.from < 20) onOldestNear();
    });
  }

  /** Use the page's colours, which follow the reader's choice of dark or light. */
  paint(): void {
    const style = getComputedStyle(document.documentElement);
    const [text, line, ground] = ["--text", "--line", "--ground"].map((name) => style.getPropertyValue(name).trim());
    this.chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: ground! }, textColor: text!, attributionLogo: true },
      grid: { vertLines: { color: line! }, horzLines: { color: line! } },
      rightPriceScale: { borderColor: line! },
      timeScale: { borderColor: line! },
    });
  }

  /** Show exactly these candles, oldest first; keeps the view where it is unless `fit` is asked for. */
  show(candles: Candle[], fit: boolean, hasSeconds: boolean): void {
    this.chart.applyOptions({ timeScale: { secondsVisible: hasSeconds } });
    const range = this.chart.timeScale().getVisibleRange();
    this.adjustPrecision(candles.slice(-200));
    this.prices.setData(candles.map(bar));
    this.volumes.setData(candles.map(volume));
    if (fit) {
      this.chart.timeScale().setVisibleLogicalRange({ from: candles.length - 160, to: candles.length + 4 });
    } else if (range) {
      this.chart.timeScale().setVisibleRange(range);
    }
  }

  /** Show a change of the newest candle, or the one after it. */
  update(candle: Candle): void {
    this.adjustPrecision([candle]);
    this.prices.update(bar(candle));
    this.volumes.update(volume(candle));
  }

  private adjustPrecision(candles: Candle[]): void {
    const needed = Math.min(12, Math.max(...candles.map((candle) => Math.max(decimals(candle.close), decimals(candle.high))), 0));
    if (needed <= this.precision) return;
    this.precision = needed;
    this.prices.applyOptions({ priceFormat: { type: "price", precision: needed, minMove: 10 ** -needed } });
  }

  /** Forget the previous market's precision. */
  reset(): void {
    this.precision = -1;
    this.prices.setData([]);
    this.volumes.setData([]);
  }
}
