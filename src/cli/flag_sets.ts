/** Flags that several commands share. */
import { atLeast, between, bool, type FlagTable, float, int, oneOf, positiveOrOff, string } from "./flags.ts";

/** Which folders a command reads, where not the base folder's or the most recent run's. */
export const DATA_DIR = { "data-dir": string(undefined, { help: "folder of shards" }) } as const satisfies FlagTable;

/** Which tokenizer a command reads or writes. */
export const TOKENIZER_DIR = {
  "tokenizer-dir": string(undefined, { help: "folder of the tokenizer" }),
} as const satisfies FlagTable;

/** Tasks of the CORE metric. */
export const BUNDLE = {
  bundle: string(undefined, { help: "folder of the CORE tasks; without it eval_bundle in the base folder" }),
} as const satisfies FlagTable;

/** Shards of the reference's data set. */
export const DOWNLOAD = {
  "num-files": int(-1, { help: "shards to download, from the first one; -1 = all 1,823", short: "n" }),
  "num-workers": int(4, { help: "downloads at a time", short: "w", check: atLeast(1) }),
  "base-url": string(undefined, { help: "folder of a mirror that holds shard_00000.parquet and so on" }),
  offline: bool(false, { help: "uses no network; fails where a shard is missing" }),
  ...DATA_DIR,
} as const satisfies FlagTable;

/** Data of the stages behind the base model. */
export const FETCH = {
  "base-url": string(undefined, {
    help:
      "server that plays the hub: /api/datasets/..., /eval_bundle.zip, /words_alpha.txt, /identity_conversations.jsonl",
  }),
  offline: bool(false, { help: "uses no network; fails where something is missing" }),
  "data-dir": string(undefined, { help: "folder to fetch into; without it the base folder" }),
} as const satisfies FlagTable;

/** Conversations made by another model. */
export const SYNTH = {
  persona: string(undefined, { help: "text file about who the model is to be" }),
  url: string(undefined, {
    help: "server such as https://openrouter.ai/api/v1; requests go to /chat/completions below it",
  }),
  model: string(undefined, { help: "model of the server that writes the conversations" }),
  "num-conversations": int(1000, { help: "rows that the file has at the end", short: "n", check: atLeast(1) }),
  "num-workers": int(4, { help: "requests at a time", short: "w", check: atLeast(1) }),
  temperature: float(1, { help: "variety of the writing", short: "t", check: atLeast(0) }),
  "key-env": string("OPENAI_API_KEY", {
    help: "environment variable that holds the server's key; it is never written",
  }),
  out: string(undefined, {
    help: "JSON lines to append to; without it the base folder's identity_conversations.jsonl",
  }),
} as const satisfies FlagTable;

/** Secret that a server asks for. */
export const API_KEY = {
  "api-key": {
    ...string(undefined, { help: "taken from NANOCHAT_API_KEY alone: every user can read a command line" }),
    secret: true,
  },
  "api-key-file": string(undefined, { help: "file that holds the key of the server" }),
} as const satisfies FlagTable;

const TYPES = ["", "fp32", "float32", "f32", "bf16", "bfloat16"] as const;

/** Where a command computes. */
export const DEVICE = {
  "device-type": oneOf(["", "cpu", "cuda"], {
    help: "cpu or cuda; without it the best that is there",
    default: "",
    aliases: ["device"],
  }),
  threads: int(0, { help: "CPU threads; 0 = the physical cores that the process may use", check: atLeast(0) }),
  dtype: oneOf(TYPES, { help: "type of the activations; without it what suits the device", default: "" }),
} as const satisfies FlagTable;

/** What the products of a trained model read. */
export const QUANTIZE = {
  quantize: oneOf(["none", "int8"], {
    default: "none",
    help: "int8: weights of 8 bits, faster and a little less exact",
  }),
} as const satisfies FlagTable;

/** Type of Muon's products. */
export const MUON_DTYPE = {
  "muon-dtype": oneOf(TYPES.slice(1), { help: "type of the products in Newton-Schulz", default: "bf16" }),
} as const satisfies FlagTable;

/** Which report. */
export const REPORT = {
  run: string(undefined, { help: "run in runs/; without it the base folder, else the most recent run with a report" }),
  "price-per-hour": float(undefined, { help: "price of the machine, for the cost of each stage", check: atLeast(0) }),
} as const satisfies FlagTable;

const SEVERAL = { check: atLeast(1) };

/** What the machine costs. */
export const PRICE = {
  "price-per-hour": float(undefined, {
    help: "price of the machine: progress and result tell the cost",
    check: atLeast(0),
  }),
} as const satisfies FlagTable;

