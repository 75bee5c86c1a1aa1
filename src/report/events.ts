/**
 * `events.jsonl`: one JSON line for each step of a run, behind a head line with format and version, which files of 0.1.0 lack. Progress,
 * report, plots and exports read this one file.
 *
 * A line is appended with one write, so a crash tears at most the last line; a reader ignores it and the next writer removes it. A
 * resumed run removes the lines of the steps that it will compute again and leaves a line of kind "resume": no step occurs twice.
 */
import { join } from "@std/path";
import { type Format, formatProblem, FORMATS } from "../data/formats.ts";
import type { Log } from "../data/log.ts";
import { SILENT } from "../data/log.ts";

/** File name of the events of a run. */
export const EVENTS_FILE = "events.jsonl";

/**
 * What a line is about: "step" an update, "eval" a measurement without one, "resume" the point where a run went on, "end" the end.
 */
export type EventKind = "step" | "eval" | "resume" | "end";

/** One line. Fields that were not measured are absent; a loss that is no number is null. */
export interface RunEvent {
  /** What the line is about. */
  readonly kind: EventKind;
  /** Name of the run, `--run`. */
  readonly run: string;
  /** "step": the number of updates before this one; else the number of updates so far. */
  readonly step: number;
  /** Number of updates of the whole run. */
  readonly steps?: number;
  /** Training loss in nats per token. */
  readonly loss?: number | null;
  /** Validation bits per byte. */
  readonly bpb?: number | null;
  /** Multiplier of the learning rates. */
  readonly lr?: number;
  /** Norm of the gradient before clipping. */
  readonly gradNorm?: number | null;
  /** Tokens trained on per second. */
  readonly tokPerSec?: number;
  /** Model FLOPs utilisation, 0 to 1. */
  readonly mfu?: number;
  /** Peak memory of the device in bytes. */
  readonly memory?: number;
  /** Hash of the step's tokens: equal hashes, equal batches. */
  readonly batchHash?: string;
  /** Duration of the step in milliseconds. */
  readonly timeMs?: number;
  /** Training time of the run so far in milliseconds. */
  readonly totalTimeMs?: number;
  /** Further measurements by name: CORE, rewards, task accuracies. */
  readonly values?: Readonly<Record<string, number | null>>;
}

/** Writer of an events file. */
export class EventLog implements Disposable {
  #file: Deno.FsFile | null;
  readonly #path: string;
  readonly #log: Log;
  /** "kind step" of lines that a resumed run would write a second time. */
  readonly #present = new Set<string>();
  /** Bytes that wait for the file, or that a full disk refused; they go first at the next write. */
  #pending = new Uint8Array(0);
  #isRefused = false; // the last write failed
  #open = true;

  private constructor(path: string, { file, log }: { file: Deno.FsFile | null; log: Log }) {
    this.#path = path;
    this.#file = file;
    this.#log = log;
  }

  /** Starts a new file in a folder, replacing one that is there. */
  static create(folder: string, log: Log = SILENT): EventLog {
    const events = EventLog.hold(folder, log);
    events.release();
    return events;
  }

  /** Keeps the lines in memory, and leaves a file that is there as it is, until `release`. */
  static hold(folder: string, log: Log = SILENT): EventLog {
    Deno.mkdirSync(folder, { recursive: true });
    const events = new EventLog(join(folder, EVENTS_FILE), { file: null, log });
    events.#pending = HEAD;
    return events;
  }

