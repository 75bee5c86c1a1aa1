/**
 * Runs a recipe in `runs/<name>/` of the base folder. What a stage did is kept in `run.json` there: a stage that was finished with the
 * same flags, after the same stages, is not repeated; one that was interrupted goes on where it can.
 */
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { writeWorldShards } from "../../tasks/world_shards.ts";
import { entries, type Folders, foldersOf, TOKENIZER_FILE } from "../data/base_dir.ts";
import { documents, listShards, splitShards } from "../data/dataset.ts";
import type { Log, Progress } from "../data/log.ts";
import { LoadedModel } from "../engine/load.ts";
import { evaluateBpb, evaluateMarkov2 } from "../eval/base_eval.ts";
import { listSteps } from "../model/checkpoint_folder.ts";
import { FolderLock } from "../model/lock.ts";
import { makeCard } from "../report/card.ts";
import { type Program, readEnvironment, readHeader, writeHeader } from "../report/environment.ts";
import { writeCard } from "../report/page.ts";
import { readSections } from "../report/sections.ts";
import { reportBaseLoss, reportBaseTraining, reportTokenizer } from "../report/stages.ts";
import { BASE_TRAIN_DEFAULTS } from "./base_flags.ts";
import { baseTrain } from "./base_train.ts";
import { type Recipe, RECIPES, type Stage } from "./recipes.ts";
import { type Figures, readRecords, type Records, writeRecords } from "./run_record.ts";
import { type Sample, sampleTexts } from "./samples.ts";
import { trainTokenizer } from "./tok_train.ts";

/** Where a recipe runs and whom it tells. */
export interface RunContext {
  /** Base folder. */
  readonly base: string;
  readonly log: Log;
  /** Aborted when the user asks to stop: the stage in work saves and ends. */
  readonly stop: AbortSignal;
  /** Shows a result: a text for people, an object for programs. */
  result(text: string, object?: unknown): void;
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

/** Tokens of each sample at the end. */
const SAMPLE_TOKENS = 40;
/** Samples during training are shown at most this often; the stage's flags say how often they are made. */
const SAMPLE_INTERVAL_MS = 20_000;
/** The time of a stage is recorded at most this often, for the case that the process is killed. */
const RECORD_INTERVAL_MS = 5_000;

/**
 * Runs the stages of a recipe that are not done yet.
 *
 * @throws {RangeError} for a name that is no recipe.
 */
export async function runRecipe(name: string, cx: RunContext): Promise<RunSummary> {
  const recipes = cx.recipes ?? RECIPES;
  const recipe = recipes[name];
  if (!recipe) {
    const list = Object.entries(recipes).map(([each, { about }]) => `"${each}" ${about}`).join("; ");
    const depth = /^d\d+$/.test(name)
      ? `; "${name}" is a size: train it with "nanochat train --depth=${name.slice(1)}"`
      : "";
    throw new RangeError(`Cannot run "${name}": there is no such recipe, expected one of: ${list}${depth}`);
  }
  const { program = { version: "nanochat" } } = cx;
  const folders = foldersOf(cx.base, name);
  Deno.mkdirSync(folders.root, { recursive: true });
  using _lock = FolderLock.acquire(folders.root, { purpose: `nanochat run ${name}`, log: cx.log });
  const records = readRecords(folders);
  const pipeline = new Pipeline({ ...cx, name, recipe, folders, records });
  let key = "";
  for (const [i, stage] of recipe.stages.entries()) {
    key = createHash("sha256").update(key + JSON.stringify(stage)).digest("hex").slice(0, 16);
    const title = `Stage ${i + 1} of ${recipe.stages.length}, ${stage.name}`;
    if (records[stage.name]?.key === key && records[stage.name].finished && isPresent(stage, folders)) {
      cx.log.info(`${title}: done before, in ${duration(records[stage.name].sec)}`);
      continue;
    }
    if (i === 0) writeHeader(folders.report, readEnvironment(program));
    if (i === 0 || !records[recipe.stages[0].name]) cx.log.info(`nanochat run ${name} ${recipe.about}`);
    cx.log.info(`${title}: nanochat ${stage.command}`);
    if (await pipeline.run(stage, key) === "stopped") return { stopped: true, figures: collect(records) };
  }
  const figures = collect(records);
  cx.result(summary(recipe, records), figures);
  const environment = readHeader(folders.report) ?? readEnvironment(program);
  const card = makeCard(readSections(folders.report), { name, environment, pricePerHour: cx.pricePerHour });
  const [_, page] = await writeCard(folders.report, card, cx.log);
  cx.log.info(`Report card: ${page}`);
  cx.log.info(`Talk to the model with: ${recipe.next}`);
  return { stopped: false, figures };
}

/** The stages of one run. */
class Pipeline {
  readonly #cx: RunContext & { name: string; recipe: Recipe; folders: Folders; records: Records };

