/** How a training run starts: in an empty folder, from a checkpoint, or not at all because it would overwrite one. */
import type { Log } from "../data/log.ts";
import type { FoundCheckpoint } from "./checkpoint_folder.ts";
import { checkTokenizer, describeSteps, findCheckpoint, listSteps } from "./checkpoint_folder.ts";
import { CheckpointError } from "./meta.ts";
import type { Json, JsonObject } from "./meta.ts";

/** What the flags say about the start of a run. */
export interface StartOptions {
  /** Where the run keeps its checkpoints. */
  readonly folder: string;
  /** `--resume`: from the latest checkpoint; "auto": from it where there is one. */
  readonly resume?: boolean | "auto";
  /** `--resume-from-step`: from this one. */
  readonly resumeFromStep?: number;
  /** `--overwrite`: what is there does not hinder a fresh start, and stays: the session removes it once the run can take a step. */
  readonly overwrite?: boolean;
  /** Folder of the tokenizer that the run will use: a checkpoint made with another one is refused. */
  readonly tokenizerFolder?: string;
  /** Hears what is taken and what will be replaced. */
  readonly log: Log;
}

/**
 * Decides how a run starts; gives the checkpoint to resume from, or undefined for a fresh start. Call it while holding the lock.
 *
 * @throws {CheckpointError} "exists" with the three ways on, "missing" where there is nothing to resume from, "tokenizer" where it
 * was made with another one, or why it cannot be read.
 */
export function planStart(options: StartOptions): FoundCheckpoint | undefined {
  const { folder, resume = false, resumeFromStep, overwrite = false, tokenizerFolder, log } = options;
  const wantsResume = resume !== false || resumeFromStep !== undefined;
  if (overwrite && wantsResume) {
    throw new RangeError("Cannot start: both --overwrite and --resume are given, expected one of them");
  }
  const steps = listSteps(folder);
  if (wantsResume) {
    const found = findCheckpoint(folder, { step: resumeFromStep, log });
    if (found === undefined && steps.length > 0) {
      throw new CheckpointError(
        "damaged",
        `Cannot resume in "${folder}": ${describeSteps(steps)} cannot be used, expected one whole checkpoint; ` +
          "start anew with --overwrite or --model-tag=NAME",
      );
    }
    if (found === undefined && resume !== "auto") {
      throw new CheckpointError(
        "missing",
        `Cannot resume in "${folder}": it holds no checkpoint; start without --resume, or with --resume=auto`,
      );
    }
    if (found === undefined) log.info(`"${folder}" holds no checkpoint; starting from step 0`);
    const later = steps.filter((step) => found !== undefined && step > found.step);
    if (later.length > 0) {
      log.warn(
        `Resuming from step ${found!.step}: ${
          describeSteps(later)
        } in "${folder}" will be replaced as they are reached`,
      );
    }
    if (found !== undefined && tokenizerFolder !== undefined) checkTokenizer(found, tokenizerFolder);
    return found;
  }
  if (steps.length === 0 || overwrite) return undefined;
  throw new CheckpointError(
    "exists",
    `Cannot train into "${folder}": it holds ${describeSteps(steps)}, expected no checkpoint; ` +
      "go on with --resume, choose another --model-tag=NAME or remove them with --overwrite",
  );
}

const HORIZON = ["num_iterations", "target_flops", "target_param_data_ratio"];
/** Flags of a training command that may differ from the checkpoint's: they change no step that is computed anyway. */
export const RESUME_CHANGEABLE: readonly string[] = [
  ...HORIZON,
  "eval_every",
  "eval_tokens",
  "core_metric_every",
  "core_metric_max_per_task",
  "sample_every",
  "save_every",
  "keep",
];

/**
 * Gives the flags of a resumed run: the checkpoint's, with those given anew where they may change. Names are compared with underscores.
 *
 * A new horizon replaces the old one as a whole, so that `--target-flops` is not overruled by the checkpoint's `--num-iterations`;
 * flags that the result lacks take their defaults.
 *
 * @param options.given flags that the user set for this start
 * @param options.changeable flags that may differ
 * @throws {CheckpointError} "mismatch", showing every other difference with both values.
 */
export function resumeFlags(
  saved: JsonObject,
  options: { given: JsonObject; changeable?: readonly string[] },
): JsonObject {
  const { given, changeable = RESUME_CHANGEABLE } = options;
  const free = new Set(changeable.map(underscored));
  const givenNames = new Map(Object.entries(given).map(([name, value]) => [underscored(name), value]));
  const newHorizon = HORIZON.some((name) => givenNames.has(name));
  const merged: JsonObject = {};
  const differences: string[] = [];
  const seen = new Set<string>();
  for (const [name, value] of Object.entries(saved)) {
    const key = underscored(name);
    seen.add(key);
    const now = givenNames.get(key);
    if (free.has(key)) {
      if (now !== undefined) merged[name] = now;
      else if (!(newHorizon && HORIZON.includes(key))) merged[name] = value;
      continue;
    }
    merged[name] = value;
    if (now !== undefined && JSON.stringify(now) !== JSON.stringify(value)) {
      differences.push(`--${key.replaceAll("_", "-")} is ${show(now)}, expected ${show(value)} as in the checkpoint`);
    }
  }
  for (const [name, value] of Object.entries(given)) {
    const key = underscored(name);
    if (seen.has(key)) continue;
    if (free.has(key)) merged[name] = value;
    else differences.push(`--${key.replaceAll("_", "-")} is ${show(value)}, expected none as in the checkpoint`);
  }
  if (differences.length > 0) {
    throw new CheckpointError(
      "mismatch",
      `Cannot resume: ${differences.join("; ")}; leave them out or start anew with --model-tag=NAME`,
    );
  }
  return merged;
}

function underscored(name: string): string {
  return name.replace(/^--/, "").replaceAll("-", "_");
}

function show(value: Json): string {
  return typeof value === "string"
    ? JSON.stringify(value)
    : String(typeof value === "object" ? JSON.stringify(value) : value);
}
