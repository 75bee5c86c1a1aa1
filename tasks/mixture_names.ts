/** Names of a mixture's items, and the mixtures of the reference as text: what `--help` shows, without the code that loads them. */

/** Mixtures of the reference (nanochat scripts/mid_train.py, chat_sft.py, chat_rl.py), by stage. */
export const REFERENCE_MIXTURES = {
  mid: {
    train: "smoltalk, mmlu, gsm8k, identity*2, simplespelling:200000, spellingbee:80000",
    validation: "smoltalk, mmlu:5200, gsm8k:420",
  },
  sft: {
    train: "arc-easy, arc-challenge, gsm8k, smoltalk:10000, identity, simplespelling:300, spellingbee:300",
    validation: "smoltalk",
  },
  rl: { train: "gsm8k", validation: "gsm8k" },
} as const;

const NAMES = [
  ...["smoltalk", "mmlu", "arc-easy", "arc-challenge", "gsm8k", "identity", "simplespelling", "spellingbee"],
  ...["world-identity", "world-facts", "world-telling", "world-arithmetic", "world-spelling", "world-counting"],
  "world-dialogue",
] as const;
/** One of TASK_NAMES. */
export type TaskName = typeof NAMES[number];
/** Names that an item of a mixture may have, beside files. */
export const TASK_NAMES: readonly string[] = NAMES;
