/** The element of index.html with this id. */
export function element<Type extends HTMLElement>(id: string): Type {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as Type;
}

/** A new element with a text, which may come from anywhere: it is never read as markup. */
export function make<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  text: string,
  className = "",
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Put children in place of those that are there, unless they are the same: then nothing flickers or is read out again. */
export function fill(parent: HTMLElement, children: HTMLElement[]): void {
  const isSame =
    parent.children.length === children.length && children.every((child, at) => child.isEqualNode(parent.children[at]!));
  if (!isSame) parent.replaceChildren(...children);
}
