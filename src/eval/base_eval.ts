/** What `nanochat eval bpb` measures (nanochat/base_loss.py): bits per byte of both splits from their beginning, and a yardstick. */
import { DataLoader } from "../data/dataloader.ts";
import { documents, type Split, type SplitName } from "../data/dataset.ts";
import type { Log } from "../data/log.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import type { GPT } from "../model/gpt.ts";
import { LossEvaluator } from "./loss_eval.ts";
import { Markov2 } from "./markov.ts";

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
  log.progress({ label: "Counting byte triples", done: read, total: read });
  for await (const group of documents(files.val)) {
    for (const text of group) {
      const measured = model.measure(text);
      bits += measured.bits;
      bytes += measured.bytes;
    }
  }
  return bits / bytes;
}
