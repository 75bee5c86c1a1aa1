/**
 * Runs a recipe in `runs/<name>/` of the base folder. What a stage did is kept in `run.json` there: a stage that was finished with the
 * same flags, after the same stages, is not repeated; one that was interrupted goes on where it can.
 */
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { entries, type Folders, foldersOf, type Stage as TrainingStage, TOKENIZER_FILE } from "../data/base_dir.ts";
import type { Log, Progress } from "../data/log.ts";
import { findCheckpoint, listSteps } from "../model/checkpoint_folder.ts";
import { FolderLock } from "../model/lock.ts";
import { makeCard } from "../report/card.ts";
import { type Program, readEnvironment, readHeader, writeHeader } from "../report/environment.ts";
import { writeCard } from "../report/page.ts";
import { readSections } from "../report/sections.ts";
import { type Recipe, RECIPES, type Stage } from "./recipes.ts";
import { type Figures, readRecords, type Records, type StageRecord, writeRecords } from "./run_record.ts";

/** How the command of a stage is called. */
export interface StageCall {
  /** Folders of the run; the command takes their root as its base folder. */
  readonly folders: Folders;
  /** Shards of the recipe. */
  readonly dataDir: string;
  /** Folder with what `data fetch` brings: task sets, CORE's bundle, words, identity. */
  readonly assetDir: string;
  /** An earlier attempt was interrupted: go on where it can; else what it left is replaced. */
  readonly isResumed: boolean;
  readonly log: Log;
  readonly stop: AbortSignal;
}

/** How the command of a stage ended; a failure is thrown. */
export interface StageEnd {
  readonly stopped: boolean;
  /** Numbers of its result. */
  readonly figures: Figures;
}

/** Where a recipe runs and whom it tells. */
export interface RunContext {
  /** Base folder. */
  readonly base: string;
  readonly log: Log;
  /** Aborted when the user asks to stop: the stage in work saves and ends. */
  readonly stop: AbortSignal;
  /** Runs the command of a stage. */
  execute(stage: Stage, call: StageCall): Promise<StageEnd>;
  /** Shows a result: a text for people, an object for programs. */
  result(text: string, object?: unknown): void;
  /** Repeats this stage and those behind it. */
  readonly from?: string;
  /** Ends after this stage. */
  readonly until?: string;
  /** What the head of the report card says about the program. */
  readonly program?: Program;
  /** Price of an hour of the machine, for the report card. */
  readonly pricePerHour?: number;
  /** Milliseconds since some start; default: the clock. */
  readonly now?: () => number;
  /** Other recipes than the built-in ones. */
  readonly recipes?: Readonly<Record<string, Recipe>>;
}

/** How a recipe ended. */
export interface RunSummary {
  readonly stopped: boolean;
  readonly figures: Figures;
}

/** The time of a stage is recorded at most this often, for the case that the process is killed. */
const RECORD_INTERVAL_MS = 5_000;

/**
 * Runs the stages of a recipe that are not done yet. A stop or a failure is told at once: what goes on beside is not waited for, and the
 * next call takes it up where it was.
 *
 * @throws {RangeError} for a name that is no recipe or no stage; and what a stage throws.
 */
export async function runRecipe(name: string, cx: RunContext): Promise<RunSummary> {
  const recipe = findRecipe(name, cx.recipes);
  checkStages(recipe, cx);
  const places = placesOf(recipe, { name, base: cx.base });
  const { folders } = places;
  Deno.mkdirSync(folders.root, { recursive: true });
  using _lock = FolderLock.acquire(folders.root, { purpose: `nanochat run ${name}`, log: cx.log });
  const run = new Run(cx, { recipe, places });
  if (!await run.stages(name)) return { stopped: true, figures: run.figures() };
  const figures = run.figures();
  cx.result(run.summary(), figures);
  const environment = readHeader(folders.report) ?? readEnvironment(programOf(cx));
  const card = makeCard(readSections(folders.report), { name, environment, pricePerHour: cx.pricePerHour });
  const [_, page] = await writeCard(folders.report, card, cx.log);
  cx.log.info(`Report card: ${page}`);
  cx.log.info(`Next: ${recipe.next}`);
  return { stopped: false, figures };
}

/** Where a recipe keeps what it makes, and where its shards and what it fetches lie. */
export function placesOf(
  { data }: Recipe,
  { name, base }: { readonly name: string; readonly base: string },
): Pick<StageCall, "folders" | "dataDir" | "assetDir"> {
  const folders = foldersOf(base, name);
  const isOwn = data === "own";
  return { folders, dataDir: isOwn ? folders.data : foldersOf(base).data, assetDir: isOwn ? folders.root : base };
}

