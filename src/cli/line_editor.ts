/**
 * Lines typed on a terminal: node's readline with arrow keys, a history and completion by Tab. The terminal hands over every key (raw but
 * for signals) as long as a chat runs, so that what is typed during an answer is neither shown in it nor lost.
 *
 * Pasted text is told from keys by the marks that the terminal sets around it (bracketed paste): its line breaks and tabs show as symbols
 * in the one line that is edited, and are what they were when it is read.
 */
import { createInterface, type Interface } from "node:readline";
import { Readable, Writable } from "node:stream";
import type { ChatHistory } from "./chat_history.ts";
import {
  type ChatInput,
  Interrupted,
  Interrupts,
  type InterruptSource,
  type ReadOptions,
  SIGINT,
} from "./chat_input.ts";
import { printable } from "./printable.ts";
import { EXIT } from "./signals.ts";

/** What a line editor works with. */
export interface EditorOptions {
  /** Keys as bytes. */
  readonly keys: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly screen: { write(text: string): void; columns(): number };
  readonly history: ChatHistory;
  /** Paints a prompt. */
  readonly paint: (prompt: string) => string;
  /** Lists what the beginning of a line may go on to. */
  readonly complete: (line: string) => readonly string[];
  /** Makes the terminal hand over every key, or lines again. */
  readonly setRaw: (isRaw: boolean) => void;
  readonly interrupts?: InterruptSource;
}

/** Keys, up to the end of a line at most, or a whole pasted text. */
export interface TypedPart {
  readonly isPasted: boolean;
  readonly text: string;
}

const PASTE = { begin: "\x1b[200~", end: "\x1b[201~", on: "\x1b[?2004h", off: "\x1b[?2004l" };
/** Signals after which a line is drawn anew, and those that end the program. */
const REDRAWN = ["SIGCONT", "SIGWINCH"] as const;
const KILLED = ["SIGTERM", "SIGHUP"] as const;
const BREAK = "\u2424"; // the symbol for newline
const TAB = "\u2409";

/** Turns a pasted text into one that fits in a line. */
export function packPaste(text: string): string {
  return printable(text.replaceAll("\t", TAB).replace(/\r\n?|\n/g, BREAK), { oneLine: true });
}

/** Turns a line into the text that it stands for. */
export function unpackPaste(line: string): string {
  return line.replaceAll(BREAK, "\n").replaceAll(TAB, "\t");
}

/** Tells pasted texts from keys in what a terminal sends, in pieces cut anywhere. */
export class PasteReader {
  #rest = "";
  #isPasted = false;

  /** Takes the next piece; gives the parts that are complete with it. */
  *push(text: string): Generator<TypedPart, void, void> {
    this.#rest += text;
    for (;;) {
      const mark = this.#isPasted ? PASTE.end : PASTE.begin;
      const at = this.#rest.indexOf(mark);
      if (!this.#isPasted) yield* this.#keys(at < 0 ? this.#rest.length - beginningOf(mark, this.#rest) : at);
      if (at < 0) return;
      if (this.#isPasted) yield { isPasted: true, text: this.#rest.slice(0, at) };
      this.#rest = this.#rest.slice(this.#rest.indexOf(mark) + mark.length);
      this.#isPasted = !this.#isPasted;
    }
  }

  *#keys(length: number): Generator<TypedPart, void, void> {
    const lines = this.#rest.slice(0, length).split(/(?<=[\r\n])/);
    this.#rest = this.#rest.slice(length);
    for (const text of lines) if (text !== "") yield { isPasted: false, text };
  }
}

/** Counts the characters at the end of a text that a mark begins with; one alone is the Escape key. */
function beginningOf(mark: string, text: string): number {
  for (let length = mark.length - 1; length > 1; length--) if (text.endsWith(mark.slice(0, length))) return length;
  return 0;
}

/** node's own type leaves out that the line can be read. */
type EditedInterface = Interface & { readonly line: string };

/** Reads edited lines. */
export class LineEditor implements ChatInput, AsyncDisposable {
  readonly isTerminal = true;
  readonly #options: EditorOptions;
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #interrupts: Interrupts;
  readonly #input = new Readable({ read() {} });
  readonly #readline: EditedInterface;
  readonly #onResize = () => this.#redraw();
  readonly #onKill = () => {
    this.#giveBack();
    Deno.exit(EXIT.KILLED);
  };
  readonly #pastes = new PasteReader();
  readonly #typed: TypedPart[] = []; // what no line has taken
  #isEnded = false;
  #isReading = false;
  #forgets = false;
  #newest: string | undefined;
  #pending: Promise<ReadableStreamReadResult<string>> | undefined;

