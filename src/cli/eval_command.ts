/** `nanochat eval bpb`: bits per byte and samples of a trained model. */
import { chooseData, foldersOf, resolveBaseDir, type Stage } from "../data/base_dir.ts";
import { listShards, splitShards } from "../data/dataset.ts";
import { LoadedModel } from "../engine/load.ts";
import { evaluateBpb, samplePrompts } from "../eval/base_eval.ts";
import type { Terminal } from "./progress.ts";

/** Flags of the command. */
export interface EvalFlags {
  readonly baseDir?: string;
  readonly dataDir?: string;
  /** "" = the furthest stage of what was trained last. */
  readonly source: Stage | "";
  readonly modelTag?: string;
  /** -1 = the largest. */
  readonly step: number;
  readonly deviceBatchSize: number;
  readonly splitTokens: number;
  readonly deviceType: "cpu" | "cuda" | "";
  readonly threads: number;
  readonly dtype: string;
}

/** Chooses shards: the given ones, else those of the model's run, else as every command does. */
function shardsOf(flags: EvalFlags, { base, run }: { base: string; run?: string }): { folder: string; why: string } {
  if (flags.dataDir || run === undefined) return chooseData(base, flags.dataDir);
  try {
    return { ...chooseData(base, foldersOf(base, run).data), why: `run "${run}"` };
  } catch {
    return chooseData(base); // a run may train on the shards that all runs share
  }
}

/** Measures a model on the beginning of both splits. */
export async function evalBpb(flags: EvalFlags, terminal: Terminal): Promise<void> {
  const base = resolveBaseDir(flags.baseDir);
  using loaded = await LoadedModel.open(base, {
    source: flags.source || undefined,
    tag: flags.modelTag,
    step: flags.step < 0 ? undefined : flags.step,
    deviceType: flags.deviceType,
    threads: flags.threads,
    dtype: flags.dtype,
    log: terminal,
  });
  const { chosen, model, tokenizer, engine } = loaded;
  terminal.info(chosen.why);
  const data = shardsOf(flags, { base, run: chosen.run });
  terminal.info(`Shards in "${data.folder}" (${data.why})`);
  await loaded.verified;
  const files = splitShards(listShards(data.folder));
  const options = { B: flags.deviceBatchSize, splitTokens: flags.splitTokens, log: terminal };
  const { train, val } = await evaluateBpb({ model, tokenizer, files }, options);
  const samples = await samplePrompts(engine);
  if (terminal.json) {
    terminal.result("", { model: chosen.name, step: chosen.step, train_bpb: train, val_bpb: val, samples });
    return;
  }
  terminal.result(`train bpb: ${train!.toFixed(6)}\nval bpb: ${val!.toFixed(6)}`);
  for (const sample of samples) terminal.result(sample);
}
