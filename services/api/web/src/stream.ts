import type { Candle, Timeframe, Trade } from "./types";

export interface Listener {
  candles(candles: Candle[], isSnapshot: boolean): void;
  trades(trades: Trade[]): void;
  /** The server says that something about the market changed: its source, its gaps, or many candles at once. */
  status(type: string): void;
  connected(isUp: boolean): void;
  refused(message: string): void;
}

interface Message {
  channel?: string;
  type?: string;
  market?: string;
  timeframe?: string;
  data?: unknown;
  method?: string;
  success?: boolean;
  error?: { message?: string } | string;
}

const SILENCE_MS = 15_000;
const LONGEST_WAIT_MS = 15_000;

/** One live view of one market and timeframe, which reconnects for ever until it is closed. */
export class Stream {
  private socket: WebSocket | null = null;
  private attempts = 0;
  private closed = false;
  private timer = 0;
  private watchdog = 0;

  constructor(
    private readonly market: string,
    private readonly timeframe: Timeframe,
    private readonly listener: Listener,
  ) {
    this.connect();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    this.socket?.close();
  }

  private connect(): void {
    const address = new URL("v1/ws", location.href);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    address.search = "";
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.onopen = () => this.subscribe(socket);
    socket.onmessage = (event: MessageEvent<string>) => {
      if (socket === this.socket) this.receive(event.data);
    };
    socket.onclose = () => this.reconnect(socket);
    this.feedWatchdog(socket);
  }

  private subscribe(socket: WebSocket): void {
    const key = sessionStorage.getItem("vegamite-key");
    if (key) socket.send(JSON.stringify({ method: "auth", req_id: 0, params: { key } }));
    const markets = [this.market];
    const channels = [
      { channel: "candles", markets, timeframe: this.timeframe, snapshot: 300 },
      { channel: "trades", markets, snapshot: 30 },
      { channel: "status", markets },
    ];
    channels.forEach((params, index) => socket.send(JSON.stringify({ method: "subscribe", req_id: index + 1, params })));
  }

  private receive(text: string): void {
    if (this.socket) this.feedWatchdog(this.socket);
    const message = JSON.parse(text) as Message;
    if (message.success === false) {
      this.listener.refused(typeof message.error === "string" ? message.error : (message.error?.message ?? "refused"));
      return;
    }
    if (message.method === "subscribe") {
      this.attempts = 0;
      this.listener.connected(true);
    }
    if (message.channel === "candles" && message.market === this.market && message.timeframe === this.timeframe) {
      this.listener.candles(message.data as Candle[], message.type === "snapshot");
    } else if (message.channel === "trades" && message.market === this.market) {
      this.listener.trades(message.data as Trade[]);
    } else if (message.channel === "status" && message.type) {
      this.listener.status(message.type);
    }
  }

  /** A connection that says nothing, not even a heartbeat, is dead although it is open. */
  private feedWatchdog(socket: WebSocket): void {
    clearTimeout(this.watchdog);
    this.watchdog = window.setTimeout(() => {
      socket.close();
      this.reconnect(socket);
    }, SILENCE_MS);
  }

  private reconnect(socket: WebSocket): void {
    if (this.closed || socket !== this.socket) return;
    this.socket = null;
    clearTimeout(this.watchdog);
    this.listener.connected(false);
    const ceiling = Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.attempts++);
    this.timer = window.setTimeout(() => this.connect(), 200 + Math.random() * ceiling);
  }
}
