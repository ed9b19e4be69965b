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
import { decimals } from "./text";
import { isDoubtful, type Candle, type Timeframe } from "./types";

const RISE = "#2a9d73";
const FALL = "#d1495b";
const SPACING = 7;
const OLDEST_IS_NEAR = 50;
const MOST_DECIMALS = 12;
const LONG: readonly Timeframe[] = ["1d", "3d", "1w", "1M"];

function seconds(candle: Candle): UTCTimestamp {
  return (Date.parse(candle.open_time) / 1000) as UTCTimestamp;
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

/** The drawing of one series of candles and their volumes. */
export class Chart {
  private readonly chart: IChartApi;
  private readonly prices: ISeriesApi<"Candlestick">;
  private readonly volumes: ISeriesApi<"Histogram">;
  private precision = 0;
  private newest = -Infinity;

  constructor(
    private readonly element: HTMLElement,
    onHover: (seconds: number | null) => void,
    onOldestNear: () => void,
  ) {
    this.chart = createChart(element, {
      autoSize: true,
      crosshair: { mode: 0 },
      // A finger moved up or down scrolls the page, not the prices.
      handleScroll: { vertTouchDrag: false },
      timeScale: { rightOffset: 4, barSpacing: SPACING, minBarSpacing: 0.5 },
      rightPriceScale: { scaleMargins: { top: 0.14, bottom: 0.24 } },
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
      if (range && range.from < OLDEST_IS_NEAR) onOldestNear();
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

  /** Forget all candles and begin a market or timeframe anew, its newest candles in view. */
  reset(timeframe: Timeframe): void {
    this.precision = 0;
    this.newest = -Infinity;
    this.prices.setData([]);
    this.volumes.setData([]);
    this.chart.priceScale("right").applyOptions({ autoScale: true });
    this.chart.applyOptions({ timeScale: { timeVisible: !LONG.includes(timeframe), secondsVisible: timeframe === "1s" } });
  }

  /** Show all candles, oldest first, of which some have changed; what the reader looks at stays where it is. */
  draw(all: Candle[], changed: Candle[]): void {
    if (!all.length || !changed.length) return;
    this.adjustPrecision(changed);
    const isFirst = this.newest === -Infinity;
    const atEnd = changed.filter((candle) => seconds(candle) >= this.newest).sort((a, b) => seconds(a) - seconds(b));
    if (isFirst || atEnd.length < changed.length) {
      this.prices.setData(all.map(bar));
      this.volumes.setData(all.map(volume));
    } else {
      for (const candle of atEnd) {
        this.prices.update(bar(candle));
        this.volumes.update(volume(candle));
      }
    }
    const last = all.at(-1)!;
    this.newest = seconds(last);
    // The line of the newest price takes the bar's colour, of which a hollow one has none.
    const colour = Number(last.close) >= Number(last.open) ? RISE : FALL;
    this.prices.applyOptions({ priceLineColor: isDoubtful(last) ? colour : "" });
    if (isFirst) this.showNewest(all.length);
  }

  /** Whether the reader looks at the newest candles, far from the oldest held. */
  get isAtNewest(): boolean {
    return this.chart.timeScale().scrollPosition() > -1;
  }

  private showNewest(count: number): void {
    const bars = Math.max(20, Math.floor(this.element.clientWidth / SPACING));
    this.chart.timeScale().setVisibleLogicalRange({ from: count + 4 - bars, to: count + 3 });
  }

  private adjustPrecision(candles: Candle[]): void {
    const found = candles.flatMap((candle) => [decimals(candle.close), decimals(candle.high), decimals(candle.low)]);
    const needed = found.reduce((a, b) => Math.max(a, b), 0);
    if (needed <= this.precision && this.newest !== -Infinity) return;
    this.precision = Math.min(MOST_DECIMALS, Math.max(needed, this.precision));
    this.prices.applyOptions({ priceFormat: { type: "price", precision: this.precision, minMove: 10 ** -this.precision } });
  }
}
