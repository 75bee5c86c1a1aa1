/** Flags that every stage of training has, how a checkpoint stores them, and how a resumed run gets its own. */
import type { JsonObject } from "../model/checkpoint.ts";
import { RESUME_CHANGEABLE, resumeFlags } from "../model/resume.ts";

/** Flags of `train`, `mid`, `sft` and `rl` alike. */
export interface StageFlags {
  /** Name of the run. */
  readonly run: string;
  /** "" = the CPU. */
  readonly deviceType: "cpu" | "cuda" | "";
  /** CPU threads; 0 = physical cores. */
  readonly threads: number;
  /** fp32, bf16, or "" for the best of the device. */
  readonly dtype: string;
  /** What Muon's orthogonalisation computes in: fp32 or bf16. */
  readonly muonDtype: string;
  /** Seed of whatever the stage draws. */
  readonly seed: number;
  /** Rows of a micro-batch. */
  readonly deviceBatchSize: number;
  /** Learning rate of the token embedding, for width 768 (AdamW). */
  readonly embeddingLr: number;
  /** Learning rate of the head, for width 768 (AdamW). */
  readonly unembeddingLr: number;
  /** Learning rate of the matrices of the layers (Muon). */
  readonly matrixLr: number;
  /** Weight decay of embedding and head. */
  readonly weightDecay: number;
  /** Steps between evaluations; -1 = none. */
  readonly evalEvery: number;
  /** Steps between checkpoints; -1 = only at the end. */
  readonly saveEvery: number;
  /** Checkpoints that are kept; 0 = all. */
  readonly keep: number;
  /** Name of the model's folder; "" = "d" and the depth. */
  readonly modelTag: string;
  /** "" = start anew; "latest" = continue, an error without a checkpoint; "auto" = continue or start. */
  readonly resume: "" | "latest" | "auto";
  /** Continue at this step; -1 = as `resume` says. */
  readonly resumeFromStep: number;
  /** Replace the checkpoints in the folder. */
  readonly overwrite: boolean;
}

/** Defaults of these flags; the reference's where it has the flag. */
export const STAGE_DEFAULTS: Omit<StageFlags, "deviceBatchSize" | "evalEvery"> = {
  run: "dummy",
  deviceType: "",
  threads: 0,
  dtype: "",
  muonDtype: "bf16",
  seed: 42,
  embeddingLr: 0.2,
  unembeddingLr: 0.004,
  matrixLr: 0.02,
  weightDecay: 0,
  saveEvery: -1,
  keep: 0,
  modelTag: "",
  resume: "",
  resumeFromStep: -1,
  overwrite: false,
};

/** Flags that say how to start, not what to compute: never stored, never taken from a checkpoint. */
const START_FLAGS = new Set(["resume", "resume_from_step", "overwrite"]);
/** Beyond what every stage may change: the run's name and the machine. */
const CHANGEABLE = [...RESUME_CHANGEABLE, "run", "threads", "device_type"];

/** Takes the flags of a resumed run from its checkpoint, with those given anew where they may change. */
export function mergeFlags<F extends StageFlags>(
  given: F,
  { saved, explicit }: { saved: JsonObject; explicit: ReadonlySet<string> },
): F {
  const now = Object.fromEntries(Object.entries(given).filter(([name]) => explicit.has(name)));
  const merged = resumeFlags(saved, { given: storedFlags(now), changeable: CHANGEABLE });
  const camel = (name: string) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  return { ...given, ...Object.fromEntries(Object.entries(merged).map(([name, value]) => [camel(name), value])) };
}

/** Writes flags as a checkpoint stores them: under the reference's names. */
export function storedFlags(flags: object): JsonObject {
  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const rows = Object.entries(flags).map(([name, value]) => [snake(name), value]);
  return Object.fromEntries(rows.filter(([name]) => !START_FLAGS.has(name)));
}
