/**
 * Markdown to HTML, for text that a model wrote and that may be hostile. Raw HTML and images are shown as the text that they are; links
 * go to http, https and mailto only. `render.ts` sanitizes the result once more; the page's security policy forbids the rest.
 */
import { Marked, type Token, type Tokens } from "marked";

const SAFE_LINK = /^(?:https?:\/\/|mailto:)/i;

/** Writes text so that HTML reads it as text. */
export function escapeHtml(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (letter) => names[letter]);
}

/** The same for words of markdown, in which an entity stands for its letter. */
function escapeWords(text: string): string {
  return text.split(/(&(?:#\d{1,7}|#x[0-9a-f]{1,6}|\w+);)/i).map((part, i) => i % 2 === 1 ? part : escapeHtml(part))
    .join("");
}

/** Whether a link leads where links of an answer may lead. */
export function isSafeLink(href: string): boolean {
  return SAFE_LINK.test(href) && URL.canParse(href);
}

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    text(token) {
      // Behind a raw tag marked calls text escaped that is not.
      const { tokens } = token as Tokens.Text;
      return tokens === undefined ? escapeWords(token.text) : this.parser.parseInline(tokens);
    },
    image: ({ raw }) => escapeHtml(raw),
    checkbox: ({ checked }) => checked ? "☑ " : "☐ ",
    code: ({ text, lang }) => {
      const name = (lang ?? "").match(/^[\w+#.-]{1,20}/)?.[0] ?? "";
      return `<pre data-lang="${escapeHtml(name)}"><code>${escapeHtml(text)}</code></pre>\n`;
    },
    link({ href, title, tokens, raw }) {
      if (!isSafeLink(href)) return escapeHtml(raw);
      const hint = title ? ` title="${escapeHtml(title)}"` : "";
      const target = `href="${escapeHtml(href)}" target="_blank" rel="noreferrer noopener"`;
      return `<a ${target}${hint}>${this.parser.parseInline(tokens)}</a>`;
    },
  },
});

/** Renders a whole text. */
export function markdownToHtml(text: string): string {
  return marked.parse(text, { async: false });
}

/** Finds the first block that may still change: the last one, and a list before it, whose next item begins like a paragraph. */
function firstOpen(blocks: readonly Token[]): number {
  const last = blocks.findLastIndex(({ type }) => type !== "space");
  const before = blocks.slice(0, Math.max(last, 0)).findLastIndex(({ type }) => type !== "space");
  return Math.max(blocks[before]?.type === "list" ? before : last, 0);
}

/**
 * Renders a text that grows: what stands before its last block is final and rendered once, only the last block again and again. A link
 * whose address follows later than its block is the exception; `markdownToHtml` of the whole text has the last word.
 */
export class GrowingMarkdown {
  /** What is not final yet. */
  #open = "";

  /** Adds text. */
  push(text: string): void {
    this.#open += text.replaceAll("\r", "");
  }

  /** Gives the HTML of the blocks that became final since the last call, and of the block that is still open. */
  take(): { readonly finished: string; readonly open: string } {
    const blocks = marked.lexer(this.#open);
    const done: Token[] = blocks.slice(0, firstOpen(blocks));
    const raw = done.map(({ raw }) => raw).join("");
    if (!this.#open.startsWith(raw)) return { finished: "", open: marked.parser(blocks) }; // tabs that became blanks
    this.#open = this.#open.slice(raw.length);
    return { finished: marked.parser(done), open: marked.parser(blocks.slice(done.length)) };
  }
}
