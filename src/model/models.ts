/**
 * The models at hand: every folder of checkpoints in the base folder and its runs, how one is chosen, and how one is removed.
 *
 * A model is named `stage/tag`, or `run/stage/tag` inside a run; commands accept any unambiguous ending of that name.
 */
import { join } from "@std/path";
import type { Folders, Stage } from "../data/base_dir.ts";
import { entries, findForeign, listPlaces, STAGES, TOKENIZER_FILE } from "../data/base_dir.ts";
import type { Log } from "../data/log.ts";
import { SILENT } from "../data/log.ts";
import type { FoundCheckpoint } from "./checkpoint_folder.ts";
import { describeSteps, findCheckpoint, listSteps, readIfPresent, readMeta, removeStep } from "./checkpoint_folder.ts";
import { FolderLock } from "./lock.ts";
import { CheckpointError, sha256Hex } from "./meta.ts";

/** A folder of checkpoints. */
export interface Model {
  /** `stage/tag` or `run/stage/tag`. */
  readonly name: string;
  /** Where its checkpoints lie. */
  readonly folder: string;
  /** Name of the run that it belongs to; undefined = the base folder. */
  readonly run?: string;
  /** Stage of training. */
  readonly stage: Stage;
  /** Name of its folder: "d20". */
  readonly tag: string;
  /** Steps with a meta file, ascending. */
  readonly steps: readonly number[];
  /** Bytes of all files in the folder. */
  readonly bytes: number;
  /** Time of the newest meta file, ms since 1970. */
  readonly savedMs: number;
}

/** Lists the models of a base folder: places as commands search them, stages in their order, tags by depth and name. */
export function listModels(base: string): Model[] {
  return listPlaces(base).flatMap(modelsOf);
}

function modelsOf(place: Folders): Model[] {
  const models: Model[] = [];
  for (const stage of STAGES) {
    const tags = entries(join(place.checkpoints, stage)).filter(({ isDirectory }) => isDirectory);
    for (const { name: tag } of tags.sort((a, b) => depthOf(a.name) - depthOf(b.name))) {
      const folder = join(place.checkpoints, stage, tag);
      const steps = listSteps(folder);
      if (steps.length === 0) continue;
      const files = entries(folder).filter(({ isFile }) => isFile).map(({ name }) => ({
        name,
        info: statIfPresent(join(folder, name)),
      }));
      models.push({
        name: `${place.run === undefined ? "" : `${place.run}/`}${stage}/${tag}`,
        folder,
        run: place.run,
        stage,
        tag,
        steps,
        bytes: files.reduce((sum, { info }) => sum + (info?.size ?? 0), 0),
        savedMs: Math.max(0, ...files.map(({ name, info }) => /^meta_/.test(name) ? info?.mtime?.getTime() ?? 0 : 0)),
      });
    }
  }
  return models;
}

/** The number in a tag that begins like "d20", else -1. */
function depthOf(tag: string): number {
  const depth = /^d(\d+)/.exec(tag);
  return depth === null ? -1 : Number(depth[1]);
}

/**
 * Finds the one model with a name: "d4", "sft/d4" or "tiny/sft/d4".
 *
 * @throws {CheckpointError} "missing" where none or several have it, with their names.
 */
export function findModel(base: string, name: string): Model {
  const models = listModels(base);
  const exact = models.filter((model) => model.name === name);
  const found = exact.length > 0 ? exact : models.filter((model) => model.name.endsWith(`/${name}`));
  if (found.length === 1) return found[0];
  const is = found.length === 0
    ? `none of ${listNames(models)} has this name`
    : `${listNames(found)} have this name, expected one`;
  throw new CheckpointError("missing", `Cannot find model ${JSON.stringify(name)} in "${base}": ${is}`);
}

function listNames(models: readonly Model[]): string {
  return models.length === 0 ? "the 0 models there" : models.map(({ name }) => name).join(", ");
}

/** What a command uses: a checkpoint, and in words why this one. */
export interface ChosenModel extends FoundCheckpoint {
  /** Name of the model: `stage/tag` or `run/stage/tag`. */
  readonly name: string;
  /** Stage of training. */
  readonly source: Stage;
  /** Name of its folder. */
  readonly tag: string;
  /** Name of the run that it belongs to; undefined = the base folder. */
  readonly run?: string;
  /** One sentence for the user: what was taken and how to choose another. */
  readonly why: string;
}

/** What the user asked for; what is absent is chosen. */
export interface ModelChoice {
  /** Name of the model as {@link findModel} takes it; stage and tag then are its own. */
  readonly name?: string;
  /** Stage of training. */
  readonly source?: Stage;
  /** Name of the model's folder. */
  readonly tag?: string;
  /** Number of updates. */
  readonly step?: number;
  /** Hears of checkpoints that were passed over. */
  readonly log?: Log;
}

/**
 * Chooses a model. With `source`: from the base folder, else from the most recent run that has one. Without: the furthest stage (rl,
 * sft, mid, base) of the place that was trained last. Tag: the given one, else the largest `d<depth>`, else the newest. Step: the
 * given one, else the largest valid one.
 *
 * @throws {CheckpointError} "missing", saying what was found instead.
 */
