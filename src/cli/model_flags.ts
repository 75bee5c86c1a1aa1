/** Flags of the commands that open a trained model. */
import { STAGES } from "../data/base_dir.ts";
import { DEVICE, PRICE, QUANTIZE } from "./flag_sets.ts";
import { atLeast, between, bool, type FlagTable, float, int, oneOf, string } from "./flags.ts";

/** Which model; without any of them, the furthest stage of what was trained last. */
export const MODEL = {
  source: oneOf(["", ...STAGES], { default: "", help: "stage: base, mid, sft or rl", short: "i" }),
  "model-tag": string(undefined, { help: "name of the model, such as d4", short: "g" }),
  step: int(-1, { help: "checkpoint; -1 = the latest", short: "s", check: atLeast(-1) }),
} as const satisfies FlagTable;

/** What an import needs to know where the files do not say it. */
export const IMPORT = {
  source: {
    ...MODEL.source,
    help: "stage of the model: base, mid, sft or rl; without it that of the folder it lies in",
  },
  "model-tag": { ...MODEL["model-tag"], help: "name that the model gets; without it the folder's" },
  step: { ...MODEL.step, help: "checkpoint to take; -1 = the latest" },
  "tokenizer-dir": string(undefined, {
    help:
      "folder with tokenizer.pkl or tokenizer.json; without it beside the model or in tokenizer/ of its base folder",
  }),
  overwrite: bool(false, { help: "replaces the checkpoint or the tokenizer that is there" }),
} as const satisfies FlagTable;

/** How answers are drawn. */
export const SAMPLING = {
  temperature: float(0.6, { help: "0 = always the most probable token", short: "t", check: atLeast(0) }),
  "top-k": int(50, { help: "choose among this many tokens; 0 = all", short: "k", check: atLeast(0) }),
  "top-p": float(1, {
    help: "choose among the tokens that together have this probability",
    check: between(0.01, 1),
  }),
  "max-tokens": int(256, { help: "length of an answer", unit: "tokens", short: "m", check: atLeast(1) }),
  seed: int(undefined, { help: "same draws each time; without it every answer draws anew" }),
} as const satisfies FlagTable;

/** Where and how a model runs. */
export const COMPUTE = {
  ...DEVICE,
  dtype: { ...DEVICE.dtype, short: "d" },
  ...QUANTIZE,
} as const satisfies FlagTable;

/** Recipes. */
export const RUN = {
  "base-url": string(undefined, {
    help: "server that plays the hub, as of data fetch; shards are below it in base_data/",
  }),
  from: string(undefined, { help: "repeats this stage and those behind it, finished or not" }),
  until: string(undefined, { help: "ends after this stage" }),
  ...DEVICE,
  ...PRICE,
  "dry-run": bool(false, { help: "prints the commands of the stages and ends" }),
} as const satisfies FlagTable;
