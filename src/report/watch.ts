/**
 * `nanochat report --watch RUN`: the losses of a run so far, drawn as text.
 *
 * Takes events, gives lines; nothing here prints. A character cell holds 2 x 4 dots of the Braille block (Unicode 10.1, U+2800..U+28FF).
 */
import { join, resolve } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { format as formatDuration } from "@std/fmt/duration";
import { entries, listPlaces, STAGES } from "../data/base_dir.ts";
import { EVENTS_FILE, EventTail, readEvents } from "./events.ts";
import type { RunEvent } from "./events.ts";

/** Size of the drawing in characters. */
export interface DrawSize {
  /** Columns. */
  readonly width: number;
  /** Lines. */
  readonly height: number;
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/** The state of a run as its events tell it; the same events always give the same drawing. */
export class RunView {
  #run = "";
  #steps = 0;
  #last: RunEvent | undefined;
  #lastStep: RunEvent | undefined;
  #ended = false;
  #loss: Point[] = [];
  #bpb: Point[] = [];
  #resumes: number[] = [];

  /** Whether the run's last event says that it has ended. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Takes further events in the order of the file. */
  add(events: readonly RunEvent[]): void {
    for (const event of events) {
      this.#run = event.run;
      this.#steps = event.steps ?? this.#steps;
      this.#last = event;
      this.#ended = event.kind === "end";
      if (event.kind === "resume") {
        this.#resumes.push(event.step);
        this.#loss = this.#loss.filter(({ x }) => x < event.step);
        this.#bpb = this.#bpb.filter(({ x }) => x <= event.step);
      }
      if (event.kind === "step") this.#lastStep = event;
      if (typeof event.loss === "number") this.#loss.push({ x: event.step, y: event.loss });
      if (typeof event.bpb === "number") this.#bpb.push({ x: event.step, y: event.bpb });
    }
  }

