/**
 * The whole pipelines, stage by stage: the table of contents of the project. `run.ts` runs them; each stage can also be typed as the
 * command that `commandLine` gives.
 */
import type { WorldCorpus } from "../../tasks/world_shards.ts";
import type { BaseTrainFlags } from "./base_flags.ts";

/** Flags of tokenizer training. */
export interface TokenizerFlags {
  readonly vocabSize: number;
  /** Characters to train on, of the training shards from the first on. */
  readonly maxChars: number;
}

/** Flags of the evaluation of a base model. */
export interface BpbFlags {
  readonly deviceBatchSize: number;
  /** Tokens of each split. */
  readonly splitTokens: number;
  /** Also measures a byte-level Markov model of order 2 over the same text, for comparison. */
  readonly markov: boolean;
}

/** A stage: what it does, by the command of the same name, and with which flags. */
export type Stage =
  | { readonly name: string; readonly command: "data world"; readonly flags: WorldCorpus }
  | { readonly name: string; readonly command: "tokenizer train"; readonly flags: TokenizerFlags }
  | { readonly name: string; readonly command: "train"; readonly flags: Partial<BaseTrainFlags> }
  | { readonly name: string; readonly command: "eval bpb"; readonly flags: BpbFlags };

/** A pipeline. */
export interface Recipe {
  /** What comes out, how long it takes, what it needs. */
  readonly about: string;
  readonly stages: readonly Stage[];
  /** Continued greedily while the base model trains, so that one sees it learn. */
  readonly samplePrompt: string;
  /** Continued at the end. */
  readonly finalPrompts: readonly string[];
  /** What to type when it is done. */
  readonly next: string;
}

/** The recipes by name. */
export const RECIPES: Readonly<Record<string, Recipe>> = {
  // A model that learns a small world of its own on two cores, from nothing and without a network.
  tiny: {
    about:
      "trains a small language model on a small world that it writes itself: 3 to 6 minutes on two cores, 200 MB of disk, no network",
    stages: [
      // 14 MB of stories, portraits, questions, arithmetic, spelling and dates: more than the model sees once.
      { name: "data", command: "data world", flags: { seed: 1, trainDocuments: 30_000, valDocuments: 2_500 } },
      // 4,096 tokens keep the head small beside four layers, and make about 4.5 bytes a token of this text.
      { name: "tokenizer", command: "tokenizer train", flags: { vocabSize: 4096, maxChars: 20_000_000 } },
      {
        name: "base",
        command: "train",
        flags: {
          depth: 4,
          maxSeqLen: 512,
          deviceBatchSize: 8,
          totalBatchSize: 4096,
          // 2.5 of the 3.3 million tokens: 140 s at 18,000 tokens a second (LOG 2026-11-24), 6 minutes at 7,000
          numIterations: 600,
          evalEvery: 200,
          evalTokens: 10 * 4096,
          sampleEvery: 25,
          saveEvery: 100,
          keep: 1,
        },
      },
      { name: "base-eval", command: "eval bpb", flags: { deviceBatchSize: 8, splitTokens: 30 * 4096, markov: true } },
    ],
    samplePrompt: "One sunny morning",
    finalPrompts: [
      "One sunny morning in",
      "The word lantern is spelled",
      "If today is Monday, in 2 days it will be",
      "Question: What is Mira Drummond's job?\nAnswer:",
      "A heron is a",
    ],
    next: "nanochat chat",
  },
};

/** Gives a stage as the command that does the same in the folder of a run. */
export function commandLine({ command, flags }: Stage, baseDir: string): string {
  const parts = Object.entries(flags).map(([key, value]) => {
    const name = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return value === true ? `--${name}` : value === false ? `--no-${name}` : `--${name}=${value}`;
  });
  return ["nanochat", command, ...parts, `--base-dir=${JSON.stringify(baseDir)}`].join(" ");
}
