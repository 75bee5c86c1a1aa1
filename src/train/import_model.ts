/**
 * Makes a checkpoint of ours from a model of another program: weights, optimizer where there is one, tokenizer, and the state that
 * `nanochat train --resume` goes on from. `meta` is written last, so that a model is imported whole or not at all.
 */
import { join } from "@std/path";
import { checkpointFolder, type Folders, type Stage, STAGES, TOKENIZER_FILE } from "../data/base_dir.ts";
import type { ReferenceState } from "../data/dataloader.ts";
import type { Log } from "../data/log.ts";
import { SPECIAL_TOKENS, Tokenizer, type TokenizerParts } from "../data/tokenizer.ts";
import type { ForeignModel } from "../interop/foreign.ts";
import { type CheckpointMeta, type Json, type JsonObject, listSteps, removeUnfinished } from "../model/checkpoint.ts";
import { saveCheckpoint } from "../model/checkpoint.ts";
import { FolderLock } from "../model/lock.ts";
import { CheckpointError } from "../model/meta.ts";
import type { Device } from "../tensor/device.ts";
import { BASE_TRAIN_DEFAULTS } from "./base_flags.ts";
import { storedFlags } from "./stage_flags.ts";

/** Where an imported model goes. */
export interface ImportOptions {
  /** Folders of the base folder. */
  readonly folders: Folders;
  /** Stage; without it the one that the files belong to. */
  readonly stage?: Stage;
  /** Name of the model's folder; without it the one that it has, else "d" and the depth. */
  readonly tag?: string;
  /** Replaces the step where the folder holds it. */
  readonly overwrite?: boolean;
  /** Hears what is done. */
  readonly log: Log;
}

/** What was imported. */
export interface ImportedModel {
  /** Folder of the checkpoint. */
  readonly folder: string;
  /** Stage of training. */
  readonly stage: Stage;
  /** Name of its folder. */
  readonly tag: string;
  /** Its meta file. */
  readonly meta: CheckpointMeta;
  /** Whether the tokenizer became the one of the base folder, which had none. */
  readonly isTokenizerKept: boolean;
}

/**
 * Saves a model of another program as a checkpoint.
 *
 * @throws {CheckpointError} where the stage is not known, the tokenizer is missing or another one's, or the step is there already.
 */
export async function importModel(
  device: Device,
  { foreign, ...options }: ImportOptions & { foreign: ForeignModel },
): Promise<ImportedModel> {
  const { folders, overwrite = false, log } = options;
  const { config, step } = foreign;
  const stage = options.stage ?? foreign.stage;
  if (stage === undefined) {
    throw new CheckpointError(
      "missing",
      `Cannot import: the files do not say the stage, expected --source=${STAGES.join("|")}`,
    );
  }
  const tag = options.tag ?? foreign.tag ?? `d${config.nLayer}`;
  const folder = checkpointFolder(folders, { stage, tag });
  using tokenizer = await openTokenizer(foreign.tokenizer);
  if (tokenizer.vocabSize !== config.vocabSize) {
    throw new CheckpointError(
      "tokenizer",
      `Cannot import: the tokenizer has ${tokenizer.vocabSize} tokens, expected ${config.vocabSize} as the model; ` +
        "choose another with --tokenizer-dir",
    );
  }
  using _lock = FolderLock.acquire(folder, { purpose: "nanochat import", log });
  if (listSteps(folder).includes(step) && !overwrite) {
    throw new CheckpointError(
      "exists",
      `Cannot import into "${folder}": it holds step ${step}, expected none; ` +
        "choose another --model-tag=NAME or replace it with --overwrite",
    );
  }
  const temporary = Deno.makeTempDirSync({ prefix: "nanochat_import_" });
  try {
    await tokenizer.save(temporary);
    const meta = await saveCheckpoint({
      ...device.context,
      folder,
      step,
      model: foreign.model,
      optimizer: foreign.optimizer,
      state: { stage, ...stateOf(foreign, { stage, tag }) },
      keep: 0,
      tokenizerFolder: temporary,
      log,
    });
    return { folder, stage, tag, meta: meta!, isTokenizerKept: await keepTokenizer(tokenizer, folders.tokenizer) };
  } catch (error) {
    removeUnfinished(folder);
    throw error;
  } finally {
    Deno.removeSync(temporary, { recursive: true });
  }
}

