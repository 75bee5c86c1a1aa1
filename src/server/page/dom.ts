/** Small helpers over the document. Text goes in as text; nothing here parses HTML. */

type Child = Node | string | undefined;

/** Attributes and properties of a new element. */
export interface ElementOptions {
  readonly class?: string;
  readonly text?: string;
  readonly title?: string;
  readonly attributes?: Readonly<Record<string, string>>;
  readonly children?: readonly Child[];
}

/** Makes an element. */
export function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  options: ElementOptions = {},
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  if (options.class !== undefined) element.className = options.class;
  if (options.title !== undefined) element.title = options.title;
  for (const [key, value] of Object.entries(options.attributes ?? {})) element.setAttribute(key, value);
  if (options.text !== undefined) element.textContent = options.text;
  element.append(...(options.children ?? []).filter((child) => child !== undefined));
  return element;
}

/** Gives the element of the page with an id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

/** Makes one of the page's icons; whoever shows it has a label of its own. */
export function icon(name: string): SVGSVGElement {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(namespace, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Makes a button; with `icon` alone it carries its label for those who hear the page. */
export function button(
  label: string,
  { icon: name, class: kind, click, showsLabel = name === undefined }: {
    icon?: string;
    class?: string;
    click: (event: MouseEvent) => void;
    showsLabel?: boolean;
  },
): HTMLButtonElement {
  const element = make("button", {
    class: kind ?? (showsLabel ? "button" : "icon small"),
    attributes: { type: "button", ...(showsLabel ? {} : { "aria-label": label }) },
    title: showsLabel ? undefined : label,
    children: [name === undefined ? undefined : icon(name), showsLabel ? label : undefined],
  });
  element.addEventListener("click", click);
  return element;
}

/** Copies text; without the clipboard's interface (plain http from another machine) as a selection. Returns whether it worked. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = make("textarea", { class: "unseen" });
    box.value = text;
    const before = document.activeElement as HTMLElement | null;
    document.body.append(box);
    box.select();
    const worked = document.execCommand("copy");
    box.remove();
    before?.focus();
    return worked;
  }
}

/** Makes a button that copies what `text` gives, and says so for a moment. */
export function copyButton(label: string, text: () => string): HTMLButtonElement {
  const element = button(label, {
    icon: "copy",
    click: async () => {
      const worked = await copyText(text());
      element.replaceChildren(icon(worked ? "check" : "warning"));
      element.setAttribute("aria-label", worked ? "Copied" : "Could not copy");
      setTimeout(() => {
        element.replaceChildren(icon("copy"));
        element.setAttribute("aria-label", label);
      }, 1600);
    },
  });
  return element;
}

/** Hands a text to the person as a file. */
export function saveFile(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { attributes: { href: url, download: name } }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Says something to those who hear the page. */
export function announce(text: string): void {
  byId("live").textContent = text;
}
