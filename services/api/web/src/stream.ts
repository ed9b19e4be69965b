import { key } from "./key";
import type { Candle, Timeframe, Trade } from "./types";

export interface Listener {
  candles(candles: Candle[]): void;
  trades(trades: Trade[]): void;
  /** The server says that something about the market changed: its source, its gaps, or many candles at once. */
  status(type: string): void;
  /** The stream runs, or does no longer. */
  connected(isUp: boolean): void;
  /** The server refuses what the page asks for, and says why. */
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
  error?: { code?: string; message?: string };
}

// Three heartbeats of the server's default.
const SILENCE_MS = 15_000;
// Refusals that a later attempt may not meet: the server starts, stops, or has much to do.
const PASSING: readonly string[] = ["UNAVAILABLE", "DRAINING", "RATE_LIMITED", "RESUME_TOO_OLD"];
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/** One live view of one market and timeframe, which reconnects for ever until it is closed. */
export class Stream {
  private socket: WebSocket | null = null;
  private attempts = 0;
  private closed = false;
  private timer = 0;
  private watchdog = 0;
  private isAnswered = false;

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
    // Relative to the page, which may stand behind a path prefix.
    const address = new URL("v1/ws", location.origin + location.pathname);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.socket = socket;
    this.isAnswered = false;
    const presented = key.value;
    socket.onopen = () => this.subscribe(socket, presented);
    socket.onmessage = (event: MessageEvent<string>) => {
      if (socket === this.socket && !this.closed) this.receive(socket, event.data, presented);
    };
    socket.onclose = () => this.reconnect(socket);
    this.feedWatchdog(socket);
  }

  private subscribe(socket: WebSocket, presented: string | null): void {
    if (this.closed) return;
    if (presented) socket.send(JSON.stringify({ method: "auth", req_id: 0, params: { key: presented } }));
    const markets = [this.market];
    const channels = [
      { channel: "candles", markets, timeframe: this.timeframe, snapshot: 300 },
      { channel: "trades", markets, snapshot: 30 },
      { channel: "status", markets },
    ];
    channels.forEach((params, index) => socket.send(JSON.stringify({ method: "subscribe", req_id: index + 1, params })));
  }

  private receive(socket: WebSocket, text: string, presented: string | null): void {
    const message = JSON.parse(text) as Message;
    if (message.success === false) {
      this.refuse(socket, message, presented);
      return;
    }
    if (message.channel === "candles" && message.type === "snapshot") this.isAnswered = true;
    if (this.isAnswered) this.feedWatchdog(socket);
    if (message.channel === "candles" && message.market === this.market && message.timeframe === this.timeframe) {
      if (message.type === "snapshot") this.isUp();
      this.listener.candles(message.data as Candle[]);
    } else if (message.channel === "trades" && message.market === this.market) {
      this.listener.trades(message.data as Trade[]);
    } else if (message.channel === "status" && message.type) {
      this.listener.status(message.type);
    }
  }

  private refuse(socket: WebSocket, message: Message, presented: string | null): void {
    const code = message.error?.code ?? "";
    if (message.method === "auth" && presented) {
      // The server closes after this; the next connection goes without the key.
      key.drop(presented);
    } else if (PASSING.includes(code)) {
      socket.close();
      this.reconnect(socket);
    } else {
      this.isAnswered = true;
      this.feedWatchdog(socket);
      this.listener.refused(message.error?.message ?? "the server refuses the stream");
    }
  }

  private isUp(): void {
    this.attempts = 0;
    this.listener.connected(true);
  }

  /** A connection that says nothing, not even a heartbeat, or never what it was asked for, is dead although it is open. */
  private feedWatchdog(socket: WebSocket): void {
    clearTimeout(this.watchdog);
    this.watchdog = window.setTimeout(() => {
      socket.close();
      this.reconnect(socket);
    }, SILENCE_MS);
  }

  /** Wait longer after each failure, each page another while, so that a server that is back isn't overrun. */
  private reconnect(socket: WebSocket): void {
    if (this.closed || socket !== this.socket) return;
    this.socket = null;
    clearTimeout(this.watchdog);
    this.listener.connected(false);
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.attempts++);
    this.timer = window.setTimeout(() => this.connect(), longest * (0.5 + Math.random() / 2));
  }
}
