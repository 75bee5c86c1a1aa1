/** Flags of the commands that open a trained model. */
import { STAGES } from "../data/base_dir.ts";
import { API_KEY, DEVICE, PRICE, QUANTIZE } from "./flag_sets.ts";
import { atLeast, between, bool, duration, type FlagTable, float, int, oneOf, string } from "./flags.ts";

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

/** The server: names and defaults of the reference where it has the flag. */
export const SERVE = {
  ...MODEL,
  model: string(undefined, {
    help: "models that may be asked for, as in --model=sft/d4@700,base/d4; the first one is the default",
    many: true,
  }),
  gpus: int(1, {
    help: "GPUs, each with the models in its memory; the CPU is one device",
    aliases: ["num-gpus"],
    short: "n",
    check: between(1, 64),
  }),
  "max-loaded": int(1, { help: "models in memory at a time; the one not used for longest leaves", check: atLeast(1) }),
  rows: int(0, { help: "answers at a time; 0 = what memory allows, at most 32", check: atLeast(0) }),
  queue: int(128, { help: "requests that may wait for a row; beyond them the answer is 429", check: atLeast(1) }),
  temperature: { ...SAMPLING.temperature, default: 0.8, help: "where a request names none", check: between(0, 2) },
  "top-k": { ...SAMPLING["top-k"], help: "where a request names none; 0 = all tokens" },
  "max-tokens": { ...SAMPLING["max-tokens"], default: 512, help: "length of an answer where a request names none" },
  timeout: duration(600, { help: "time that a request may take", check: atLeast(1) }),
  "show-tools": bool(false, { help: "puts the calculator's calls and results into the text of answers too" }),
  host: string("127.0.0.1", { help: "address to listen on; 0.0.0.0 = all of this machine" }),
  port: int(8000, { help: "0 = any that is free", short: "p", check: between(0, 65535) }),
  ...API_KEY,
  auth: bool(true, { help: "--no-auth: without a key everyone may ask who reaches --host" }),
  "allowed-host": string(undefined, {
    help: "further names under which the server may be asked, as behind a proxy",
    many: true,
  }),
  cors: string(undefined, {
    help: "origins of web pages elsewhere that may ask, such as https://example.org",
    many: true,
  }),
  grace: duration(30, { help: "time for running answers to end when the server is stopped", check: atLeast(0) }),
  "log-prompts": bool(false, { help: "tells what is asked and answered; otherwise only who asks for what" }),
  ...COMPUTE,
  threads: { ...COMPUTE.threads, help: "CPU threads; 0 = one less than the physical cores" },
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
