import { element } from "./dom";

const NAME = "vegamite-theme";

/** Follow the system's choice of dark or light until the reader makes one; `onChange` after either. */
export function followTheme(onChange: () => void): void {
  const root = document.documentElement;
  const chosen = localStorage.getItem(NAME);
  if (chosen === "dark" || chosen === "light") root.dataset["theme"] = chosen;
  element("theme").onclick = () => {
    const next = getComputedStyle(root).colorScheme.startsWith("dark") ? "light" : "dark";
    root.dataset["theme"] = next;
    localStorage.setItem(NAME, next);
    onChange();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
}
