/** What mid-training, fine-tuning and reinforcement share beside a session: the model that they start from, and dry runs. */
import { join } from "@std/path";
import type { Task } from "../../tasks/task.ts";
import type { Folders } from "../data/base_dir.ts";
import type { GPTConfig } from "../model/gpt.ts";
import type { ChosenModel } from "../model/models.ts";
import type { TrainContext } from "./session.ts";

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

/** Fills in the tag and the step of the model that a run starts from, so that its checkpoints tell where it came from. */
export function fromSource<F extends { readonly step: number; readonly modelTag: string }>(
  flags: F,
  source: ChosenModel,
): F {
  return { ...flags, modelTag: flags.modelTag || source.tag, step: flags.step < 0 ? source.step : flags.step };
}

/** Folders of a dry run: everything that would be written goes into a folder that is removed at the end. */
export function dryFolders(folders: Folders): Disposable & { readonly folders: Folders } {
  const root = Deno.makeTempDirSync({ prefix: "nanochat_dry_" });
  return {
    folders: { ...folders, checkpoints: join(root, "checkpoints") },
    [Symbol.dispose]: () => Deno.removeSync(root, { recursive: true }),
  };
}
