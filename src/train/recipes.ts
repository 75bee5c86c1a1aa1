/**
 * The whole pipelines, stage by stage: the table of contents of the project. A stage is a command with its flags; `run.ts` goes
 * through them. Numbers are those of the reference's runcpu.sh, speedrun.sh and run1000.sh.
 */

/** A stage: a command as it could be typed, in the folder of the run. */
export interface Stage {
  /** Name in records and for `--from`. */
  readonly name: string;
  /** Words after `nanochat`. */
  readonly command: string;
  readonly args?: readonly string[];
  readonly flags?: Readonly<Record<string, string | number | boolean>>;
  /** Goes on beside the stages behind it, until one `needs` it. */
  readonly background?: true;
  /** Names of background stages that must have ended before. */
  readonly needs?: readonly string[];
}

/** A pipeline. */
export interface Recipe {
  /** What comes out, how long it takes, what it needs. */
  readonly about: string;
  /** Where its shards lie: in the folder of the run, or in the base folder's `data/`, which all runs share. */
  readonly data: "own" | "shared";
  readonly stages: readonly Stage[];
  /** What to type when it is done. */
  readonly next: string;
}

type Flags = NonNullable<Stage["flags"]>;

/** What the recipes for GPUs differ in: shards for the tokenizer and in all, characters that it is trained on, size of the model. */
interface BigRecipe {
  readonly about: string;
  readonly firstShards: number;
  readonly shards: number;
  readonly maxChars: number;
  readonly base: Flags;
  readonly mid: Flags;
}

/** The reference's pipeline for a machine with GPUs; shards come while the tokenizer trains, everything else at the reference's defaults. */
function bigRecipe({ about, firstShards, shards, maxChars, base, mid }: BigRecipe): Recipe {
  return {
    about,
    data: "shared",
    stages: [
      { name: "first-shards", command: "data download", flags: { "num-files": firstShards } },
      { name: "shards", command: "data download", flags: { "num-files": shards }, background: true },
      { name: "fetch", command: "data fetch", args: ["all"], background: true },
      { name: "tokenizer", command: "tokenizer train", flags: { "max-chars": maxChars } },
      { name: "tokenizer-eval", command: "tokenizer eval" },
      // About 20 tokens a parameter, 4.8 characters a token and 250 million characters a shard; with too few the text repeats.
      { name: "base", command: "train", flags: base, needs: ["shards", "fetch"] },
      { name: "base-loss", command: "eval bpb", flags: { source: "base" } },
      { name: "base-eval", command: "eval core", flags: { source: "base" } },
      { name: "mid", command: "mid", flags: mid },
      { name: "mid-eval", command: "eval chat", flags: { source: "mid" } },
      { name: "sft", command: "sft" },
      { name: "sft-eval", command: "eval chat", flags: { source: "sft" } },
    ],
    next: "nanochat chat",
  };
}

/** An examination with held-out questions about the small world. */
const worldExam = (source: string, { problems }: { readonly problems: number }): Flags => ({
  source,
  "task-name": "Identity|World|Arithmetic|Counting",
  "max-problems": problems,
  "max-new-tokens": 200,
});