  #tick = () => {}; // called with each progress of the stage in work

  constructor(cx: RunContext & { name: string; recipe: Recipe; folders: Folders; records: Records }) {
    const progress = (state: Progress) => {
      cx.log.progress(state);
      this.#tick();
    };
    const log: Log = { info: (message) => cx.log.info(message), warn: (message) => cx.log.warn(message), progress };
    this.#cx = { ...cx, log };
  }

  /** Runs one stage and records it. */
  async run(stage: Stage, key: string): Promise<"done" | "stopped"> {
    const { records, folders, stop } = this.#cx;
    const before = records[stage.name];
    const isResumed = before?.key === key && !before.finished;
    const now = this.#cx.now ?? (() => performance.now());
    const started = now();
    const sec = () => (isResumed ? before.sec : 0) + (now() - started) / 1000;
    let recordedMs = -Infinity;
    this.#tick = () => {
      if (now() - recordedMs < RECORD_INTERVAL_MS) return;
      recordedMs = now();
      records[stage.name] = { key, sec: sec(), figures: {} };
      writeRecords(folders, records);
    };
    this.#tick();
    const figures = await this.#work(stage, isResumed);
    const finished = figures ? new Date().toISOString() : undefined;
    records[stage.name] = { key, finished, sec: sec(), figures: figures ?? {} };
    writeRecords(folders, records);
    return figures && !stop.aborted ? "done" : "stopped";
  }

