/** The log of a run: what the terminal is told, and beside the checkpoints a `log.txt` with flags, versions, messages and warnings. */
import { join } from "@std/path";
import type { Log, Progress } from "../data/log.ts";
import { formatConfigValue } from "./config_file.ts";
import type { Setting } from "./parse.ts";
import { printable } from "./printable.ts";
import { VERSION } from "./version.ts";

/** Name of the file in the run's folder. */
export const LOG_FILE = "log.txt";

/** What stands at the head of the file. */
export interface RunHead {
  readonly command: string;
  readonly settings: ReadonlyMap<string, Setting>;
}

/**
 * Hands everything on and writes it to a file. The file is touched with the first progress of the run: a start that is refused, because
 * the folder holds another run, leaves no trace there.
 */
export class RunLog implements Log {
  readonly #log: Log;
  readonly #path: string;
  #waiting: string[];
  #started = false;

  constructor(log: Log, { folder, head }: { folder: string; head: RunHead }) {
    this.#log = log;
    this.#path = join(folder, LOG_FILE);
    const set = [...head.settings].filter(([_, { value, origin }]) => value !== undefined && origin !== "default");
    this.#waiting = [
      "",
      `${VERSION}: ${head.command}`,
      ...set.map(([name, { value, origin }]) => `  ${name} = ${formatConfigValue(value!)} (${origin})`),
    ];
  }

  info(message: string): void {
    this.#log.info(message);
    this.#write(message);
  }

  warn(message: string): void {
    this.#log.warn(message);
    this.#write(`Warning: ${message}`);
  }

  progress(state: Progress): void {
    this.#log.progress(state);
    if (this.#started) return;
    this.#started = true;
    this.#write();
  }

  #write(message?: string): void {
    const time = new Date().toISOString();
    if (message !== undefined) this.#waiting.push(printable(message, { oneLine: true }));
    if (!this.#started) return;
    const lines = this.#waiting.map((line) => line === "" ? "\n" : `${time} ${line}\n`);
    this.#waiting = [];
    Deno.writeTextFileSync(this.#path, lines.join(""), { append: true });
  }
}
