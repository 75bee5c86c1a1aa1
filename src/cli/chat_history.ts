/**
 * The lines that were typed in chats, for the arrow keys of the next one: a file that its owner alone can read, each line a JSON string.
 * Several chats may append to it at once. Only what was typed on a terminal comes here.
 */
import { dirname } from "@std/path";
import type { Log } from "../data/log.ts";
import { plainOsError } from "./os_error.ts";

const SIZE = 1000;
const MAX_ENTRY_CHARS = 10_000;

/** A history of lines. */
export class ChatHistory {
  /** Lines that are kept. */
  readonly size = SIZE;
  /** Lines of earlier chats, the newest first. */
  readonly entries: readonly string[];
  readonly #path: string;
  readonly #log: Log;
  #isWritable = true;

  /** Reads what is in a file, or nothing where there is none; a file that has become long is cut to its newest lines. */
  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
    const lines = this.#read();
    this.entries = lines.slice(-SIZE).reverse();
    if (lines.length > 2 * SIZE) this.#try(() => this.#rewrite());
  }

  /** Adds a line, unless it is very long. A failure is said once; the chat goes on without. */
  add(line: string): void {
    if (line.length > MAX_ENTRY_CHARS || !this.#isWritable) return;
    this.#try(() => {
      Deno.mkdirSync(dirname(this.#path), { recursive: true });
      Deno.writeTextFileSync(this.#path, `${JSON.stringify(line)}\n`, { append: true, mode: 0o600 });
    });
  }

  #read(): string[] {
    try {
      return Deno.readTextFileSync(this.#path).split("\n").flatMap(readLine);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) this.#fail(error as Error);
      return [];
    }
  }

  #rewrite(): void {
    const temporary = `${this.#path}.${Deno.pid}.tmp`;
    const text = this.entries.toReversed().map((entry) => `${JSON.stringify(entry)}\n`).join("");
    Deno.writeTextFileSync(temporary, text, { mode: 0o600 });
    Deno.renameSync(temporary, this.#path);
  }

  #try(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #fail({ message }: Error): void {
    if (this.#isWritable) {
      this.#log.warn(plainOsError(`The lines of this chat are not kept in "${this.#path}": ${message}`));
    }
    this.#isWritable = false;
  }
}

/** Reads a line of the file; what is no JSON string is passed over. */
function readLine(line: string): string[] {
  try {
    const entry: unknown = JSON.parse(line);
    return typeof entry === "string" && entry !== "" ? [entry] : [];
  } catch {
    return [];
  }
}