/** The recipes by name. */
export const RECIPES: Readonly<Record<string, Recipe>> = {
  // A model that learns a small world of its own on two cores, from nothing and without a network, and then to talk about it.
  tiny: {
    about:
      "trains a small chat model on a small world that it writes itself: 8 to 12 minutes on two cores, 300 MB of disk, no network",
    data: "own",
    stages: [
      // 14 MB of stories, portraits, questions, arithmetic, spelling and dates: more than the model sees once.
      { name: "data", command: "data world", flags: { seed: 1, "train-documents": 30_000, "val-documents": 2_500 } },
      // 4,096 tokens keep the head small beside four layers, and make about 4.5 bytes a token of this text.
      { name: "tokenizer", command: "tokenizer train", flags: { "vocab-size": 4096, "max-chars": 20_000_000 } },
      {
        name: "base",
        command: "train",
        flags: {
          depth: 4,
          "max-seq-len": 512,
          "device-batch-size": 8,
          "total-batch-size": 4096,
          // 1.8 of the 3.3 million tokens: 4 minutes at 7,600 tokens a second (LOG 2026-11-25)
          "num-iterations": 450,
          "eval-every": 150,
          "eval-tokens": 10 * 4096,
          "sample-every": 75,
          "core-metric-every": -1,
          "save-every": 100,
          keep: 1,
        },
      },
      {
        name: "base-eval",
        command: "eval bpb",
        flags: { source: "base", "device-batch-size": 8, "split-tokens": 30 * 4096, markov: true },
      },
      // Slower than base training, or the model forgets what it is not asked (LOG 2026-11-25).
      {
        name: "mid",
        command: "mid",
        flags: {
          // A dialogue holds three questions of any kind; portraits keep the facts that none of them asks for.
          mixture: "world-identity:2000, world-facts:500, world-telling:1500, world-counting:9000, world-dialogue:2500",
          "validation-mixture": "world-dialogue:200",
          "max-seq-len": 512,
          "device-batch-size": 8,
          "total-batch-size": 4096,
          "init-lr-frac": 0.3,
          "eval-every": 100,
          "eval-tokens": 4 * 4096,
          "save-every": 100,
          keep: 1,
        },
      },
      { name: "mid-eval", command: "eval chat", flags: worldExam("mid", { problems: 100 }) },
      // Short, so that reinforcement has room.
      {
        name: "sft",
        command: "sft",
        flags: {
          mixture: "world-identity:200, world-counting:200, world-dialogue:400",
          "validation-mixture": "world-dialogue:100",
          "device-batch-size": 16,
          "target-examples-per-step": 32,
          "init-lr-frac": 0.1,
          "eval-every": 50,
          "eval-steps": 8,
          "eval-metrics-every": -1,
          keep: 1,
        },
      },
      { name: "sft-eval", command: "eval chat", flags: worldExam("sft", { problems: 100 }) },
      {
        name: "rl",
        command: "rl",
        flags: {
          mixture: "world-arithmetic:1000, world-counting:1000",
          "validation-mixture": "world-arithmetic:125, world-counting:125",
          "device-batch-size": 8,
          "examples-per-step": 16,
          "num-samples": 8,
          "num-iterations": 50,
          "max-new-tokens": 128,
          "init-lr-frac": 0.1,
          "eval-every": 50,
          "eval-examples": 250,
          keep: 1,
        },
      },
      { name: "rl-eval", command: "eval chat", flags: worldExam("rl", { problems: 250 }) },
    ],
    next: "nanochat chat",
  },

  // The reference's runcpu.sh: every stage once, on real data, with a model far too small to be good.
  cpu: {
    about:
      "goes through every stage on the reference's data with a toy model: 5 to 10 minutes on two free cores, 2 GB to download",
    data: "shared",
    stages: [
      { name: "shards", command: "data download", flags: { "num-files": 4 } },
      { name: "fetch", command: "data fetch", args: ["all"] },
      { name: "tokenizer", command: "tokenizer train", flags: { "max-chars": 1e9 } },
      { name: "tokenizer-eval", command: "tokenizer eval" },
      {
        name: "base",
        command: "train",
        flags: {
          depth: 4,
          "max-seq-len": 1024,
          "device-batch-size": 1,
          "total-batch-size": 1024,
          "eval-every": 50,
          "eval-tokens": 4096,
          "core-metric-every": 50,
          "core-metric-max-per-task": 12,
          "sample-every": 50,
          "num-iterations": 50,
        },
      },
      {
        name: "base-loss",
        command: "eval bpb",
        flags: { source: "base", "device-batch-size": 1, "split-tokens": 4096 },
      },
      { name: "base-eval", command: "eval core", flags: { source: "base", "max-per-task": 16 } },
      {
        name: "mid",
        command: "mid",
        flags: {
          "max-seq-len": 1024,
          "device-batch-size": 1,
          "eval-every": 50,
          "eval-tokens": 4096,
          "total-batch-size": 1024,
          "num-iterations": 100,
        },
      },
      {
        name: "mid-eval",
        command: "eval chat",
        flags: { source: "mid", "max-new-tokens": 128, "max-problems": 20 },
      },
      {
        name: "sft",
        command: "sft",
        flags: {
          "device-batch-size": 1,
          "target-examples-per-step": 4,
          "num-iterations": 100,
          "eval-steps": 4,
          "eval-metrics-max-problems": 16,
        },
      },
    ],
    next: "nanochat chat",
  },

  speedrun: bigRecipe({
    about: "trains the $100 model, depth 20, on 8 H100 in about 4 hours; 30 GB to download",
    ...{ firstShards: 8, shards: 240, maxChars: 2e9 },
    base: { depth: 20 },
    mid: {},
  }),

  d26: bigRecipe({
    about: "trains the $300 model, depth 26, about as good as GPT-2, on 8 H100 in about 12 hours; 50 GB to download",
    ...{ firstShards: 8, shards: 450, maxChars: 2e9 },
    base: { depth: 26, "device-batch-size": 16 },
    mid: { "device-batch-size": 16 },
  }),

  run1000: bigRecipe({
    about: "trains the $1,000 model, depth 32, on 8 H100 in about 42 hours; 90 GB to download",
    ...{ firstShards: 16, shards: 800, maxChars: 4e9 },
    base: { depth: 32, "device-batch-size": 8 },
    mid: { "device-batch-size": 8 },
  }),
};
