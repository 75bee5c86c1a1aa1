/** Flags of `nanochat mid`, `sft` and `rl`: those of base training that they share, and their own. */
import { REFERENCE_MIXTURES, TASK_NAMES } from "../../tasks/mixture_names.ts";
import { PRICE, TRAIN } from "./flag_sets.ts";
import { atLeast, between, bool, type FlagTable, float, int, oneOf, positiveOrOff, string } from "./flags.ts";

const SEVERAL = { check: atLeast(1) };
const COUNT_OR_ALL = { check: atLeast(-1) };

const SHARED = {
  run: TRAIN.run,
  "device-type": TRAIN["device-type"],
  threads: TRAIN.threads,
  dtype: TRAIN.dtype,
  "muon-dtype": TRAIN["muon-dtype"],
  seed: int(42, { help: "kept with the run; these stages draw nothing from it" }),
  "embedding-lr": TRAIN["embedding-lr"],
  "unembedding-lr": TRAIN["unembedding-lr"],
  "matrix-lr": TRAIN["matrix-lr"],
  "weight-decay": TRAIN["weight-decay"],
  "save-every": TRAIN["save-every"],
  keep: TRAIN.keep,
  "model-tag": string("", { help: "name of the model, before and after; without it the largest d<depth>" }),
  step: int(-1, { help: "checkpoint to start from; -1 = the latest", ...COUNT_OR_ALL }),
  resume: TRAIN.resume,
  "resume-from-step": TRAIN["resume-from-step"],
  overwrite: TRAIN.overwrite,
} as const satisfies FlagTable;

const lrFraction = (share: number) => float(share, { help: "factor of all learning rates", check: atLeast(0) });

/** Where the conversations come from. */
const DATA = {
  "data-dir": string(undefined, {
    help: "folder with task data, word list and identity conversations; without it the base folder",
  }),
} as const satisfies FlagTable;

const mixtures = ({ train, validation }: { train: string; validation: string }) => ({
  mixture: string(train, {
    help: `conversations to train on: NAME[:ROWS][*TIMES], ...; a .jsonl file or one of ${TASK_NAMES.join(", ")}`,
  }),
  "validation-mixture": string(validation, { help: "conversations that are held out, likewise" }),
});

/** Mid-training. */
export const MID = {
  ...SHARED,
  "num-iterations": int(-1, { help: "optimizer steps; -1 = one pass over the mixture", check: positiveOrOff }),
  "max-seq-len": TRAIN["max-seq-len"],
  "device-batch-size": int(32, { help: "rows of a micro-batch", ...SEVERAL }),
  "total-batch-size": TRAIN["total-batch-size"],
  "init-lr-frac": lrFraction(1),
  "eval-every": int(150, { help: "steps between validations; -1 = none", check: positiveOrOff }),
  "eval-tokens": TRAIN["eval-tokens"],
  "dry-run": bool(false, { help: "trains and measures, and leaves neither checkpoint nor report" }),
  ...mixtures(REFERENCE_MIXTURES.mid),
  ...DATA,
  ...PRICE,
} as const satisfies FlagTable;

/** Supervised fine-tuning. */
export const SFT = {
  ...SHARED,
  source: oneOf(["base", "mid"], { default: "mid", help: "stage of the model to start from" }),
  "device-batch-size": int(4, { help: "conversations of a micro-batch", ...SEVERAL }),
  "num-epochs": int(1, { help: "passes over the conversations", ...SEVERAL }),
  "num-iterations": int(-1, {
    help: "steps, the last one only evaluates; -1 = as the passes say",
    check: positiveOrOff,
  }),
  "target-examples-per-step": int(32, { help: "conversations of an update; micro-batches follow", ...SEVERAL }),
  "init-lr-frac": lrFraction(0.02),
  "eval-every": int(100, { help: "steps between validations; -1 = none", check: positiveOrOff }),
  "eval-steps": int(100, { help: "batches of a validation", ...SEVERAL }),
  "eval-metrics-every": int(200, { help: "steps between MMLU and ARC-Easy; -1 = none", check: positiveOrOff }),
  "eval-metrics-max-problems": int(1024, { help: "problems of each; -1 = all", ...COUNT_OR_ALL }),
  ...mixtures(REFERENCE_MIXTURES.sft),
  ...DATA,
  ...PRICE,
} as const satisfies FlagTable;

/** Reinforcement learning. */
export const RL = {
  ...SHARED,
  source: oneOf(["mid", "sft"], { default: "sft", help: "stage of the model to start from" }),
  "device-batch-size": int(8, { help: "answers of a micro-batch, and of an evaluation's pass@k", ...SEVERAL }),
  "examples-per-step": int(16, { help: "prompts of a step", ...SEVERAL }),
  "num-samples": int(16, { help: "answers to each prompt", ...SEVERAL }),
  "max-new-tokens": int(256, { help: "length of an answer", unit: "tokens", ...SEVERAL }),
  temperature: float(1, { help: "of the answers", check: atLeast(0) }),
  "top-k": int(50, { help: "choose among this many tokens; 0 = all", check: atLeast(0) }),
  "init-lr-frac": lrFraction(0.05),
  "num-epochs": int(1, { help: "passes over the prompts", ...SEVERAL }),
  "num-iterations": int(-1, { help: "steps; -1 = as the passes say", check: positiveOrOff }),
  "save-every": int(60, { help: "steps between checkpoints; -1 = only at the end", check: positiveOrOff }),
  "eval-every": int(60, { help: "steps between evaluations; -1 = none", check: positiveOrOff }),
  "eval-examples": int(400, { help: "held-out prompts of an evaluation", ...SEVERAL }),
  kl: float(0, { help: "weight of the distance from the model it starts from; 0 = off", check: atLeast(0) }),
  clip: float(0, { help: "bound of a token's probability ratio, such as 0.2; 0 = off", check: between(0, 1) }),
  "updates-per-rollout": int(1, { help: "updates on the same answers; --clip needs several", ...SEVERAL }),
  ...mixtures(REFERENCE_MIXTURES.rl),
  ...DATA,
  ...PRICE,
} as const satisfies FlagTable;
