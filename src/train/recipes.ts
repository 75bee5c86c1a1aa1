/**
 * The whole pipelines, stage by stage: the table of contents of the project. A stage is a command with its flags, as `commandLine` gives
 * it; `run.ts` goes through them. Numbers are those of the reference's runcpu.sh, speedrun.sh and run1000.sh.
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
  /** Name of a background stage that must have ended before. */
  readonly needs?: string;
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

/** The recipes by name. */
export const RECIPES: Readonly<Record<string, Recipe>> = {
  // A model that learns a small world of its own on two cores, from nothing and without a network.
  tiny: {
    about:
      "trains a small language model on a small world that it writes itself: 3 to 6 minutes on two cores, 200 MB of disk, no network",
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
          // 2.5 of the 3.3 million tokens: 140 s at 18,000 tokens a second (LOG 2026-11-24), 6 minutes at 7,000
          "num-iterations": 600,
          "eval-every": 200,
          "eval-tokens": 10 * 4096,
          "sample-every": 75,
          "save-every": 100,
          keep: 1,
        },
      },
      {
        name: "base-eval",
        command: "eval bpb",
        flags: { source: "base", "device-batch-size": 8, "split-tokens": 30 * 4096, markov: true },
      },
    ],
    next: "nanochat chat",
  },
};

/** Writes a stage as the command that does the same in the folder of a run. */
export function commandLine({ command, args = [], flags = {} }: Stage, baseDir: string): string {
  const parts = Object.entries(flags).map(([name, value]) =>
    value === true ? `--${name}` : value === false ? `--no-${name}` : `--${name}=${value}`
  );
  return ["nanochat", command, ...args, ...parts, `--base-dir=${JSON.stringify(baseDir)}`].join(" ");
}