  /** Replaces the file by the lines so far; the next ones follow them. */
  release(): void {
    if (this.#file !== null) return;
    this.#file = Deno.openSync(this.#path, { write: true, create: true, truncate: true });
    this.#write(this.#file);
  }

  /**
   * Goes on with the file of a run that is resumed at `step`: removes a torn last line and the lines of later steps, then marks the
   * resume. Measurements taken at `step` itself stay, and are not written again.
   */
  static resume(folder: string, options: { run: string; step: number; log?: Log }): EventLog {
    const { run, step, log = SILENT } = options;
    Deno.mkdirSync(folder, { recursive: true });
    const path = join(folder, EVENTS_FILE);
    const file = Deno.openSync(path, { read: true, write: true, create: true });
    const events = new EventLog(path, { file, log });
    let keep = 0;
    const bytes = Deno.readFileSync(path);
    for (const { event, end } of parseLines(bytes, { path, complain: (message) => log.warn(`${path}: ${message}`) })) {
      const isPast = event.kind === "step" ? event.step < step : event.step <= step && event.kind !== "end";
      if (!isPast) break;
      keep = end;
      if (event.kind === "eval" && event.step === step) events.#present.add(keyOf(event));
    }
    file.truncateSync(keep);
    file.seekSync(keep, Deno.SeekMode.Start);
    if (keep === 0) events.#pending = HEAD;
    events.append({ kind: "resume", run, step });
    return events;
  }

  /** Appends one line with one write. A full disk does not end the run: it is reported once and the line is written later. */
  append(event: RunEvent): void {
    if (this.#present.has(keyOf(event))) return;
    const line = new TextEncoder().encode(JSON.stringify(event, nonFiniteIsNull) + "\n");
    this.#pending = joined(this.#pending, line);
    if (this.#file !== null) this.#write(this.#file);
  }

  /** Writes what waits, with one call; what the disk refuses goes on waiting. */
  #write(file: Deno.FsFile): void {
    try {
      this.#pending = this.#pending.slice(file.writeSync(this.#pending));
      this.#isRefused = false;
    } catch (error) {
      const refusal = `Cannot write ${EVENTS_FILE}: ${(error as Error).message}; its lines are kept`;
      if (!this.#isRefused) this.#log.warn(refusal);
      this.#isRefused = true;
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    if (!this.#open || this.#file === null) return;
    this.#open = false;
    try {
      this.#file.writeSync(this.#pending);
    } catch (error) {
      this.#log.warn(`Cannot write the last lines of ${EVENTS_FILE}: ${(error as Error).message}`);
    }
    this.#file.close();
  }
}

const HEAD = new TextEncoder().encode(`${JSON.stringify(FORMATS.events)}\n`);

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

function keyOf(event: RunEvent): string {
  return `${event.kind} ${event.step}`;
}

/**
 * Reads an events file; a torn last line is ignored, any other malformed line is named to the log and left out.
 *
 * @throws {Error} where it cannot be read, {SyntaxError} for another version of the format.
 */
export function readEvents(path: string, log: Log = SILENT): RunEvent[] {
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (cause) {
    throw new Error(`Cannot read the events at "${path}": ${(cause as Error).message}`, { cause });
  }
  return [...parseLines(bytes, { path, complain: (message) => log.warn(`${path}: ${message}`) })].map(({ event }) =>
    event
  );
}

/** Follows an events file: each call gives the lines that were completed since the last one. */
export class EventTail {
  readonly #path: string;
  #at = 0;
  /** The bytes before `#at`, to notice that a resume cut the file and wrote it anew. */
  #before = new Uint8Array(0);

  /** Follows the file at a path. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Reads what is new. `restarted` is true where earlier lines were removed by a resume: then all lines are given again. */
  read(): { events: RunEvent[]; restarted: boolean } {
    using file = Deno.openSync(this.#path);
    const before = readAt(file, this.#at - this.#before.length, this.#before.length);
    const restarted = before.length !== this.#before.length || before.some((byte, i) => byte !== this.#before[i]);
    if (restarted) this.#at = 0;
    const bytes = readAt(file, this.#at, Math.max(0, file.statSync().size - this.#at));
    const events = [...parseLines(bytes, { path: this.#path, complain: () => {} })].map(({ event }) => event);
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    this.#at += end;
    if (end > 0) this.#before = bytes.slice(Math.max(0, end - COMPARED_BYTES), end);
    return { events, restarted };
  }
}

const COMPARED_BYTES = 512;

function readAt(file: Deno.FsFile, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  let filled = 0;
  for (let n; filled < length && (n = file.readSync(bytes.subarray(filled))); filled += n);
  return bytes.subarray(0, filled);
}

const NEWLINE = 10;

/** Gives the well-formed lines with the offset of their end; `complain` hears of malformed ones that are not the torn last one. */
function* parseLines(
  bytes: Uint8Array,
  { path, complain }: { readonly path: string; readonly complain: (message: string) => void },
): Generator<{ event: RunEvent; end: number }> {
  let line = 0;
  for (let begin = 0; begin < bytes.length;) {
    const newline = bytes.indexOf(NEWLINE, begin);
    if (newline < 0) return; // torn
    line++;
    const value = parseLine(bytes.subarray(begin, newline));
    begin = newline + 1;
    if (isEvent(value)) yield { event: value, end: begin };
    else if (line === 1 && isHead(value, path)) continue;
    else complain(`line ${line} is no event and is left out`);
  }
}

const KINDS: readonly unknown[] = ["step", "eval", "resume", "end"] satisfies EventKind[];

function parseLine(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

function isEvent(value: unknown): value is RunEvent {
  const { kind, step, run } = (value ?? {}) as Partial<RunEvent>;
  return KINDS.includes(kind) && Number.isSafeInteger(step) && typeof run === "string";
}

/** Tells whether a line is the head. @throws {SyntaxError} for that of another version. */
function isHead(value: unknown, path: string): boolean {
  if ((value as Partial<Format> | undefined)?.format !== FORMATS.events.format) return false;
  const problem = formatProblem(value, { expected: FORMATS.events });
  if (problem) throw new SyntaxError(`Cannot read "${path}": ${problem}`);
  return true;
}

function nonFiniteIsNull(_key: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? null : value;
}
