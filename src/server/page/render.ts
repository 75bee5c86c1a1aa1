/**
 * Shows an answer: its words as sanitized markdown, the calculator's calls as cards. While it grows, only its last block is rendered
 * again (`GrowingMarkdown`).
 */
import createPurifier, { type Config } from "dompurify";
import type { Part } from "../../data/conversation.ts";
import { copyButton, icon, make } from "./dom.ts";
import { GrowingMarkdown, isSafeLink, markdownToHtml } from "./markdown.ts";

const purifier = createPurifier(window);
/** What an answer may consist of; everything else loses its tags and keeps its text. */
const CONFIG: Config = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote"],
    ...["ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td"],
  ],
  ALLOWED_ATTR: ["href", "title", "target", "rel", "start", "align", "data-lang"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
purifier.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  if (!isSafeLink(node.getAttribute("href") ?? "")) node.removeAttribute("href");
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noreferrer noopener");
});

/** Turns HTML of an answer into nodes of which none can do anything. */
export function sanitize(html: string): DocumentFragment {
  const fragment = purifier.sanitize(html, CONFIG) as unknown as DocumentFragment;
  for (const pre of fragment.querySelectorAll("pre")) frameCode(pre);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = make("div", { class: "table", attributes: { tabindex: "0", role: "group", "aria-label": "Table" } });
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

/** Puts a head with the language and a copy button over a block of code. */
function frameCode(pre: HTMLPreElement): void {
  const language = pre.dataset.lang || "text";
  const head = make("div", {
    class: "code-head",
    children: [make("span", { text: language }), copyButton("Copy code", () => pre.textContent?.trimEnd() ?? "")],
  });
  const frame = make("div", { class: "code" });
  pre.replaceWith(frame);
  pre.tabIndex = 0; // whoever has no mouse must be able to scroll it
  pre.setAttribute("aria-label", `Code, ${language}`);
  pre.setAttribute("role", "group");
  frame.append(head, pre);
}

/** A part of an answer on the page. */
interface PartView {
  readonly element: HTMLElement;
  readonly type: Part["type"];
  /** Shows the part's text of now. */
  show(text: string): void;
  /** The text is whole. */
  finish(): void;
}

/** The words of an answer. */
class TextView implements PartView {
  readonly type = "text";
  readonly element = make("div", { class: "prose" });
  readonly #growing = new GrowingMarkdown();
  #text = "";
  #finished = "";
  #openHtml = "";
  #open: ChildNode[] = [];

  show(text: string): void {
    this.#growing.push(text.slice(this.#text.length));
    this.#text = text;
    const { finished, open } = this.#growing.take();
    const before = this.#open[0] ?? null;
    if (finished !== "") this.element.insertBefore(sanitize(finished), before);
    this.#finished += finished;
    if (open === this.#openHtml && finished === "") return;
    this.#openHtml = open;
    for (const node of this.#open) node.remove();
    const fragment = sanitize(open);
    this.#open = [...fragment.childNodes];
    this.element.append(fragment);
  }

  finish(): void {
    const whole = markdownToHtml(this.#text);
    if (this.#finished + this.#openHtml !== whole) this.element.replaceChildren(sanitize(whole));
  }
}

/** A call of the calculator, and its result once it is there. */
class CallView implements PartView {
  readonly type = "python";
  readonly element: HTMLElement;
  readonly #expression = make("code", { class: "call-expression" });
  readonly #result = make("output", { class: "call-result", text: "…" });

  constructor() {
    const row = make("div", {
      class: "call-row",
      children: [this.#expression, make("span", { text: "=" }), this.#result],
    });
    this.element = make("figure", {
      class: "call",
      attributes: { "aria-label": "Calculator" },
      children: [make("figcaption", { children: [icon("calculator"), "Calculator"] }), row],
    });
  }

  show(text: string): void {
    this.#expression.textContent = text;
  }

  showResult(text: string): void {
    this.#result.textContent = text;
  }

  finish(): void {}
}

/** The body of an answer; `show` takes the parts of now, which only grow. */
export class AnswerBody {
  readonly element = make("div", { class: "answer-body" });
  readonly #views: PartView[] = [];

  /** Shows the parts; the last one may still grow. */
  show(parts: readonly Part[]): void {
    for (const [i, { type, text }] of parts.entries()) {
      if (i < this.#views.length - 1) continue; // whole since another one began
      this.#viewOf(i, type).show(text);
    }
  }

  /** The answer is whole. */
  finish(): void {
    this.#views.at(-1)?.finish();
  }

  #viewOf(i: number, type: Part["type"]): PartView {
    if (i < this.#views.length) return this.#views[i];
    const before = this.#views.at(-1);
    before?.finish();
    let view: PartView;
    if (type === "text") view = new TextView();
    else if (type === "python") view = new CallView();
    else view = resultView(before);
    if (view.element !== before?.element) this.element.append(view.element);
    this.#views.push(view);
    return view;
  }
}

/** The result of the call before it; alone it stands as a card without expression. */
function resultView(before: PartView | undefined): PartView {
  const call = before instanceof CallView ? before : new CallView();
  return {
    type: "python_output",
    element: call.element,
    show: (text) => call.showResult(text.trim()),
    finish: () => {},
  };
}
