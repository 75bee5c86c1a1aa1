/** `nanochat models`: what checkpoints there are, what is in them, and how they go away. */
import { format as formatBytes } from "@std/fmt/bytes";
import { resolveBaseDir } from "../data/base_dir.ts";
import { describeSteps } from "../model/checkpoint_folder.ts";
import { findModel, inspectModel, listModels, removeModel } from "../model/models.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Lists the models of a base folder. */
export function showModels({ baseDir, terminal }: { baseDir?: string; terminal: Terminal }): void {
  const base = resolveBaseDir(baseDir);
  const models = listModels(base);
  if (models.length === 0) terminal.info(`No model in "${base}"; "nanochat run tiny" trains a small one`);
  for (const { name, steps, bytes, savedMs, folder } of models) {
    const saved = new Date(savedMs).toISOString().slice(0, 16).replace("T", " ");
    terminal.result(
      `${name.padEnd(24)} ${describeSteps(steps).padEnd(24)} ${formatBytes(bytes).padStart(9)}  ${saved}  ${folder}`,
      { name, steps, bytes, saved_ms: savedMs, folder },
    );
  }
}

/** Shows each step of one model: size, loss, shape, flags. */
export function showModel(name: string, { baseDir, terminal }: { baseDir?: string; terminal: Terminal }): void {
  const model = findModel(resolveBaseDir(baseDir), name);
  for (const { step, bytes, checkpoint, problem } of inspectModel(model)) {
    if (!checkpoint) {
      terminal.result(`step ${step}: cannot be used: ${problem}`, { name: model.name, step, problem });
      continue;
    }
    const { meta } = checkpoint;
    const bpb = meta.valBpb === null ? "not measured" : meta.valBpb.toFixed(4);
    terminal.result(
      [
        `${model.name} step ${step}: ${formatBytes(bytes)}, saved ${meta.savedAt}, validation bits per byte ${bpb}`,
        `  model ${JSON.stringify(meta.config)}`,
        `  flags ${JSON.stringify(meta.flags)}`,
      ].join("\n"),
      { name: model.name, bytes, ...meta },
    );
  }
}

/** Removes a model or one step of it, after a yes on the terminal or with `yes`. */
export function removeModels(
  name: string,
  { baseDir, step, yes, terminal }: { baseDir?: string; step: number; yes: boolean; terminal: Terminal },
): number {
  const model = findModel(resolveBaseDir(baseDir), name);
  const what = step < 0 ? `${model.name} (${describeSteps(model.steps)})` : `step ${step} of ${model.name}`;
  const agreed = yes || (terminal.isTerminal && Deno.stdin.isTerminal() && confirm(`Remove ${what}?`));
  if (!agreed) {
    terminal.error(`Refused to remove ${what}: not confirmed, expected --yes`);
    return EXIT.REFUSED;
  }
  const freed = removeModel(model, { step: step < 0 ? undefined : step, log: terminal });
  terminal.result(`Removed ${what}: ${formatBytes(freed)} freed`, { removed: model.name, bytes: freed });
  return EXIT.DONE;
}
