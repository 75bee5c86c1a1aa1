/**
 * What a chat reads: lines of a stream, messages of one or several lines, and Ctrl-C, which stops the answer while one runs and is reported
 * while a line is awaited. On a terminal `line_editor.ts` reads instead.
 */

/** Where a chat reads and what can interrupt it. */
export interface ChatInput {
  /** True where a person types: mistakes are answered, and end nothing. */
  readonly isTerminal: boolean;
  /** Reads a line; null at the end of the input. A Ctrl-C while it waits rejects with an Interrupted. */
  readLine(prompt: string, options?: ReadOptions): Promise<string | null>;
  /** Returns a signal that the next Ctrl-C aborts, until it is disposed. */
  interruptible(): { readonly signal: AbortSignal } & Disposable;
}

/** How a line is read. */
export interface ReadOptions {
  /** Keeps the line out of the history: it answers a question of the program. */
  readonly forget?: boolean;
}

/** Ctrl-C while a line was awaited. */
export class Interrupted extends Error {}

/** What was typed, without the marks that held its lines together. */
export interface Typed {
  readonly text: string;
  /** False for a block between `"""`, whose first word is no command. */
  readonly mayBeCommand: boolean;
}

const OPENING = /^\s*(\/\S+\s+)?"""[^\S\n]*\n?/;
const CLOSING = /\n?[^\S\n]*"""\s*$/;
const MORE = "... ";

/**
 * Reads a message: a line; lines of which each but the last ends in a backslash; or all lines between two `"""`, as they are. A
 * command may stand in front of the first `"""`. The end of the input ends the message too; null where there is none.
 */
export async function readMessage(input: ChatInput): Promise<Typed | null> {
  let text = await input.readLine("> ");
  if (text === null) return null;
  const [opening, command = ""] = OPENING.exec(text) ?? [];
  if (opening !== undefined) {
    text = text.slice(opening.length);
    let isFirst = text === "";
    while (!CLOSING.test(text)) {
      const line = await input.readLine(MORE);
      if (line === null) break;
      text = isFirst ? line : `${text}\n${line}`;
      isFirst = false;
    }
    return { text: command + text.replace(CLOSING, ""), mayBeCommand: command !== "" };
  }
  while (/(^|[^\\])(\\\\)*\\$/.test(text)) {
    const line = await input.readLine(MORE);
    text = `${text.slice(0, -1)}\n${line ?? ""}`;
    if (line === null) break;
  }
  return { text: text.trim(), mayBeCommand: true };
}

/** Where Ctrl-C comes from. */
export interface InterruptSource {
  add(listener: () => void): void;
  remove(listener: () => void): void;
}

/** The signal that a terminal sends at Ctrl-C. */
export const SIGINT: InterruptSource = {
  add: (listener) => Deno.addSignalListener("SIGINT", listener),
  remove: (listener) => Deno.removeSignalListener("SIGINT", listener),
};

/** Gives Ctrl-C to whoever waits: an answer, else a line. */
export class Interrupts implements Disposable {
  readonly #source: InterruptSource;
  readonly #onSignal = () => this.#answer ? this.#answer.abort() : this.#onLine?.();
  #answer: AbortController | undefined;
  #onLine: (() => void) | undefined;

  /** Listens until disposed. */
  constructor(source: InterruptSource) {
    this.#source = source;
    source.add(this.#onSignal);
  }

  /** Returns a signal that the next Ctrl-C aborts, until it is disposed. */
  forAnswer(): { readonly signal: AbortSignal } & Disposable {
    const controller = new AbortController();
    this.#answer = controller;
    return { signal: controller.signal, [Symbol.dispose]: () => void (this.#answer = undefined) };
  }

  /** Calls `listener` at each Ctrl-C until disposed. */
  forLine(listener: () => void): Disposable {
    this.#onLine = listener;
    return { [Symbol.dispose]: () => void (this.#onLine = undefined) };
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    this.#source.remove(this.#onSignal);
  }
}

/** Reads lines of a stream of bytes as UTF-8. */
export class LineInput implements ChatInput, AsyncDisposable {
  readonly isTerminal: boolean;
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #prompt: ((text: string) => void) | undefined;
  readonly #interrupts: Interrupts;
  #buffer = "";
  #ended = false;
  #pending: Promise<ReadableStreamReadResult<string>> | undefined;

  /** `prompt` shows the prompt of a line, where a person types. */
  constructor(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    { prompt, interrupts = SIGINT }: { prompt?: (text: string) => void; interrupts?: InterruptSource } = {},
  ) {
    this.#reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    this.isTerminal = prompt !== undefined;
    this.#prompt = prompt;
    this.#interrupts = new Interrupts(interrupts);
  }

  async readLine(prompt: string): Promise<string | null> {
    this.#prompt?.(prompt);
    for (;;) {
      const end = this.#buffer.indexOf("\n");
      if (end >= 0) {
        const line = this.#buffer.slice(0, end).replace(/\r$/, "");
        this.#buffer = this.#buffer.slice(end + 1);
        return line;
      }
      if (this.#ended) {
        const rest = this.#buffer;
        this.#buffer = "";
        return rest === "" ? null : rest;
      }
      const { value, done } = await this.#read();
      if (done) this.#ended = true;
      else this.#buffer += value;
    }
  }

  /** Awaits input or Ctrl-C; a read that was interrupted stays pending and serves the next line. */
  async #read(): Promise<ReadableStreamReadResult<string>> {
    this.#pending ??= this.#reader.read();
    const interrupted = Promise.withResolvers<never>();
    using _ = this.#interrupts.forLine(() => {
      this.#prompt?.("\n"); // the terminal has written ^C
      interrupted.reject(new Interrupted());
    });
    const result = await Promise.race([this.#pending, interrupted.promise]);
    this.#pending = undefined;
    return result;
  }

  interruptible(): { readonly signal: AbortSignal } & Disposable {
    return this.#interrupts.forAnswer();
  }

  /** Stops listening. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#interrupts[Symbol.dispose]();
    await this.#reader.cancel().catch(() => {}); // the stream may have failed; nothing more is read from it
  }
}
