/** What mid-training, fine-tuning and reinforcement share: they start from another model and take its tokenizer; dry runs. */
import { join } from "@std/path";
import type { Task } from "../../tasks/task.ts";
import type { Folders, Stage } from "../data/base_dir.ts";
import { loadWeights } from "../engine/load.ts";
import type { GPT, GPTConfig } from "../model/gpt.ts";
import type { ChosenModel } from "../model/models.ts";
import { type RunStart, type SessionOptions, startRun, type TrainContext, TrainSession } from "./session.ts";
import type { StageFlags } from "./stage_flags.ts";

/** What these stages read. */
export interface ChatStageContext extends TrainContext {
  /** Checkpoint that the weights, the tokenizer and the default tag come from. */
  readonly source: ChosenModel;
  /** Conversations to train on. */
  readonly train: Task;
  /** Conversations that are held out. */
  readonly validation: Task;
}

/** Gives the shape of the model in a checkpoint. */
export function configOf({ meta }: ChosenModel): GPTConfig {
  return meta.config as unknown as GPTConfig;
}

/** Flags of these stages alike. */
interface ChatStageFlags extends StageFlags {
  /** Step of the model to start from; -1 = the latest. */
  readonly step: number;
  /** Factor of all learning rates. */
  readonly initLrFrac: number;
}

/**
 * Locks the run's folder and decides whether it starts or resumes. Tag and step of the model that it starts from go into the flags, so
 * that its checkpoints tell where they came from.
 *
 * @throws {CheckpointError} as `startRun` does.
 */
export function startChatStage<F extends ChatStageFlags>(
  given: F,
  { stage, cx }: { readonly stage: Stage; readonly cx: ChatStageContext },
): RunStart<F> {
  const { source } = cx;
  const tag = given.modelTag || source.tag;
  const flags = { ...given, modelTag: tag, step: given.step < 0 ? source.step : given.step };
  return startRun(flags, { stage, tag, tokenizerDir: source.folder, cx });
}

/** Opens the session of such a run; fresh, it has the weights of the model that it starts from. */
export async function openChatSession(
  start: RunStart<ChatStageFlags>,
  { cx, ...sizes }: { readonly cx: ChatStageContext } & Pick<SessionOptions, "config" | "B" | "T" | "gradAccum">,
): Promise<TrainSession> {
  const { source } = cx;
  const lrFraction = start.flags.initLrFrac;
  const init = (model: GPT) => loadWeights(model, source);
  return await TrainSession.open({ start, cx, tokenizerDir: source.folder, ...sizes, lrFraction, init });
}

/** Folders of a dry run: everything that would be written goes into a folder that is removed at the end. */
export function dryFolders(folders: Folders): Disposable & { readonly folders: Folders } {
  const root = Deno.makeTempDirSync({ prefix: "nanochat_dry_" });
  return {
    folders: { ...folders, checkpoints: join(root, "checkpoints") },
    [Symbol.dispose]: () => Deno.removeSync(root, { recursive: true }),
  };
}
