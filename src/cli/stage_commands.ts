/** `nanochat mid`, `sft` and `rl`: the stages behind base training, with the folders and the log of the command line. */
import { join, resolve } from "@std/path";
import { loadStageTasks } from "../../tasks/mixtures.ts";
import { checkpointFolder, foldersOf, resolveBaseDir, type Stage } from "../data/base_dir.ts";
import { CheckpointError } from "../model/checkpoint.ts";
import { chooseModel, type ChosenModel } from "../model/models.ts";
import { duration } from "../report/card.ts";
import { EVENTS_FILE, readEvents } from "../report/events.ts";
import { reportChatStage } from "../report/stages.ts";
import { chatRl } from "../train/chat_rl.ts";
import { chatSft, type TaskMetrics } from "../train/chat_sft.ts";
import type { ChatStageContext } from "../train/chat_stage.ts";
import { MID_TRAIN_DEFAULTS } from "../train/mid_flags.ts";
import { midTrain } from "../train/mid_train.ts";
import { CHAT_RL_DEFAULTS } from "../train/rl_flags.ts";
import { money } from "../train/run_clock.ts";
import type { TrainResult } from "../train/session.ts";
import { CHAT_SFT_DEFAULTS } from "../train/sft_flags.ts";
import { loadTaskMetrics } from "../train/task_metrics.ts";
import { type Invocation, wantsProfile } from "./command.ts";
import { RunLog } from "./run_log.ts";
import { EXIT } from "./signals.ts";
import type { MID, RL, SFT } from "./stage_flag_sets.ts";
import { explicitFlags, wayOn } from "./train_command.ts";

type ChatStage = Exclude<Stage, "base">;
type AnyInvocation = Invocation<typeof MID> | Invocation<typeof SFT> | Invocation<typeof RL>;
type Figures = Readonly<Record<string, number | null>>;

/** Mid-trains a base model; 75 where the user stopped it after its checkpoint was written. */
export async function mid(invocation: Invocation<typeof MID>): Promise<number> {
  const { values } = invocation;
  const flags = pick(values, MID_TRAIN_DEFAULTS);
  return await runStage(invocation, {
    stage: "mid",
    from: "base",
    dryRun: values.dryRun,
    run: async (cx) => {
      const result = await midTrain(flags, cx);
      // Of conversations: not to be compared with that of the base model's text.
      return { result, flags, figures: { chat_bpb: result.valBpb, min_chat_bpb: result.minValBpb } };
    },
  });
}

/** Fine-tunes a model on conversations; 75 where the user stopped it after its checkpoint was written. */
export async function sft(invocation: Invocation<typeof SFT>): Promise<number> {
  const { values } = invocation;
  const flags = pick(values, CHAT_SFT_DEFAULTS);
  return await runStage(invocation, {
    stage: "sft",
    from: values.source,
    run: async (cx) => {
      const metrics = await chooseMetrics(dataFolder(values), { every: flags.evalMetricsEvery, cx });
      const result = await chatSft(flags, { ...cx, metrics });
      return { result, flags, figures: { val_loss: result.valLoss, ...result.metrics } };
    },
  });
}

/** Reinforces a model; 75 where the user stopped it after its checkpoint was written. */
export async function rl(invocation: Invocation<typeof RL>): Promise<number> {
  const { values } = invocation;
  const flags = pick(values, CHAT_RL_DEFAULTS);
  return await runStage(invocation, {
    stage: "rl",
    from: values.source,
    run: async (cx) => {
      const result = await chatRl(flags, cx);
      const { passAt = [], rewards = [] } = result.evaluation ?? {};
      const passes = Object.fromEntries(passAt.map((share, i) => [`pass@${i + 1}`, share]));
      return { result, flags, figures: { ...rewardFigures(result.folder, rewards), ...passes } };
    },
  });
}

/** The mean reward of held-out prompts before the first update, which the events keep over a resume, and after the last one. */
function rewardFigures(folder: string, rewards: readonly number[]): Figures {
  const events = readEvents(join(folder, EVENTS_FILE));
  const before = events.find(({ kind, step }) => kind === "eval" && step === 0)?.values?.reward ?? null;
  const n = rewards.length;
  if (n === 0) return { rl_reward_before: before };
  const mean = rewards.reduce((sum, x) => sum + x, 0) / n;
  const variance = rewards.reduce((sum, x) => sum + (x - mean) ** 2, 0) / Math.max(1, n - 1);
  return { rl_reward_before: before, rl_reward_after: mean, rl_reward_ci95: 1.96 * Math.sqrt(variance / n) };
}