  /** Takes the terminal over until disposed. */
  constructor(options: EditorOptions) {
    this.#options = options;
    const { keys, screen, history, complete, setRaw, interrupts = SIGINT } = options;
    this.#reader = keys.pipeThrough(new TextDecoderStream()).getReader();
    this.#interrupts = new Interrupts(interrupts);
    const output = new Writable({
      decodeStrings: false,
      write: (text, _encoding, done) => {
        screen.write(String(text));
        done();
      },
    });
    Object.defineProperty(output, "columns", { get: () => screen.columns() });
    this.#readline = createInterface({
      ...{ input: this.#input, output, terminal: true, historySize: history.size, removeHistoryDuplicates: true },
      history: [...history.entries],
      completer: (line: string) => [complete(line), line],
    }) as EditedInterface;
    this.#newest = history.entries[0];
    this.#readline.on("history", (entries: string[]) => {
      if (entries[0] === this.#newest) return; // typed twice, kept once
      if (this.#forgets) return void entries.shift();
      this.#newest = entries[0];
      history.add(entries[0]);
    });
    this.#readline.on("close", () => this.#isEnded = true);
    setRaw(true);
    for (const signal of REDRAWN) Deno.addSignalListener(signal, this.#onResize);
    for (const signal of KILLED) Deno.addSignalListener(signal, this.#onKill);
  }

  async readLine(prompt: string, { forget = false }: ReadOptions = {}): Promise<string | null> {
    if (this.#isEnded) return null;
    this.#forgets = forget;
    let line: string | null | undefined;
    const onLine = (given: string) => line = unpackPaste(given);
    this.#readline.once("line", onLine);
    this.#options.screen.write(PASTE.on);
    this.#readline.setPrompt(this.#options.paint(prompt));
    this.#readline.prompt();
    this.#isReading = true;
    try {
      while (line === undefined && !this.#isEnded) {
        const part = this.#typed.shift();
        if (part === undefined) await this.#read();
        else if (part.isPasted) this.#readline.write(packPaste(part.text));
        else this.#input.emit("data", part.text); // taken at once, unlike what is written to a stream
      }
      return line ?? null;
    } finally {
      this.#isReading = false;
      this.#readline.off("line", onLine);
      this.#options.screen.write(PASTE.off);
    }
  }

  /** Awaits keys or Ctrl-C, which empties a line and is reported at an empty one. */
  async #read(): Promise<void> {
    this.#pending ??= this.#reader.read();
    const interrupted = Promise.withResolvers<never>();
    using _ = this.#interrupts.forLine(() => {
      const isEmpty = this.#readline.line === "";
      this.#readline.write(null, { ctrl: true, name: "e" });
      this.#readline.write(null, { ctrl: true, name: "u" });
      this.#options.screen.write(isEmpty ? "\n" : "");
      if (isEmpty) interrupted.reject(new Interrupted());
    });
    const { value, done } = await Promise.race([this.#pending, interrupted.promise]);
    this.#pending = undefined;
    if (done) this.#readline.close();
    else this.#typed.push(...this.#pastes.push(value));
  }

  interruptible(): { readonly signal: AbortSignal } & Disposable {
    return this.#interrupts.forAnswer();
  }

  /** Draws the line anew: the window has another width, or the program was stopped and goes on. */
  #redraw(): void {
    this.#options.setRaw(true);
    if (this.#isReading) this.#readline.prompt(true);
  }

  #giveBack(): void {
    if (this.#isReading) this.#options.screen.write(`${PASTE.off}\n`);
    this.#options.setRaw(false);
  }

  /** Gives the terminal back. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const signal of REDRAWN) Deno.removeSignalListener(signal, this.#onResize);
    for (const signal of KILLED) Deno.removeSignalListener(signal, this.#onKill);
    this.#giveBack();
    this.#isReading = false;
    this.#readline.close();
    this.#interrupts[Symbol.dispose]();
    await this.#reader.cancel().catch(() => {}); // the stream may have failed; nothing more is read from it
  }
}
