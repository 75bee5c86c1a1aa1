/**
 * What `nanochat eval bpb` measures of a model (nanochat/base_loss.py): bits per byte of both splits from their beginning, and greedy
 * samples from fixed prompts.
 */
import { DataLoader } from "../data/dataloader.ts";
import { documents, type Split, type SplitName } from "../data/dataset.ts";
import type { Log } from "../data/log.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { Engine, EngineTokenizer } from "../engine/engine.ts";
import type { GPT } from "../model/gpt.ts";
import { LossEvaluator } from "./loss_eval.ts";
import { Markov2 } from "./markov.ts";

/** The reference's prompts (base_train.py, base_loss.py). */
export const SAMPLE_PROMPTS = [
  "The capital of France is",
  "The chemical symbol of gold is",
  "If yesterday was Friday, then tomorrow will be",
  "The opposite of hot is",
  "The planets of the solar system are:",
  "My favorite color is",
  "If 5*x + 3 = 13, then x is",
] as const;

/** Tokens that a sample adds to its prompt. */
export const SAMPLE_TOKENS = 16;

/** Sizes of an evaluation. */
export interface BpbOptions {
  readonly B: number;
  /** Tokens of each split, cut to whole batches. */
  readonly splitTokens: number;
  readonly splits?: readonly SplitName[];
  readonly log: Log;
}

/**
 * Measures bits per byte of a model from the beginning of each split.
 *
 * @throws {RangeError} where the tokens do not fill one batch.
 */
export async function evaluateBpb(
  { model, tokenizer, files }: { model: GPT; tokenizer: Tokenizer; files: Split },
  { B, splitTokens, splits = ["train", "val"], log }: BpbOptions,
): Promise<Partial<Record<SplitName, number>>> {
  const T = model.config.sequenceLen;
  const batches = Math.floor(splitTokens / (B * T));
  if (batches < 1) {
    throw new RangeError(
      `Cannot evaluate ${splitTokens} tokens: expected at least one batch, --device-batch-size x context = ${B * T}`,
    );
  }
  using evaluator = new LossEvaluator(model, { B, T });
  const tokenBytes = tokenizer.tokenBytes("bytes");
  const result: Partial<Record<SplitName, number>> = {};
  for (const split of splits) {
    await using loader = new DataLoader({ files: files[split], tokenizer, B, T });
    const label = `Evaluating ${split === "val" ? "validation" : "training"} text`;
    const next = async function* () {
      for (let i = 0; i < batches; i++) {
        yield await loader.next();
        log.progress({ label, done: i + 1, total: batches });
      }
    };
    result[split] = (await evaluator.bitsPerByte(next(), tokenBytes)).bpb;
  }
  return result;
}

/** Continues prompts greedily; returns each prompt with its continuation, special tokens left out. */
export async function samplePrompts(
  engine: Engine,
  { prompts = SAMPLE_PROMPTS, maxTokens = SAMPLE_TOKENS }: { prompts?: readonly string[]; maxTokens?: number } = {},
): Promise<string[]> {
  const { tokenizer, model } = engine;
  const samples: string[] = [];
  for (const prompt of prompts) {
    const ids = [tokenizer.encodeSpecial("<|bos|>"), ...Array.from(tokenizer.encode(prompt))];
    const room = Math.min(maxTokens, model.contextLen - ids.length);
    if (room < 1) samples.push(prompt);
    else {
      const { sequences: [sequence] } = await engine.generateBatch(ids, { maxTokens: room, temperature: 0 });
      samples.push(decodeAfterBos(tokenizer, sequence));
    }
  }
  return samples;
}

function decodeAfterBos(tokenizer: EngineTokenizer, sequence: readonly number[]): string {
  return tokenizer.decode(sequence.slice(1));
}

/** Measures bits per byte of a byte-level Markov model of order 2 over the same splits: the yardstick beside a trained model's figure. */
export async function evaluateMarkov2(files: Split, log: Log): Promise<number> {
  const model = new Markov2();
  let read = 0;
  for await (const group of documents(files.train)) {
    for (const text of group) model.add(text);
    log.progress({ label: "Counting byte triples", done: ++read, total: 0 });
  }
  let bits = 0;
  let bytes = 0;
  for await (const group of documents(files.val)) {
    for (const text of group) {
      const measured = model.measure(text);
      bits += measured.bits;
      bytes += measured.bytes;
    }
  }
  return bits / bytes;
}