const programOf = ({ program = { version: "nanochat" } }: RunContext): Program => program;

/**
 * Finds a recipe.
 *
 * @throws {RangeError} for another name: it says what that may have meant, and lists the recipes.
 */
export function findRecipe(name: string, recipes: Readonly<Record<string, Recipe>> = RECIPES): Recipe {
  if (Object.hasOwn(recipes, name)) return recipes[name];
  const list = Object.entries(recipes).map(([each, { about }]) => `\n  nanochat run ${each}  ${about}`).join("");
  const size = /^d\d+$/.test(name)
    ? `"${name}" is the size of a model: "nanochat train --depth=${name.slice(1)}" trains one and ` +
      `"nanochat chat --model-tag=${name}" talks to it`
    : 'to talk to a model, type "nanochat chat"';
  throw new RangeError(`Cannot run ${JSON.stringify(name)}: no such recipe; ${size}. The recipes are${list}`);
}

function checkStages({ stages }: Recipe, { from, until }: RunContext): void {
  const names = stages.map((stage) => stage.name);
  for (const [verb, name] of [["repeat", from], ["stop after", until]]) {
    if (name === undefined || names.includes(name)) continue;
    throw new RangeError(
      `Cannot ${verb} stage "${name}": there is no such stage, expected one of: ${names.join(", ")}`,
    );
  }
}

/** What the commands that train make. */
const TRAINS: Readonly<Record<string, TrainingStage>> = { train: "base", mid: "mid", sft: "sft", rl: "rl" };

/** The stages of one run. */
class Run {
  readonly #cx: RunContext;
  readonly #recipe: Recipe;
  readonly #places: ReturnType<typeof placesOf>;
  readonly #records: Records;
  /** Stages that go on beside the others, by name. */
  readonly #background = new Map<string, Promise<boolean>>();

  constructor(cx: RunContext, { recipe, places }: { recipe: Recipe; places: ReturnType<typeof placesOf> }) {
    this.#cx = cx;
    this.#recipe = recipe;
    this.#places = places;
    this.#records = readRecords(places.folders);
  }

