import { element } from "./dom";
import { track, untrack } from "./http";
import { key } from "./key";

export interface Tracker {
  /** The market that is shown. */
  readonly market: string;
  /** Show this market, or where it is null another than the one that is shown. */
  afterChange(market: string | null): Promise<void>;
}

function say(text: string): void {
  element("track-result").textContent = text;
}

function showForm(): void {
  element("track").hidden = key.value === null;
}

async function change(action: () => Promise<void>, done: string, then: () => Promise<void>): Promise<void> {
  const buttons = element("track").querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  try {
    await action();
    say(done);
    await then();
  } catch (error) {
    say(error instanceof Error ? error.message : String(error));
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

/** Let who has a key add and remove markets, and ask for a key where the server wants one to read. */
export function wireTracking(tracker: Tracker, onNewKey: () => void): void {
  const field = element<HTMLInputElement>("track-market");
  element<HTMLFormElement>("track").onsubmit = (event) => {
    event.preventDefault();
    const market = field.value.trim();
    void change(() => track(market), `${market} will be collected.`, async () => {
      field.value = "";
      await tracker.afterChange(market);
    });
  };
  element("untrack").onclick = () => {
    const market = tracker.market;
    void change(() => untrack(market), `${market} is no longer collected; what is stored stays.`, () => tracker.afterChange(null));
  };
  element<HTMLFormElement>("unlock").onsubmit = (event) => {
    event.preventDefault();
    const given = element<HTMLInputElement>("unlock-key");
    key.set(given.value.trim());
    given.value = "";
    onNewKey();
  };
  key.onChange = (wasRefused) => {
    showForm();
    say(wasRefused ? "This key isn't valid; it is forgotten." : "");
  };
  showForm();
}
