/** `nanochat eval core` and `nanochat eval chat`: accuracies of a model on tasks, resumable, with files and a section of the report. */
import { join } from "@std/path";
import { findAsset } from "../data/assets.ts";
import { FORMATS } from "../data/formats.ts";
import { foldersOf, resolveBaseDir, type Stage } from "../data/base_dir.ts";
import type { Task } from "../../tasks/task.ts";
import { PythonPool } from "../engine/execution.ts";
import { LoadedModel } from "../engine/load.ts";
import { chatCore, type ChatLine, type ChatTaskResult, evaluateChatTask } from "../eval/chat_eval.ts";
import { CHAT_TASKS, type ChatTaskSource, chooseChatTasks, CORE_TASKS } from "../eval/chat_tasks.ts";
import { bundleIdentity, readBundle } from "../eval/core_bundle.ts";
import { evaluateCore } from "../eval/core_eval.ts";
import { coreCsv, coreJson, coreTable } from "../eval/core_report.ts";
import { ResultLog } from "../eval/result_log.ts";
import type { Quantization } from "../model/gpt.ts";
import { reportChatEval, reportCore } from "../report/stages.ts";
import { UsageError } from "./flags.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Which model, where it runs. */
export interface ModelFlags {
  readonly baseDir?: string;
  readonly source: Stage | "";
  readonly modelTag?: string;
  readonly step: number;
  readonly deviceType: "cpu" | "cuda" | "";
  readonly threads: number;
  readonly dtype: string;
  readonly quantize: Quantization;
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
  const { maxPerTask, batchTokens, quantize } = flags;
  const bundle = await readBundle(flags.bundle ?? findAsset(flags.dataDir ?? base, "eval-bundle"));
  using loaded = await openModel(base, flags, terminal);
  const { chosen, model } = loaded;
  const folders = foldersOf(base, chosen.run);
  const path = join(folders.eval, `core_${modelName(loaded, quantize)}`);
  const identity = { weights: chosen.meta.files, dtype: model.dtype, bundle: bundleIdentity(bundle), maxPerTask };
  const resume = { path: `${path}.partial.jsonl`, head: { ...FORMATS.core, ...identity } };
  const result = await evaluateCore(loaded, { bundle, maxPerTask, batchTokens, resume, log: terminal, stop });
  await loaded.verified;
  if (!result) {
    terminal.info("Stopped; the same command goes on from here");
    return EXIT.STOPPED;
  }
  const figures = { model: chosen.name, step: chosen.step, quantize, max_per_task: maxPerTask, ...coreJson(result) };
  writeWhole(`${path}.csv`, coreCsv(result));
  writeWhole(`${path}.json`, `${JSON.stringify({ ...FORMATS.core, ...figures }, null, 2)}\n`);
  reportCore(folders.report, {
    flags: { maxPerTask, quantize },
    sec: (performance.now() - started) / 1000,
    model: `${chosen.name} step ${chosen.step}`,
    core: result.core,
    centered: Object.fromEntries(result.tasks.map(({ label, centered }) => [label, centered])),
  });
  terminal.result(coreTable(result, bundle), figures);
  terminal.info(`Wrote "${path}.csv" and .json`);
  return EXIT.DONE;
}

/** Flags of `eval chat`. */
export interface EvalChatFlags extends ModelFlags {
  readonly dataDir?: string;
  readonly taskName: string;
  readonly maxProblems: number;
  readonly batchSize: number;
  readonly deviceBatchSize: number;
  readonly numSamples: number;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
}

