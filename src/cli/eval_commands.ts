/** `nanochat eval core` and `nanochat eval chat`: accuracies of a model on tasks, resumable, with files and a section of the report. */
import { join } from "@std/path";
import { findAsset } from "../data/assets.ts";
import { foldersOf, resolveBaseDir, type Stage } from "../data/base_dir.ts";
import { LoadedModel } from "../engine/load.ts";
import { bundleIdentity, readBundle } from "../eval/core_bundle.ts";
import { evaluateCore } from "../eval/core_eval.ts";
import { coreCsv, coreJson, coreTable } from "../eval/core_report.ts";
import { reportCore } from "../report/stages.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Which model, where it runs. */
interface ModelFlags {
  readonly baseDir?: string;
  readonly source: Stage | "";
  readonly modelTag?: string;
  readonly step: number;
  readonly deviceType: "cpu" | "cuda" | "";
  readonly threads: number;
  readonly dtype: string;
}

/** Flags of `eval core`. */
export interface EvalCoreFlags extends ModelFlags {
  readonly bundle?: string;
  readonly dataDir?: string;
  readonly maxPerTask: number;
  readonly batchTokens: number;
}

/** Measures CORE of a model; a killed evaluation goes on where it was. */
export async function evalCore(
  flags: EvalCoreFlags,
  { terminal, stop }: { terminal: Terminal; stop: AbortSignal },
): Promise<number> {
  const started = performance.now();
  const base = resolveBaseDir(flags.baseDir);
  const { maxPerTask, batchTokens } = flags;
  const bundle = await readBundle(flags.bundle ?? findAsset(flags.dataDir ?? base, "eval-bundle"));
  using loaded = await openModel(base, flags, terminal);
  const { chosen, model } = loaded;
  const folders = foldersOf(base, chosen.run);
  const path = join(folders.eval, `core_${modelName(loaded)}`);
  const identity = { weights: chosen.meta.files, dtype: model.dtype, bundle: bundleIdentity(bundle), maxPerTask };
  const resume = { path: `${path}.partial.jsonl`, head: { format: "nanochat CORE results", version: 1, ...identity } };
  const result = await evaluateCore(loaded, { bundle, maxPerTask, batchTokens, resume, log: terminal, stop });
  await loaded.verified;
  if (!result) {
    terminal.info("Stopped; the same command goes on from here");
    return EXIT.STOPPED;
  }
  const figures = { model: chosen.name, step: chosen.step, max_per_task: maxPerTask, ...coreJson(result) };
  writeWhole(`${path}.csv`, coreCsv(result));
  writeWhole(`${path}.json`, `${JSON.stringify(figures, null, 2)}\n`);
  reportCore(folders.report, {
    flags: { maxPerTask },
    sec: (performance.now() - started) / 1000,
    model: `${chosen.name} step ${chosen.step}`,
    core: result.core,
    centered: Object.fromEntries(result.tasks.map(({ label, centered }) => [label, centered])),
  });
  terminal.result(coreTable(result, bundle), figures);
  terminal.info(`Wrote "${path}.csv" and .json`);
  return EXIT.DONE;
}

async function openModel(base: string, flags: ModelFlags, terminal: Terminal): Promise<LoadedModel> {
  const { deviceType, threads, dtype } = flags;
  const loaded = await LoadedModel.open(base, {
    ...{ deviceType, threads, dtype, log: terminal },
    source: flags.source || undefined,
    tag: flags.modelTag,
    step: flags.step < 0 ? undefined : flags.step,
  });
  terminal.info(loaded.chosen.why);
  return loaded;
}

/** Names the files of a model's results: stage, tag and step. */
function modelName({ chosen: { source, tag, step } }: LoadedModel): string {
  return `${source}_${tag}_${String(step).padStart(6, "0")}`;
}

function writeWhole(path: string, text: string): void {
  Deno.writeTextFileSync(`${path}.tmp`, text);
  Deno.renameSync(`${path}.tmp`, path);
}