  /** Draws the state in at most the given size: a headline, the training loss and, where it was measured, the validation bits per byte. */
  draw({ width, height }: DrawSize): string[] {
    const lines = [this.#headline(width)];
    if (this.#loss.length === 0 && this.#bpb.length === 0) return [...lines, "No loss has been logged yet."];
    const plots = [{ title: "training loss", points: this.#loss }, {
      title: "validation bits per byte",
      points: this.#bpb,
    }]
      .filter(({ points }) => points.length > 0);
    // Below this, a second plot would leave neither readable.
    const shown = height < 16 ? plots.slice(0, 1) : plots;
    const xMax = Math.max(...shown.flatMap(({ points }) => [points.at(-1)!.x]), 1);
    const rows = Math.max(2, Math.floor((height - 1) / shown.length) - 3);
    for (const { title, points } of shown) {
      lines.push(...plot(points, { title, xMax, width: Math.max(24, width), rows, marks: this.#resumes }));
    }
    return lines;
  }

  #headline(width: number): string {
    const updates = this.#last === undefined ? 0 : this.#last.step + (this.#last.kind === "step" ? 1 : 0);
    const event = this.#lastStep;
    const left = this.#steps - updates;
    const of = this.#steps > 0 ? ` of ${this.#steps} (${Math.floor(100 * Math.min(1, updates / this.#steps))}%)` : "";
    const parts = [`run ${printable(this.#run) || "?"}`, `step ${updates}${of}`];
    if (this.#ended) parts.push("ended");
    else if (left > 0 && event?.timeMs) {
      const leftMs = 1000 * Math.ceil(left * event.timeMs / 1000);
      parts.push(`${formatDuration(leftMs, { ignoreZero: true })} left`);
    }
    if (typeof event?.loss === "number") parts.push(`loss ${event.loss.toFixed(4)}`);
    if (this.#bpb.length > 0) parts.push(`bpb ${this.#bpb.at(-1)!.y.toFixed(4)}`);
    if (event?.tokPerSec) parts.push(`${Math.round(event.tokPerSec)} tok/s`);
    if (event?.mfu) parts.push(`MFU ${(100 * event.mfu).toFixed(1)}%`);
    if (event?.memory) parts.push(formatBytes(event.memory));
    while (parts.length > 1 && parts.join("  ").length > width) parts.pop();
    return cut(parts.join("  "), width);
  }
}

interface PlotOptions {
  title: string;
  xMax: number;
  width: number;
  rows: number;
  marks: readonly number[];
}

/** Draws a curve over steps 0..xMax: the mean of the points that fall on one column of dots, neighbours connected. */
function plot(points: readonly Point[], options: PlotOptions): string[] {
  const { title, xMax, width, rows, marks } = options;
  const low = points.reduce((least, { y }) => Math.min(least, y), Infinity);
  const high = points.reduce((most, { y }) => Math.max(most, y), -Infinity);
  const labels = [high, low].map((value) => value.toPrecision(4));
  const margin = Math.max(...labels.map((label) => label.length));
  const canvas = new Braille(width - margin - 2, rows);
  const column = (x: number) => Math.min(canvas.dotsX - 1, Math.floor((x / xMax) * (canvas.dotsX - 1)));
  const row = (y: number) => Math.round((high === low ? 0.5 : (high - y) / (high - low)) * (canvas.dotsY - 1));
  const sums = new Map<number, { sum: number; n: number }>();
  for (const { x, y } of points) {
    const cell = sums.get(column(x)) ?? { sum: 0, n: 0 };
    sums.set(column(x), { sum: cell.sum + y, n: cell.n + 1 });
  }
  let before: Point | undefined;
  for (const [x, { sum, n }] of [...sums].sort(([a], [b]) => a - b)) {
    const point = { x, y: row(sum / n) };
    canvas.line(before ?? point, point);
    before = point;
  }
  const axis = [..."─".repeat(width - margin - 2)];
  for (const mark of marks) if (mark <= xMax) axis[Math.floor(column(mark) / 2)] = "r";
  const lines = canvas.lines().map((text, i) => {
    const label = i === 0 ? labels[0] : i === rows - 1 ? labels[1] : "";
    return `${label.padStart(margin)} ${i === 0 || i === rows - 1 ? "┤" : "│"}${text}`;
  });
  const end = `step ${xMax}`;
  const under = `0${marks.length > 0 ? "  r = resumed" : ""}`;
  return [
    cut(`${" ".repeat(margin)} ${title}`, width),
    ...lines,
    `${" ".repeat(margin)} └${axis.join("")}`,
    cut(
      `${" ".repeat(margin + 2)}${under.padEnd(Math.max(under.length + 1, width - margin - 2 - end.length))}${end}`,
      width,
    ),
  ];
}

/** Bits of the eight dots of a cell, [row][column], from U+2800 on. */
const DOT = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/** A canvas of dots, y downwards. */
class Braille {
  readonly dotsX: number;
  readonly dotsY: number;
  readonly #columns: number;
  readonly #cells: Uint8Array;

  constructor(columns: number, rows: number) {
    this.#columns = columns;
    this.dotsX = 2 * columns;
    this.dotsY = 4 * rows;
    this.#cells = new Uint8Array(columns * rows);
  }

  line(from: Point, to: Point): void {
    const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y));
    for (let i = 0; i <= steps; i++) {
      const t = steps === 0 ? 0 : i / steps;
      this.#dot(Math.round(from.x + t * (to.x - from.x)), Math.round(from.y + t * (to.y - from.y)));
    }
  }

  #dot(x: number, y: number): void {
    this.#cells[(y >> 2) * this.#columns + (x >> 1)] |= DOT[y & 3][x & 1];
  }

  lines(): string[] {
    return Array.from({ length: this.dotsY / 4 }, (_, row) => {
      const cells = this.#cells.subarray(row * this.#columns, (row + 1) * this.#columns);
      return Array.from(cells, (dots) => dots === 0 ? " " : String.fromCharCode(0x2800 + dots)).join("").trimEnd();
    });
  }
}

/**
 * Follows a run: gives a drawing at once and one after each change, until the run ends or the signal fires.
 *
 * @param options.size asked before each drawing, as a terminal may change it
 * @param options.everyMs how often the file is looked at
 */
export async function* watchRun(
  path: string,
  options: { size: () => DrawSize; everyMs?: number; signal?: AbortSignal },
): AsyncGenerator<string[]> {
  const { size, everyMs = 1000, signal } = options;
  const tail = new EventTail(path);
  let view = new RunView();
  let first = true;
  while (!signal?.aborted) {
    const { events, restarted } = tail.read();
    if (restarted) view = new RunView();
    view.add(events);
    if (first || restarted || events.length > 0) yield view.draw(size());
    first = false;
    if (view.ended) return;
    await pause(everyMs, signal);
  }
}

/** A run that can be watched. */
export interface WatchedRun {
  /** The events file. */
  readonly path: string;
  /** `stage/tag` or `run/stage/tag`. */
  readonly name: string;
  /** Value of `--run`. */
  readonly run: string;
  /** Time of the last event, ms since 1970. */
  readonly changedMs: number;
}

/** Reads the value of `--run`; "" where there is no event yet, or another version wrote the file: it hides no other run. */
function runOf(path: string): string {
  try {
    return readEvents(path)[0]?.run ?? "";
  } catch (error) {
    if (error instanceof SyntaxError) return "";
    throw error;
  }
}

/** Lists the runs that have an events file, the most recent first. */
export function listWatched(base: string): WatchedRun[] {
  const found: WatchedRun[] = [];
  for (const place of listPlaces(base)) {
    for (const stage of STAGES) {
      for (const { name: tag } of entries(join(place.checkpoints, stage))) {
        const path = join(place.checkpoints, stage, tag, EVENTS_FILE);
        const changed = changedMs(path);
        if (changed === undefined) continue;
        const name = `${place.run === undefined ? "" : `${place.run}/`}${stage}/${tag}`;
        found.push({ path, name, run: runOf(path), changedMs: changed });
      }
    }
  }
  return found.sort((a, b) => b.changedMs - a.changedMs || (a.name < b.name ? -1 : 1));
}

/**
 * Finds the events of a run by the name of a recipe's run, `--run`, the model's name or its tag, or by a path; without a name, those
 * written last. Of several, the one written last is taken.
 *
 * @throws {Error} naming the runs that there are.
 */
export function findWatched(base: string, name?: string): WatchedRun {
  const all = listWatched(base);
  const found = name === undefined
    ? all[0]
    : all.find((run) => run.name === name || run.run === name || run.name.split("/").includes(name)) ??
      all.find((run) => run.name.endsWith(`/${name}`)) ?? atPath(name);
  if (found !== undefined) return found;
  const there = all.length === 0 ? "no run has logged anything" : `there are ${all.map(({ name }) => name).join(", ")}`;
  throw new Error(`Cannot find ${name === undefined ? "a run" : `run ${JSON.stringify(name)}`} in "${base}": ${there}`);
}

function atPath(path: string): WatchedRun | undefined {
  for (const file of [resolve(path), join(resolve(path), EVENTS_FILE)]) {
    const changed = changedMs(file);
    if (changed !== undefined) {
      return { path: file, name: path, run: readEvents(file)[0]?.run ?? "", changedMs: changed };
    }
  }
  return undefined;
}

function changedMs(path: string): number | undefined {
  try {
    const info = Deno.statSync(path);
    return info.isFile ? info.mtime?.getTime() ?? 0 : undefined;
  } catch {
    return undefined; // no such file
  }
}

/** Shows control characters of a foreign name as symbols. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "\u{fffd}");
}

function cut(text: string, width: number): string {
  return [...text].slice(0, width).join("");
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      resolve();
    };
    const timer = setTimeout(stop, ms);
    signal?.addEventListener("abort", stop);
  });
}