/** Measures a chat model on tasks; a killed evaluation goes on where it was. */
export async function evalChat(
  flags: EvalChatFlags,
  { terminal, stop }: { terminal: Terminal; stop: AbortSignal },
): Promise<number> {
  const started = performance.now();
  const base = resolveBaseDir(flags.baseDir);
  const names = chatTaskNames(flags.taskName);
  await using pool = names.some((name) => CHAT_TASKS[name].runsPrograms) ? await PythonPool.open() : null;
  const source: ChatTaskSource = {
    folder: flags.dataDir ?? base,
    run: async (program) => (await pool!.run(program)).kind === "ok",
  };
  const tasks: { name: string; task: Task }[] = [];
  for (const name of names) tasks.push({ name, task: await CHAT_TASKS[name].load(source) });
  using loaded = await openModel(base, flags, terminal);
  const { chosen, model } = loaded;
  const folders = foldersOf(base, chosen.run);
  const { maxProblems, batchSize, deviceBatchSize: rows, numSamples, maxNewTokens, temperature, topK, quantize } =
    flags;
  const path = join(folders.eval, `chat_${modelName(loaded, quantize)}`);
  const settings = { maxProblems, numSamples, maxNewTokens, temperature, topK };
  const identity = { weights: chosen.meta.files, dtype: model.dtype, settings, lengths: lengthsOf(tasks) };
  using results = new ResultLog<ChatLine>(`${path}.partial.jsonl`, {
    ...{ ...FORMATS.chat, ...identity },
  });
  const options = { ...settings, batchSize, rows, samples: numSamples, results, log: terminal, stop };
  const scored: ChatTaskResult[] = [];
  for (const task of tasks) {
    const result = await evaluateChatTask(loaded, task, options);
    if (!result) {
      terminal.info("Stopped; the same command goes on from here");
      return EXIT.STOPPED;
    }
    scored.push(result);
    terminal.result(chatLine(result), chatObject(result));
  }
  await loaded.verified;
  const scores: Record<string, number> = Object.fromEntries(scored.map(({ name, accuracy }) => [name, accuracy]));
  if (CORE_TASKS.every((name) => names.includes(name))) {
    scores.ChatCORE = chatCore(
      CORE_TASKS.map((name) => ({ accuracy: scores[name], baseline: CHAT_TASKS[name].baseline })),
    );
    terminal.result(`${"ChatCORE".padEnd(16)} ${scores.ChatCORE.toFixed(4)}`, { ChatCORE: scores.ChatCORE });
  }
  const about = { model: chosen.name, step: chosen.step, quantize, ...settings };
  writeWhole(
    `${path}.json`,
    `${JSON.stringify({ ...FORMATS.chat, ...about, scores, tasks: scored.map(chatObject) }, null, 2)}\n`,
  );
  const sec = (performance.now() - started) / 1000;
  reportChatEval(folders.report, { flags: { ...settings, batchSize, quantize }, sec, source: chosen.source, scores });
  results.remove();
  const figures = Object.fromEntries(Object.entries(scores).map(([name, score]) => [figureName(name), score]));
  terminal.result(`Wrote "${path}.json"`, { file: `${path}.json`, ...figures });
  return EXIT.DONE;
}

/** The name of a task's accuracy among the figures of a run: "arc_easy_acc". */
function figureName(task: string): string {
  return task === "ChatCORE" ? "chatcore" : `${task.toLowerCase().replaceAll("-", "_")}_acc`;
}

function chatTaskNames(given: string): string[] {
  try {
    return chooseChatTasks(given);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function lengthsOf(tasks: readonly { name: string; task: Task }[]): Record<string, number> {
  return Object.fromEntries(tasks.map(({ name, task }) => [name, task.length]));
}

function chatObject({ name, right, total, accuracy, interval, passAt, tooLong }: ChatTaskResult) {
  return { task: name, right, total, accuracy, accuracy_ci95: interval, pass_at: passAt, too_long: tooLong };
}

function chatLine({ name, right, total, accuracy, interval: [low, high], passAt }: ChatTaskResult): string {
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  const passes = passAt.length === 1
    ? ""
    : `, pass@1 ${percent(passAt[0])}, pass@${passAt.length} ${percent(accuracy)}`;
  const range = `95 % interval ${percent(low)} to ${percent(high)}`;
  return `${name.padEnd(16)} ${percent(accuracy).padStart(8)} (${right} of ${total}; ${range})${passes}`;
}

/** Opens the model that the flags choose, and says which one. */
export async function openModel(base: string, flags: ModelFlags, terminal: Terminal): Promise<LoadedModel> {
  const { deviceType, threads, dtype, quantize } = flags;
  const loaded = await LoadedModel.open(base, {
    ...{ deviceType, threads, dtype, quantize, log: terminal },
    source: flags.source || undefined,
    tag: flags.modelTag,
    step: flags.step < 0 ? undefined : flags.step,
  });
  terminal.info(loaded.chosen.why);
  return loaded;
}

/** Names the files of a model's results: stage, tag and step, and how it was rounded. */
function modelName({ chosen: { source, tag, step } }: LoadedModel, quantize: Quantization): string {
  return `${source}_${tag}_${String(step).padStart(6, "0")}${quantize === "none" ? "" : `_${quantize}`}`;
}

function writeWhole(path: string, text: string): void {
  Deno.writeTextFileSync(`${path}.tmp`, text);
  Deno.renameSync(`${path}.tmp`, path);
}