/** Picks the flags of a stage among all values. */
export function pick<F extends object>(values: Readonly<Record<string, unknown>>, defaults: F): F {
  return Object.fromEntries(Object.keys(defaults).map((name) => [name, values[name]])) as F;
}

async function runStage(
  { values, settings, terminal, stop }: AnyInvocation,
  { stage, from, dryRun = false, run }: {
    readonly stage: ChatStage;
    readonly from: Stage;
    readonly dryRun?: boolean;
    run(
      cx: ChatStageContext,
    ): Promise<{ readonly result: TrainResult; readonly flags: object; readonly figures: Figures }>;
  },
): Promise<number> {
  const base = resolveBaseDir(values.baseDir);
  const folders = foldersOf(base);
  const source = chooseStart(base, { stage, from, ...values });
  const tag = values.modelTag || source.tag;
  const folder = checkpointFolder(folders, { stage, tag });
  const log = dryRun ? terminal : new RunLog(terminal, { folder, head: { command: `nanochat ${stage}`, settings } });
  log.info(source.why);
  const { result, flags, figures } = await run({
    folders,
    source,
    ...await loadStageTasks(dataFolder(values), { train: values.mixture, validation: values.validationMixture, log }),
    log,
    stop,
    explicit: explicitFlags(settings),
    profile: wantsProfile(),
    pricePerHour: values.pricePerHour,
  });
  const { step, steps, stopped, totalTimeMs, cost } = result;
  if (!stopped && !dryRun) reportChatStage(folders.report, { stage, flags, figures, ...result });
  const measured = Object.entries(figures).filter((row): row is [string, number] => row[1] !== null);
  const told = measured.filter(([name], i) => !/^pass@/.test(name) || name === "pass@1" || i === measured.length - 1);
  const shown = told.map(([name, value]) => `, ${name} ${value.toFixed(4)}`).join("");
  const paid = cost === undefined ? "" : `, ${money(cost)}`;
  terminal.result(
    `${stage}/${tag}: step ${step} of ${steps}${shown}, ${duration(totalTimeMs / 1000)} of updates${paid}`,
    { folder: dryRun ? null : result.folder, step, steps, stopped, ...figures, total_time_ms: totalTimeMs, cost },
  );
  if (!stopped) return EXIT.DONE;
  log.info(`Stopped after step ${step}; go on with: nanochat ${stage} --model-tag=${tag} --${wayOn(step, values)}`);
  return EXIT.STOPPED;
}

function dataFolder({ dataDir, baseDir }: { readonly dataDir?: string; readonly baseDir?: string }): string {
  return dataDir ? resolve(dataDir) : resolveBaseDir(baseDir);
}

/** Opens MMLU and ARC-Easy where they are measured; where nobody asked for it and the data is missing, a warning says so. */
async function chooseMetrics(
  folder: string,
  { every, cx: { explicit, log } }: { readonly every: number; readonly cx: ChatStageContext },
): Promise<TaskMetrics | undefined> {
  if (every < 0) return undefined;
  try {
    return await loadTaskMetrics(folder);
  } catch (error) {
    if (explicit?.has("evalMetricsEvery") || !(error instanceof Error)) throw error;
    log.warn(`MMLU and ARC-Easy are not measured (--eval-metrics-every): ${error.message}`);
    return undefined;
  }
}

/** Chooses the model to start from; a run that goes on can do without it, as its own checkpoints hold all that is needed. */
function chooseStart(
  base: string,
  { stage, from, modelTag, step, resume, resumeFromStep }: {
    readonly stage: Stage;
    readonly from: Stage;
    readonly modelTag: string;
    readonly step: number;
    readonly resume: string;
    readonly resumeFromStep: number;
  },
): ChosenModel {
  const tag = modelTag || undefined;
  try {
    return chooseModel(base, { source: from, tag, step: step < 0 ? undefined : step });
  } catch (error) {
    const resumes = resume !== "" || resumeFromStep >= 0;
    if (!resumes || !(error instanceof CheckpointError) || error.problem !== "missing") throw error;
    return chooseModel(base, { source: stage, tag });
  }
}