export function chooseModel(base: string, choice: ModelChoice = {}): ChosenModel {
  const { name, source, tag, step, log = SILENT } = choice;
  if (name !== undefined) return chooseNamed(findModel(base, name), { step, log });
  const places = listPlaces(base).map(modelsOf);
  const all = places.flat();
  const wanted = places.map((models) =>
    models.filter((model) =>
      (source === undefined || model.stage === source) && (tag === undefined || model.tag === tag) &&
      (step === undefined || model.steps.includes(step))
    )
  ).filter((models) => models.length > 0);
  if (source === undefined) wanted.sort((a, b) => newest(b) - newest(a));
  for (const models of wanted) {
    for (const model of models.toSorted(byPreference)) {
      const found = findCheckpoint(model.folder, { step, modelOnly: true, log });
      if (found === undefined) continue;
      const { run, stage } = model;
      const place = run === undefined ? "the base folder" : `run "${run}"`;
      const reason = source === undefined
        ? "the furthest stage of what was trained last"
        : `the ${source} model found first`;
      return {
        ...found,
        name: model.name,
        source: stage,
        tag: model.tag,
        run,
        why: `Using ${stage}/${model.tag} at step ${found.step} from ${place}, ${reason}; choose another with ` +
          "--source, --model-tag, --step or --base-dir",
      };
    }
  }
  throw new CheckpointError("missing", missingText(base, { source, tag, step, all }));
}

function chooseNamed(model: Model, { step, log }: { step?: number; log: Log }): ChosenModel {
  const { name, folder, stage: source, tag, run, steps } = model;
  const found = findCheckpoint(folder, { step, modelOnly: true, log });
  if (found !== undefined) return { ...found, name, source, tag, run, why: `Using ${name} at step ${found.step}` };
  const what = step === undefined ? `a checkpoint of ${name}` : `step ${step} of ${name}`;
  throw new CheckpointError(
    "missing",
    `Cannot find ${what}: it holds ${describeSteps(steps)}, expected one that is whole`,
  );
}

function missingText(base: string, wanted: ModelChoice & { all: readonly Model[] }): string {
  const { source, tag, step, all } = wanted;
  const what = `a ${source ?? ""}${source ? " " : ""}model${tag === undefined ? "" : ` with tag "${tag}"`}` +
    `${step === undefined ? "" : ` at step ${step}`}`;
  const foreign = findForeign(base).find(({ what }) => what.startsWith("model"));
  const hint = foreign ? `; found ${foreign.what} of the Python nanochat, run "${foreign.command}"` : "";
  if (all.length === 0) {
    return `Cannot find ${what} in "${base}": it holds no checkpoint${hint || '; run "nanochat run tiny"'}`;
  }
  const found = all.map(({ name, steps }) => `${name} (${describeSteps(steps)})`).join(", ");
  const isStageMissing = source !== undefined && all.every(({ stage }) => stage !== source);
  const next = `; run "nanochat ${source === "base" ? "train" : source}" first, or choose another with --source`;
  return `Cannot find ${what} in "${base}": it holds ${found}${hint || (isStageMissing ? next : "")}`;
}

function newest(models: readonly Model[]): number {
  return Math.max(...models.map(({ savedMs }) => savedMs));
}

/** Furthest stage first, then the largest depth, then the newest. */
function byPreference(a: Model, b: Model): number {
  return STAGES.indexOf(b.stage) - STAGES.indexOf(a.stage) || depthOf(b.tag) - depthOf(a.tag) ||
    b.savedMs - a.savedMs || (a.tag < b.tag ? -1 : 1);
}

/** What `models inspect` shows of one step. */
export interface StepInfo {
  /** Number of updates. */
  readonly step: number;
  /** Size of its files. */
  readonly bytes: number;
  /** The step, where it can be used. */
  readonly checkpoint?: FoundCheckpoint;
  /** Why the step cannot be used. */
  readonly problem?: string;
}

/** Reads every step of a model; a damaged one is described and does not hide the others. */
export function inspectModel(model: Model): StepInfo[] {
  return model.steps.map((step) => {
    try {
      const meta = readMeta({ folder: model.folder, step });
      const bytes = meta.files.reduce((sum, file) => sum + file.bytes, 0);
      return { step, bytes, checkpoint: { folder: model.folder, step, meta } };
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      return { step, bytes: 0, problem: error.message };
    }
  });
}

/**
 * Removes a model, or one of its steps; gives the bytes freed.
 *
 * @throws {CheckpointError} "locked" while a process writes there, "missing" where the step does not exist.
 */
export function removeModel(model: Model, options: { step?: number; log: Log }): number {
  const { step, log } = options;
  if (step !== undefined && !model.steps.includes(step)) {
    throw new CheckpointError(
      "missing",
      `Cannot remove step ${step} of ${model.name}: it holds ${describeSteps(model.steps)}`,
    );
  }
  using _lock = FolderLock.acquire(model.folder, { purpose: "nanochat models remove", log });
  if (step !== undefined) return removeStep(model.folder, step);
  // Metas first: a removal that is cut short leaves no broken checkpoints.
  for (const each of model.steps) removeStep(model.folder, each);
  Deno.removeSync(model.folder, { recursive: true });
  return model.bytes;
}

/**
 * Checks that no model was made with the tokenizer in a folder, before another is written there.
 *
 * @throws {CheckpointError} "exists", naming the models and the ways on.
 */
export function checkTokenizerUnused(base: string, tokenizerFolder: string): void {
  const path = join(tokenizerFolder, TOKENIZER_FILE);
  const bytes = readIfPresent(path);
  if (bytes === undefined) return;
  const sha256 = sha256Hex(bytes);
  const users = listModels(base).filter((model) =>
    inspectModel(model).some(({ checkpoint }) => checkpoint?.meta.tokenizer?.sha256 === sha256)
  );
  if (users.length > 0) {
    throw new CheckpointError(
      "exists",
      `Cannot train a tokenizer into "${tokenizerFolder}": the one there is in use by ${listNames(users)}; ` +
        "choose another --tokenizer-dir=FOLDER or replace it with --overwrite (the models keep their copies)",
    );
  }
}

function statIfPresent(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined; // removed since it was listed
  }
}
