const NAME = "vegamite-key";

/** The API key of this tab: from the address's fragment, where the server's console puts it, or typed in. */
class Key {
  /** Called when the key changes, with whether it was refused. */
  onChange: (wasRefused: boolean) => void = () => undefined;

  get value(): string | null {
    return sessionStorage.getItem(NAME);
  }

  /** Take the key out of the address, so that it isn't bookmarked or shown on. */
  takeFromAddress(): void {
    const given = new URLSearchParams(location.hash.slice(1)).get("key");
    if (!given) return;
    sessionStorage.setItem(NAME, given);
    history.replaceState(null, "", location.pathname + location.search);
    this.onChange(false);
  }

  set(value: string): void {
    sessionStorage.setItem(NAME, value);
    this.onChange(false);
  }

  /** Forget a key that the server refused, unless another has taken its place since. */
  drop(refused: string): void {
    if (this.value !== refused) return;
    sessionStorage.removeItem(NAME);
    this.onChange(true);
  }
}

export const key = new Key();