  /** Does the work of a stage; null = stopped before its end. */
  #work(stage: Stage, isResumed: boolean): Promise<Figures | null> {
    switch (stage.command) {
      case "data world":
        return this.#writeWorld(stage);
      case "tokenizer train":
        return this.#trainTokenizer(stage);
      case "train":
        return this.#trainBase(stage, isResumed);
      case "eval bpb":
        return this.#evaluate(stage);
    }
  }

  async #writeWorld({ flags }: Stage & { command: "data world" }): Promise<Figures> {
    return { characters: await writeWorldShards(this.#cx.folders.data, flags, this.#cx.log) };
  }

  async #trainTokenizer({ flags }: Stage & { command: "tokenizer train" }): Promise<Figures> {
    const { folders, log } = this.#cx;
    const { train } = splitShards(listShards(folders.data));
    const { tokenizer, stats } = await trainTokenizer({ texts: documents(train), ...flags, log });
    using _tokenizer = tokenizer;
    await tokenizer.save(folders.tokenizer);
    reportTokenizer(folders.report, { flags, sec: stats.trainTimeSec, stats });
    return { vocab_size: tokenizer.vocabSize, token_bytes_mean: stats.tokenBytesMean };
  }

  async #trainBase({ flags }: Stage & { command: "train" }, isResumed: boolean): Promise<Figures | null> {
    const { folders, log, stop, name, recipe } = this.#cx;
    const all = { ...BASE_TRAIN_DEFAULTS, ...flags, run: name };
    const checkpoints = join(folders.checkpoints, "base", all.modelTag || `d${all.depth}`);
    const hasSteps = listSteps(checkpoints).length > 0;
    let shownMs = -Infinity;
    const onSamples = (samples: readonly Sample[], step: number) => {
      if (performance.now() - shownMs < SAMPLE_INTERVAL_MS) return;
      shownMs = performance.now();
      for (const sample of samples) log.info(`Step ${step}: ${shown(sample)}`);
    };
    const result = await baseTrain(
      { ...all, resume: isResumed ? "auto" : "", overwrite: !isResumed && hasSteps },
      {
        folders,
        dataDir: folders.data,
        tokenizerDir: folders.tokenizer,
        log,
        stop,
        prompts: [recipe.samplePrompt],
        onSamples,
      },
    );
    const { stopped, valBpb, totalTimeMs, steps } = result;
    if (!stopped) reportBaseTraining(folders.report, { flags: all, ...result });
    return stopped ? null : { base_val_bpb: valBpb ?? NaN, base_train_sec: totalTimeMs / 1000, steps };
  }

  async #evaluate({ flags }: Stage & { command: "eval bpb" }): Promise<Figures> {
    const started = performance.now();
    const { folders, log, recipe, result } = this.#cx;
    using loaded = await LoadedModel.open(folders.root, { source: "base", log });
    const files = splitShards(listShards(folders.data));
    const { deviceBatchSize: B, splitTokens, markov } = flags;
    const { train, val } = await evaluateBpb({ ...loaded, files }, { B, splitTokens, log });
    const options = { tokenizer: loaded.tokenizer, prompts: recipe.finalPrompts, maxTokens: SAMPLE_TOKENS };
    const samples = await sampleTexts(loaded.model, options);
    for (const sample of samples) {
      result(shown(sample), { prompt: sample.prompt, sample: sample.text });
    }
    const figures: Figures = { train_bpb: train!, val_bpb: val! };
    if (markov) figures.markov2_bpb = await evaluateMarkov2(files, log);
    const sec = (performance.now() - started) / 1000;
    reportBaseLoss(folders.report, { flags, sec, figures, samples });
    return figures;
  }
}

/** Whether the product of a finished stage is still there. */
function isPresent({ command }: Stage, folders: Folders): boolean {
  switch (command) {
    case "data world":
      return entries(folders.data).filter(({ name }) => name.endsWith(".parquet")).length >= 2;
    case "tokenizer train":
      return entries(folders.tokenizer).some(({ name }) => name === TOKENIZER_FILE);
    case "train":
      return entries(join(folders.checkpoints, "base")).some(({ name }) =>
        listSteps(join(folders.checkpoints, "base", name)).length > 0
      );
    case "eval bpb":
      return true;
  }
}

/** All figures of the stages, and the time of all together. */
function collect(records: Records): Figures {
  const all = Object.values(records);
  return Object.assign({}, ...all.map(({ figures }) => figures), {
    total_sec: all.reduce((sum, { sec }) => sum + sec, 0),
  });
}

function summary({ stages }: Recipe, records: Records): string {
  const lines = stages.map(({ name }) => `${name.padEnd(12)} ${duration(records[name].sec).padStart(9)}`);
  const { val_bpb, markov2_bpb, total_sec } = collect(records);
  lines.push(`${"total".padEnd(12)} ${duration(total_sec).padStart(9)}`);
  if (val_bpb !== undefined) lines.push(`validation                    ${val_bpb.toFixed(4)} bits per byte`);
  if (markov2_bpb !== undefined) {
    const percent = `${(100 * val_bpb / markov2_bpb).toFixed(0)} %`;
    lines.push(
      `Markov model of two bytes     ${markov2_bpb.toFixed(4)} bits per byte: the model needs ${percent} of that`,
    );
  }
  return lines.join("\n");
}

function shown({ prompt, text }: Sample): string {
  return `${prompt}${text}`.replaceAll("\n", " ");
}

function duration(sec: number): string {
  const whole = Math.round(sec);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