/** Builds the tokenizer and checks that it has the special tokens that conversations are made of. */
export async function openTokenizer(parts: TokenizerParts | undefined): Promise<Tokenizer> {
  if (parts === undefined) {
    throw new CheckpointError(
      "missing",
      "Cannot import: no tokenizer.pkl or tokenizer.json is beside the model, expected one; choose its folder with --tokenizer-dir",
    );
  }
  const missing = SPECIAL_TOKENS.find((name) => !Object.hasOwn(parts.specials, name));
  if (missing !== undefined) {
    throw new CheckpointError(
      "tokenizer",
      `Cannot import: the tokenizer has no special token "${missing}", expected all ${SPECIAL_TOKENS.length} of nanochat`,
    );
  }
  return await Tokenizer.fromParts(parts);
}

/** Makes a tokenizer the one of the base folder, where that has none; tells whether it did. */
async function keepTokenizer(tokenizer: Tokenizer, folder: string): Promise<boolean> {
  try {
    Deno.statSync(join(folder, TOKENIZER_FILE));
    return false;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await tokenizer.save(folder);
  return true;
}

const finite = (value: unknown): number | undefined => Number.isFinite(value) ? value as number : undefined;
const objectOf = (value: unknown) =>
  (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;

/** Translates what the Python nanochat keeps in `meta_N.json`; what is absent takes the value of a run that begins. */
function stateOf(
  { run, config, step, dtype, optimizer, files }: ForeignModel,
  { stage, tag }: { stage: Stage; tag: string },
) {
  const loop = objectOf(run.loop_state);
  const flags = flagsOf(objectOf(run.user_config), {
    ...{ depth: config.nLayer, maxSeqLen: config.sequenceLen },
    modelTag: tag === `d${config.nLayer}` ? "" : tag,
  });
  const name = objectOf(run.user_config).run;
  return {
    run: typeof name === "string" ? name : "imported",
    valBpb: finite(run.val_bpb) ?? null,
    config: { ...config },
    flags: stage === "base" ? flags : {},
    loader: optimizer.length > 0 ? positionOf(objectOf(run.dataloader_state_dict), files) as unknown as Json : null,
    ...(dtype === undefined ? {} : { dtype }),
    rng: { seed: BASE_TRAIN_DEFAULTS.seed },
    loop: {
      minValBpb: finite(loop.min_val_bpb) ?? null,
      smoothLoss: finite(loop.smooth_train_loss) ?? 0,
      updates: step,
      totalTimeMs: 1000 * (finite(loop.total_training_time) ?? 0),
    },
  };
}

/** Flags of a training run under our names: the saved ones that are known here, of the right type. The machine's are left out. */
function flagsOf(saved: Record<string, unknown>, own: Record<string, number | string>): JsonObject {
  const { device_type: _, ...defaults } = storedFlags(BASE_TRAIN_DEFAULTS);
  const known = Object.entries(defaults).map(([name, value]) =>
    [name, typeof saved[name] === typeof value ? saved[name] as Json : value] as const
  );
  return { ...Object.fromEntries(known), ...storedFlags(own) };
}

/** The row group that all ranks have read to, so that none is read twice; null = the beginning. */
function positionOf(saved: Record<string, unknown>, files: readonly string[]): ReferenceState | null {
  const ranks = Math.max(1, files.filter((file) => /_rank\d+\.pt$/.test(file)).length);
  const [pq_idx, rg_idx] = [saved.pq_idx, saved.rg_idx];
  if (![pq_idx, rg_idx].every((index) => Number.isSafeInteger(index) && (index as number) >= 0)) return null;
  return { pq_idx: pq_idx as number, rg_idx: Math.floor(rg_idx as number / ranks) * ranks + ranks - 1 };
}
