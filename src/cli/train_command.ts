/** `nanochat train`: base pretraining with the folders and the log of the command line. */
import { existsSync } from "node:fs";
import { findAsset } from "../data/assets.ts";
import { checkpointFolder, chooseData, chooseTokenizer, foldersOf, resolveBaseDir } from "../data/base_dir.ts";
import { type CoreBundle, readBundle } from "../eval/core_bundle.ts";
import { BASE_TRAIN_DEFAULTS, type BaseTrainFlags } from "../train/base_flags.ts";
import { reportBaseTraining } from "../report/stages.ts";
import { duration } from "../report/card.ts";
import { baseTrain } from "../train/base_train.ts";
import { money } from "../train/run_clock.ts";
import { type Invocation, wantsProfile } from "./command.ts";
import type { BUNDLE, DATA_DIR, PRICE, TOKENIZER_DIR, TRAIN } from "./flag_sets.ts";
import { camelCase, type FlagValue } from "./flags.ts";
import type { Setting } from "./parse.ts";
import { RunLog } from "./run_log.ts";
import { EXIT } from "./signals.ts";

/** Names (camelCase) of the flags that the user set in any way. */
export function explicitFlags(settings: ReadonlyMap<string, Setting>): Set<string> {
  return new Set([...settings].filter(([_, { origin }]) => origin !== "default").map(([name]) => camelCase(name)));
}

/** Picks the training flags among all values. */
export function trainFlags(values: Readonly<Record<string, FlagValue | undefined>>): BaseTrainFlags {
  const rows = Object.keys(BASE_TRAIN_DEFAULTS).map((name) => [name, values[name]]);
  return Object.fromEntries(rows) as unknown as BaseTrainFlags;
}

/** Names the flag that goes on with a stopped run; one that had not begun to replace another begins again. */
export function wayOn(step: number, { overwrite }: { readonly overwrite: boolean }): "resume" | "overwrite" {
  return step === 0 && overwrite ? "overwrite" : "resume";
}

/** Opens the CORE bundle; where the base folder has none, says so once, or fails where the user asked for CORE. */
async function findBundle(
  base: string,
  { given, asked, log }: { given?: string; asked: boolean; log: RunLog },
): Promise<CoreBundle | undefined> {
  const folder = given ?? findAsset(base, "eval-bundle");
  if (existsSync(folder) || given !== undefined || asked) return await readBundle(folder);
  log.info('CORE is not measured: the base folder has no eval_bundle; "nanochat data fetch eval-bundle" brings it');
  return undefined;
}

/** Trains a base model; 75 where the user stopped it after its checkpoint was written. */
export async function train(
  { values, settings, terminal, stop }: Invocation<
    typeof TRAIN & typeof DATA_DIR & typeof TOKENIZER_DIR & typeof BUNDLE & typeof PRICE
  >,
): Promise<number> {
  const base = resolveBaseDir(values.baseDir);
  const folders = foldersOf(base);
  const tag = values.modelTag || `d${values.depth}`;
  const folder = checkpointFolder(folders, { stage: "base", tag });
  const log = new RunLog(terminal, { folder, head: { command: "nanochat train", settings } });
  const data = chooseData(base, values.dataDir);
  const tokenizer = chooseTokenizer(base, values.tokenizerDir);
  log.info(`Shards in "${data.folder}" (${data.why}), tokenizer in "${tokenizer.folder}" (${tokenizer.why})`);
  const explicit = explicitFlags(settings);
  const every = values.coreMetricEvery;
  // A file written by --print-config gives the default too: that is no demand for CORE.
  const asked = explicit.has("coreMetricEvery") && every !== BASE_TRAIN_DEFAULTS.coreMetricEvery;
  const core = every > 0 ? await findBundle(base, { given: values.bundle, asked, log }) : undefined;
  const result = await baseTrain(trainFlags(values), {
    folders,
    dataDir: data.folder,
    tokenizerDir: tokenizer.folder,
    log,
    stop,
    explicit,
    core,
    profile: wantsProfile(),
    pricePerHour: values.pricePerHour,
  });
  const { step, steps, stopped, valBpb, minValBpb, totalTimeMs, cost } = result;
  if (!stopped) reportBaseTraining(folders.report, { flags: trainFlags(values), ...result });
  const bpb = valBpb === null
    ? ""
    : `, validation ${valBpb.toFixed(4)} bits per byte (lowest ${minValBpb?.toFixed(4)})`;
  const figures = { val_bpb: valBpb, min_val_bpb: minValBpb, total_time_ms: totalTimeMs, cost };
  const paid = cost === undefined ? "" : `, ${money(cost)}`;
  terminal.result(
    `base/${tag}: step ${step} of ${steps}${bpb}, ${duration(totalTimeMs / 1000)} of updates${paid}`,
    { folder, step, steps, stopped, ...figures },
  );
  if (!stopped) return EXIT.DONE;
  const choice = values.modelTag ? `--model-tag=${values.modelTag}` : `--depth=${values.depth}`;
  log.info(`Stopped after step ${step}; go on with: nanochat train ${choice} --${wayOn(step, values)}`);
  return EXIT.STOPPED;
}