/** Base pretraining: names and defaults of the reference where it has the flag. */
export const TRAIN = {
  run: string("dummy", { help: "name of the run, in logs and checkpoints", env: ["WANDB_RUN"] }),
  ...DEVICE,
  ...MUON_DTYPE,
  seed: int(42, { help: "seed of the weights" }),
  depth: int(20, { help: "layers: the one dial; width, heads, batch and horizon follow", ...SEVERAL }),
  "max-seq-len": int(2048, { help: "length of a row", unit: "tokens", ...SEVERAL }),
  "num-iterations": int(-1, { help: "optimizer steps; -1 = from the next two", check: positiveOrOff }),
  "target-flops": float(-1, { help: "training FLOPs; -1 = from the next one", check: positiveOrOff }),
  "target-param-data-ratio": float(20, { help: "training tokens per parameter", check: positiveOrOff }),
  "device-batch-size": int(32, { help: "rows of a micro-batch", ...SEVERAL }),
  "total-batch-size": int(524288, { help: "size of a step; micro-batches follow", unit: "tokens", ...SEVERAL }),
  "embedding-lr": float(0.2, { help: "learning rate of the embedding (AdamW)", check: atLeast(0) }),
  "unembedding-lr": float(0.004, { help: "learning rate of the output layer (AdamW)", check: atLeast(0) }),
  "matrix-lr": float(0.02, { help: "learning rate of the matrices (Muon)", check: atLeast(0) }),
  "weight-decay": float(0, { help: "weight decay of the AdamW groups", check: atLeast(0) }),
  "grad-clip": float(1, { help: "largest global norm of the gradient; 0 = no clipping", check: atLeast(0) }),
  "warmup-ratio": float(0, { help: "share of the steps in which the rates rise", check: between(0, 1) }),
  "warmdown-ratio": float(0.2, { help: "share of the steps in which the rates fall", check: between(0, 1) }),
  "final-lr-frac": float(0, { help: "where the rates end, as a share", check: between(0, 1) }),
  "eval-every": int(250, { help: "steps between validations; -1 = none", check: positiveOrOff }),
  "eval-tokens": int(20 * 524288, { help: "size of a validation", unit: "tokens", ...SEVERAL }),
  "core-metric-every": int(2000, {
    help: "steps between CORE evaluations, where the tasks are there (--bundle); -1 = none",
    check: positiveOrOff,
  }),
  "core-metric-max-per-task": int(500, { help: "items of a CORE task; -1 = all", check: positiveOrOff }),
  "sample-every": int(2000, { help: "steps between samples; -1 = none", check: positiveOrOff }),
  "save-every": int(-1, { help: "steps between checkpoints; -1 = only at the end", check: positiveOrOff }),
  keep: int(0, { help: "checkpoints that are kept, the newest; 0 = all", check: atLeast(0) }),
  "model-tag": string("", { help: "name of the model; without it d<depth>" }),
  resume: oneOf(["", "latest", "auto"], {
    help: "goes on from the latest checkpoint; auto = starts anew where there is none",
    default: "",
    bare: "latest",
  }),
  "resume-from-step": int(-1, { help: "goes on from the checkpoint of this step; -1 = no", check: atLeast(-1) }),
  overwrite: bool(false, { help: "removes the checkpoints that are in the folder, after the first step" }),
} as const satisfies FlagTable;

const VOCAB = { "vocab-size": int(65536, { help: "tokens of the vocabulary", ...SEVERAL }) } as const;
const DEPTH = { depth: int(4, { help: "layers", ...SEVERAL }), ...VOCAB } as const;

/** Sizes of the forms of `nanochat bench`. */
export const BENCH = {
  train: {
    ...DEPTH,
    "max-seq-len": int(512, { help: "length of a row", unit: "tokens", ...SEVERAL }),
    "device-batch-size": int(8, { help: "rows of a micro-batch", ...SEVERAL }),
    "grad-accum": int(1, { help: "micro-batches of a step", ...SEVERAL }),
    steps: int(10, { help: "steps that are timed, after a warm-up", ...SEVERAL }),
    ...DEVICE,
    ...MUON_DTYPE,
  },
  infer: {
    ...DEPTH,
    "batch-size": int(1, { help: "rows that are decoded at once", ...SEVERAL }),
    "prompt-tokens": int(256, { help: "length of the prompt", unit: "tokens", ...SEVERAL }),
    "new-tokens": int(64, { help: "length of the answer", unit: "tokens", ...SEVERAL }),
    ...QUANTIZE,
    ...DEVICE,
    ...MUON_DTYPE,
  },
  tokenizer: {
    text: string("", { help: "text file to train on and to encode" }),
    ...VOCAB,
    ...DEVICE,
    ...MUON_DTYPE,
  },
  loader: {
    "device-batch-size": int(32, { help: "rows of a batch", ...SEVERAL }),
    "max-seq-len": int(2048, { help: "length of a row", unit: "tokens", ...SEVERAL }),
    ...DATA_DIR,
    ...TOKENIZER_DIR,
    ...DEVICE,
    ...MUON_DTYPE,
  },
  attention: {
    T: int(2048, { help: "length of the row", unit: "tokens", ...SEVERAL }),
    heads: int(6, { help: "heads", ...SEVERAL }),
    "head-dim": int(128, { help: "width of a head", ...SEVERAL }),
    ...DEVICE,
    ...MUON_DTYPE,
  },
  loss: {
    tokens: int(4096, { help: "rows", ...SEVERAL }),
    width: int(768, { help: "width of the model", ...SEVERAL }),
    ...VOCAB,
    ...DEVICE,
    ...MUON_DTYPE,
  },
  optimizer: { ...DEPTH, ...DEVICE, ...MUON_DTYPE },
  gemm: {
    m: int(2048, { help: "rows of the result", ...SEVERAL }),
    n: int(2048, { help: "columns of the result", ...SEVERAL }),
    k: int(2048, { help: "length of the sums", ...SEVERAL }),
    ...DEVICE,
    ...MUON_DTYPE,
  },
  start: { ...DEVICE, ...MUON_DTYPE },
} as const satisfies Record<string, FlagTable>;
