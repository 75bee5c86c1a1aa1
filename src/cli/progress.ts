/**
 * What a command says: results on stdout; messages, warnings and progress on stderr.
 *
 * On a terminal progress is one line that is drawn over itself; piped, it becomes plain lines a few seconds apart; with `--json` every
 * message and result is one object a line. Everything passes `printable`, so no text can steer the terminal.
 */
import { bold, dim, red, setColorEnabled, yellow } from "@std/fmt/colors";
import { format as formatDuration } from "@std/fmt/duration";
import type { Log, Progress } from "../data/log.ts";
import { jsonText, printable } from "./printable.ts";

/** A place to write to. */
export interface Sink {
  write(text: string): void;
  isTerminal(): boolean;
  /** Width in columns; only asked on a terminal. */
  columns(): number;
}

/** How a terminal behaves. */
export interface TerminalOptions {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly out: Sink;
  readonly err: Sink;
  /** Milliseconds since some start. */
  readonly now?: () => number;
}

const REDRAW_MS = 100;
const PLAIN_MS = 5000;
const MANY = 1e6; // units that nobody counts, such as bytes: only their share is shown

/** The two standard streams as sinks. */
export function standardSinks(): { out: Sink; err: Sink } {
  const encoder = new TextEncoder();
  const sink = (stream: typeof Deno.stdout): Sink => ({
    write(text) {
      let bytes = encoder.encode(text);
      while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes));
    },
    isTerminal: () => stream.isTerminal(),
    columns: () => Deno.consoleSize().columns,
  });
  return { out: sink(Deno.stdout), err: sink(Deno.stderr) };
}

/** The log of the command line. */
export class Terminal implements Log {
  readonly json: boolean;
  readonly verbose: boolean;
  readonly #quiet: boolean;
  readonly #out: Sink;
  readonly #err: Sink;
  readonly #now: () => number;
  #drawn = false;
  #label = "";
  #finished = "";
  #start = { ms: 0, done: 0 };
  #lastMs = -Infinity;

  constructor(options: TerminalOptions) {
    this.json = options.json;
    this.verbose = options.verbose;
    this.#quiet = options.quiet;
    this.#out = options.out;
    this.#err = options.err;
    this.#now = options.now ?? (() => performance.now());
  }

  /** True where results go to a terminal and may be coloured and drawn. */
  get isTerminal(): boolean {
    return this.#out.isTerminal() && !this.json;
  }

  /** Writes a result; with `--json`, `object` in its place. */
  result(text: string, object?: unknown): void {
    this.#clear();
    if (this.json) this.#out.write(jsonText(object ?? { text }) + "\n");
    else this.#out.write(printable(text) + "\n");
  }

  /** Writes text that this program made itself, colour codes and all, without a line break of its own. */
  raw(text: string): void {
    this.#clear();
    this.#out.write(text);
  }

  /** The terminal on which a dialogue takes place, stdout or else stderr; undefined where neither is one. */
  get screen(): { write(text: string): void; columns(): number } | undefined {
    const sink = [this.#out, this.#err].find((sink) => sink.isTerminal());
    return sink && {
      write: (text) => {
        this.#clear();
        sink.write(text);
      },
      columns: () => sink.columns(),
    };
  }

  info(message: string): void {
    if (this.#quiet) return;
    this.#message("info", message, (text) => text);
  }

  /** Tells what was asked for in a dialogue: on stderr like a message, but also where no messages are wanted. */
  tell(message: string): void {
    this.#message("info", message, (text) => text);
  }

  warn(message: string): void {
    this.#message("warning", message, (text) => yellow(`Warning: ${text}`));
  }

  /** Says why the command failed; `detail` (a stack) only with `--verbose`. */
  error(message: string, detail?: string): void {
    this.#message("error", message, (text) => red(text));
    if (this.verbose && detail && !this.json) this.#err.write(dim(printable(detail)) + "\n");
  }

  progress(state: Progress): void {
    if (this.#quiet) return;
    const now = this.#now();
    const isNew = state.label !== this.#label;
    const isLast = state.total > 0 && state.done >= state.total;
    if (isNew) {
      this.#label = state.label;
      this.#start = { ms: now, done: state.done };
    }
    const drawsOver = this.#err.isTerminal() && !this.json;
    if (isLast && state.label === this.#finished) return; // said twice
    this.#finished = isLast ? state.label : "";
    if (!isNew && !isLast && now - this.#lastMs < (drawsOver ? REDRAW_MS : PLAIN_MS)) return;
    this.#lastMs = now;
    if (this.json) {
      this.#err.write(jsonText({ level: "progress", ...state }) + "\n");
    } else if (drawsOver) {
      const line = printable(progressLine(state, { elapsedMs: now - this.#start.ms, since: this.#start.done }), {
        oneLine: true,
      });
      const fitted = [...line].slice(0, Math.max(20, this.#err.columns() - 1)).join("");
      this.#err.write(`\r\x1b[2K${bold(fitted)}${isLast ? "\n" : ""}`);
      this.#drawn = !isLast;
    } else {
      this.#err.write(
        printable(progressLine(state, { elapsedMs: now - this.#start.ms, since: this.#start.done }), {
          oneLine: true,
        }) + "\n",
      );
    }
    if (isLast) this.#label = "";
  }

  /** Removes the progress line, if one is drawn. */
  #clear(): void {
    if (this.#drawn) this.#err.write("\r\x1b[2K");
    this.#drawn = false;
  }

  #message(level: string, message: string, paint: (text: string) => string): void {
    this.#clear();
    this.#err.write(`${this.json ? jsonText({ level, message }) : paint(printable(message))}\n`);
  }
}

/** Text of a progress line: label, share, detail, and the time left as it follows from what was done in `elapsedMs`, from `since` on. */
export function progressLine(state: Progress, { elapsedMs, since }: { elapsedMs: number; since: number }): string {
  const { label, done, total, detail } = state;
  const parts = [label];
  const percent = `${Math.floor(100 * done / total)} %`;
  if (total > 0) parts.push(total < MANY ? `${done}/${total} (${percent})` : percent);
  else parts.push(String(done));
  if (detail) parts.push(detail);
  if (done > since && done < total && elapsedMs > 2000) {
    const leftSec = Math.ceil(elapsedMs * (total - done) / (done - since) / 1000);
    parts.push(`${formatDuration(leftSec * 1000, { ignoreZero: true })} left`);
  }
  return parts.join("  ");
}

/** Colours are used where stderr or stdout is a terminal and `NO_COLOR` is not set. */
export function chooseColors(env: Readonly<Record<string, string>>, isTerminal: boolean): void {
  setColorEnabled(isTerminal && !env.NO_COLOR && env.TERM !== "dumb");
}
