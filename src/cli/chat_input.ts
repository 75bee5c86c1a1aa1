/** Lines from standard input, and Ctrl-C: while an answer runs it stops the answer, while a line is awaited it is reported. */
import { type ChatInput, Interrupted } from "./chat.ts";

/** Where Ctrl-C comes from. */
export interface InterruptSource {
  add(listener: () => void): void;
  remove(listener: () => void): void;
}

const SIGINT: InterruptSource = {
  add: (listener) => Deno.addSignalListener("SIGINT", listener),
  remove: (listener) => Deno.removeSignalListener("SIGINT", listener),
};

/** Reads lines of a stream of bytes as UTF-8. */
export class LineInput implements ChatInput, AsyncDisposable {
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #prompt: (text: string) => void;
  readonly #source: InterruptSource;
  readonly #onSignal = () => this.#interrupt();
  #buffer = "";
  #ended = false;
  #pending: Promise<ReadableStreamReadResult<string>> | undefined;
  #rejectLine: ((error: Error) => void) | undefined;
  #answer: AbortController | undefined;

  /** `prompt` shows the prompt of a line; listens for Ctrl-C until disposed. */
  constructor(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    { prompt, interrupts = SIGINT }: { prompt: (text: string) => void; interrupts?: InterruptSource },
  ) {
    this.#reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    this.#prompt = prompt;
    this.#source = interrupts;
    interrupts.add(this.#onSignal);
  }

  async readLine(prompt: string): Promise<string | null> {
    this.#prompt(prompt);
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
    const interrupted = new Promise<never>((_, reject) => this.#rejectLine = reject);
    try {
      const result = await Promise.race([this.#pending, interrupted]);
      this.#pending = undefined;
      return result;
    } finally {
      this.#rejectLine = undefined;
    }
  }

  interruptible(): { readonly signal: AbortSignal } & Disposable {
    const controller = new AbortController();
    this.#answer = controller;
    return { signal: controller.signal, [Symbol.dispose]: () => void (this.#answer = undefined) };
  }

  #interrupt(): void {
    if (this.#answer) this.#answer.abort();
    else this.#rejectLine?.(new Interrupted());
  }

  /** Stops listening. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#source.remove(this.#onSignal);
    await this.#reader.cancel().catch(() => {}); // the stream may have failed; nothing more is read from it
  }
}