  /** Goes through all stages; false where the user stopped one. */
  async stages(name: string): Promise<boolean> {
    const { log, from, until, stop } = this.#cx;
    const { stages, about } = this.#recipe;
    let key = "";
    let isRepeating = false;
    for (const [i, stage] of stages.entries()) {
      if (stop.aborted) return false; // a short stage ends before it, and is done
      key = createHash("sha256").update(key + JSON.stringify(stage)).digest("hex").slice(0, 16);
      isRepeating ||= stage.name === from;
      const record = this.#records[stage.name];
      const title = `Stage ${i + 1} of ${stages.length}, ${stage.name}`;
      if (i > 0 && stages[i - 1].name === until) break;
      if (!isRepeating && record?.key === key && record.finished && this.#isPresent(stage)) {
        log.info(`${title}: done before, in ${duration(record.sec)}`);
        continue;
      }
      if (i === 0) writeHeader(this.#places.folders.report, readEnvironment(programOf(this.#cx)));
      if (i === 0 || !this.#records[stages[0].name]) log.info(`nanochat run ${name} ${about}`);
      for (const name of stage.needs ?? []) if (!await (this.#background.get(name) ?? true)) return false;
      log.info(`${title}: nanochat ${stage.command}${stage.background ? ", beside the next ones" : ""}`);
      const isResumed = !isRepeating && record?.key === key && !record.finished && this.#hasBegun(stage, record);
      const work = this.#run(stage, { key, isResumed });
      if (stage.background) {
        work.catch(() => {}); // awaited, and thrown, before the stage that needs it
        this.#background.set(stage.name, work);
      } else if (!await work) return false;
    }
    for (const work of this.#background.values()) if (!await work) return false;
    return true;
  }

  /** All figures of the stages, of the last one where several have it, and the time of all together. */
  figures(): Figures {
    const all = this.#recipe.stages.flatMap(({ name }) => this.#records[name] ?? []);
    const sec = all.reduce((sum, record) => sum + record.sec, 0);
    return Object.assign({}, ...all.map(({ figures }) => figures), { total_sec: sec });
  }

  /** The times of the stages and what they reached, as a text. */
  summary(): string {
    const row = (name: string, value: string) => `${name.padEnd(30)} ${value}`;
    const done = this.#recipe.stages.filter(({ name }) => this.#records[name]);
    const times = done.map(({ name }) => row(name, duration(this.#records[name].sec)));
    const { total_sec, val_bpb, markov2_bpb } = this.figures();
    const rows = [...times, row("total", duration(total_sec))];
    if (val_bpb !== undefined) rows.push(row("validation", `${val_bpb.toFixed(4)} bits per byte`));
    if (markov2_bpb !== undefined) {
      const share = `${(100 * val_bpb / markov2_bpb).toFixed(0)} %`;
      rows.push(
        row("Markov model of two bytes", `${markov2_bpb.toFixed(4)} bits per byte: the model needs ${share} of that`),
      );
    }
    return [...rows, ...scoreTable(done.map(({ name }) => [name, this.#records[name].figures]))].join("\n");
  }

  /** Runs one stage and records it; false = stopped before its end. */
  async #run(stage: Stage, { key, isResumed }: { key: string; isResumed: boolean }): Promise<boolean> {
    const records = this.#records;
    const { log, stop, execute, now = () => performance.now() } = this.#cx;
    const before = isResumed ? records[stage.name].sec : 0;
    const started = now();
    const startedAt = isResumed ? records[stage.name].started : new Date().toISOString();
    let recordedMs = -Infinity;
    const record = (end?: StageEnd) => {
      recordedMs = now();
      const finished = end && !end.stopped ? new Date().toISOString() : undefined;
      const sec = before + (now() - started) / 1000;
      records[stage.name] = { key, started: startedAt, finished, sec, figures: end?.figures ?? {} };
      writeRecords(this.#places.folders, records);
    };
    record();
    const progress = (state: Progress) => {
      if (!stage.background) log.progress(state);
      if (now() - recordedMs >= RECORD_INTERVAL_MS) record();
    };
    const info = (message: string) => {
      if (!stage.background) log.info(message);
    };
    const own: Log = { info, warn: (message) => log.warn(message), progress };
    const end = await execute(stage, { ...this.#places, isResumed, log: own, stop });
    record(end);
    return !end.stopped;
  }

  /** Lists the checkpoint folders of a command that trains. */
  #models(command: string): string[] {
    const folder = join(this.#places.folders.checkpoints, TRAINS[command]);
    return entries(folder).map(({ name }) => join(folder, name));
  }

  /** Whether an interrupted stage left something to go on from: checkpoints of a run that it was to replace are none. */
  #hasBegun({ command }: Stage, { started = "" }: StageRecord): boolean {
    if (!(command in TRAINS)) return true;
    return this.#models(command).some((folder) => (findCheckpoint(folder)?.meta.savedAt ?? "") > started);
  }

  /** Whether the product of a finished stage is still there. */
  #isPresent({ command }: Stage): boolean {
    const { folders: { tokenizer }, dataDir } = this.#places;
    if (command in TRAINS) return this.#models(command).some((folder) => listSteps(folder).length > 0);
    if (command === "tokenizer train") return entries(tokenizer).some(({ name }) => name === TOKENIZER_FILE);
    const isShard = ({ name }: Deno.DirEntry) => name.endsWith(".parquet");
    if (command === "data world" || command === "data download") {
      return entries(dataDir).filter(isShard).length >= 2;
    }
    return true;
  }
}

/** CORE, ChatCORE and the shares of right answers as lines: a row each, a column for each stage that has some. */
function scoreTable(stages: readonly (readonly [name: string, figures: Figures])[]): string[] {
  const scoresOf = (figures: Figures) => Object.keys(figures).filter((name) => /_acc$|^(chat)?core$/.test(name));
  const scored = stages.filter(([_, figures]) => scoresOf(figures).length > 0);
  const text = (name: string, value: number | undefined) =>
    value === undefined ? "-" : name.endsWith("_acc") ? `${(100 * value).toFixed(1)} %` : value.toFixed(4);
  const line = (name: string, cells: readonly string[]) =>
    [name.padEnd(29), ...cells.map((cell) => cell.padStart(10))].join(" ");
  const names = new Set(scored.flatMap(([_, figures]) => scoresOf(figures)));
  const rows = Array.from(
    names,
    (name) => line(name.replace(/_acc$/, ""), scored.map(([_, figures]) => text(name, figures[name]))),
  );
  return rows.length > 0 ? [line("", scored.map(([name]) => name)), ...rows] : [];
}

function duration(sec: number): string {
  const whole = Math.round(sec);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
