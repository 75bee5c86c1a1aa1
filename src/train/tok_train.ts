/**
 * Tokenizer training: a stream of documents in, a vocabulary out (nanochat scripts/tok_train.py).
 *
 * Documents are cut to `docCap` code points; the one that makes the sum exceed `maxChars` is the last. Memory grows with the number of
 * different pieces, not with the text. While native threads count one batch, the next one is read.
 */
import { Calls } from "../data/calls.ts";
import { type Log, SILENT } from "../data/log.ts";
import {
  type OwnedColumn,
  SPECIAL_TOKENS,
  SPLIT_PATTERN,
  type TextColumn,
  textColumn,
  Tokenizer,
} from "../data/tokenizer.ts";
import { pointerFrom } from "../native/call.ts";

const BYTES = 256;
const POLL_MS = 250;

/** Mixed text that every new tokenizer must give back unchanged. */
const ROUND_TRIP =
  "Hello world! It's 2024-05-06, 3.14159.\r\n\tdef f(x):\n    return x\n  naïve Größe, 日本語 한국어 😀\u0085 <|bos|>";

/** What to train on, and how large the vocabulary becomes. */
export interface TrainTokenizerOptions {
  /** Batches of documents. */
  readonly texts: AsyncIterable<TextColumn | readonly string[]> | Iterable<TextColumn | readonly string[]>;
  /** Number of ids, special tokens included; 65,536. */
  readonly vocabSize?: number;
  /** Code points to train on; 10e9. */
  readonly maxChars?: number;
  /** Code points of a document at most; 10,000. */
  readonly docCap?: number;
  /** Regular expression that cuts texts before merging; nanochat's. */
  readonly pattern?: string;
  /** 0 = physical cores. */
  readonly threads?: number;
  /** Hears progress and a vocabulary that became smaller; silent. */
  readonly log?: Log;
}

/** Figures of a training for the report. */
export interface TokenizerStats {
  /** Time from the first text to the finished tokenizer. */
  readonly trainTimeSec: number;
  /** Code points that were trained on. */
  readonly chars: number;
  /** Documents that were trained on. */
  readonly documents: number;
  /** Special tokens in the vocabulary. */
  readonly numSpecialTokens: number;
  /** Over all tokens that have bytes; the deviation divides by n - 1. */
  readonly tokenBytesMin: number;
  /** Longest token in bytes. */
  readonly tokenBytesMax: number;
  /** Mean length in bytes. */
  readonly tokenBytesMean: number;
  /** Standard deviation of the length in bytes. */
  readonly tokenBytesStd: number;
}

type Required =
  & Pick<TrainTokenizerOptions, "texts">
  & {
    [K in "vocabSize" | "maxChars" | "docCap" | "threads"]: number;
  }
  & { pattern: string; log: Log };

/**
 * Trains a tokenizer with nanochat's special tokens. Where the text runs out of pairs the vocabulary is smaller and the special ids
 * move down, with a warning.
 *
 * @throws {RangeError} for a vocabulary below 256 bytes and the special tokens, and where there is no text; {@link NativeError} for a
 *   broken pattern or text that is not UTF-8.
 */
export async function trainTokenizer(
  options: TrainTokenizerOptions,
): Promise<{ tokenizer: Tokenizer; stats: TokenizerStats }> {
  const { vocabSize = 65536, maxChars = 10e9, docCap = 10_000, pattern = SPLIT_PATTERN, threads = 0 } = options;
  const { texts, log = SILENT } = options;
  const least = BYTES + SPECIAL_TOKENS.length;
  if (!Number.isInteger(vocabSize) || vocabSize < least) {
    const parts = `256 bytes and ${SPECIAL_TOKENS.length} special tokens`;
    throw new RangeError(
      `Cannot train a tokenizer: vocabulary of ${vocabSize}, expected an integer of at least ${least} (${parts})`,
    );
  }
  for (const [name, value] of Object.entries({ maxChars, docCap })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(`Cannot train a tokenizer: ${name} is ${value}, expected an integer of at least 1`);
    }
  }
  const start = performance.now();
  const { tokens, chars, documents } = await learn({ texts, vocabSize, maxChars, docCap, pattern, threads, log });
  const size = tokens.length + SPECIAL_TOKENS.length;
  if (size < vocabSize) {
    log.warn(`The text has no more pairs to merge: the vocabulary has ${size} tokens instead of ${vocabSize}.`);
  }
  const specials = Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, tokens.length + i]));
  const tokenizer = await Tokenizer.fromParts({ pattern, tokens, specials });
  try {
    const back = tokenizer.decode(tokenizer.encode(ROUND_TRIP));
    if (back !== ROUND_TRIP) {
      const texts = `${JSON.stringify(ROUND_TRIP)} came back as ${JSON.stringify(back)}`;
      throw new Error(`Cannot use the new tokenizer: ${texts}, expected it unchanged`);
    }
  } catch (error) {
    tokenizer[Symbol.dispose]();
    throw error;
  }
  const trainTimeSec = (performance.now() - start) / 1e3;
  const numSpecialTokens = SPECIAL_TOKENS.length;
  return { tokenizer, stats: { trainTimeSec, chars, documents, numSpecialTokens, ...tokenByteFigures(tokenizer) } };
}

/** Counts the text and merges: the bytes of all mergeable tokens in rank order. */
async function learn(
  { texts, vocabSize, maxChars, docCap, pattern, threads, log }: Required,
): Promise<{ tokens: Uint8Array[]; chars: number; documents: number }> {
  const calls = new Calls();
  const { nc, ctx } = calls;
  let trainer: Deno.PointerObject | null = null;
  try {
    const out = new BigUint64Array(1);
    const utf8 = new TextEncoder().encode(pattern);
    nc.bpe_trainer_create(ctx, out, utf8, BigInt(utf8.length), BigInt(docCap), BigInt(maxChars));
    const handle = trainer = pointerFrom(out);
    const state = new BigInt64Array(4);
    await pipeline(texts, async (column) => {
      const { bytes, offsets } = column as OwnedColumn;
      const [size, count] = [BigInt(bytes.length), BigInt(offsets.length - 1)];
      await calls.run(
        "count text",
        () => nc.bpe_trainer_feed(ctx, state, handle, bytes, offsets, size, count, threads),
      );
      log.progress({ label: "Counting characters", done: Math.min(Number(state[0]), maxChars), total: maxChars });
      return state[3] === 0n;
    });
    const [chars, documents] = [Number(state[0]), Number(state[1])];
    if (chars === 0) {
      throw new RangeError("Cannot train a tokenizer: the text is empty, expected at least one character");
    }
    log.progress({ label: "Counting characters", done: chars, total: chars });

    const mergeCount = new BigInt64Array(1);
    const limit = vocabSize - BYTES - SPECIAL_TOKENS.length;
    const progress = new BigInt64Array(2);
    const timer = setInterval(() => {
      nc.progress(ctx, progress);
      log.progress({ label: "Merging pairs", done: Number(progress[0]), total: limit });
    }, POLL_MS);
    try {
      await calls.run("merge pairs", () => nc.bpe_trainer_train(ctx, mergeCount, handle, limit));
    } finally {
      clearInterval(timer);
    }
    const merges = new Uint32Array(2 * Number(mergeCount[0]));
    nc.bpe_trainer_merges(ctx, merges, handle, mergeCount[0]);
    log.progress({ label: "Merging pairs", done: merges.length / 2, total: merges.length / 2 });
    const tokens = Array.from({ length: BYTES }, (_, byte) => Uint8Array.of(byte));
    for (let m = 0; m < merges.length; m += 2) tokens.push(joined(tokens[merges[m]], tokens[merges[m + 1]]));
    return { tokens, chars, documents };
  } finally {
    calls.close(() => trainer !== null && nc.bpe_trainer_free(ctx, trainer));
  }
}

/** Hands batches on until the receiver has enough; the next one is read while one is worked on. */
async function pipeline(
  texts: TrainTokenizerOptions["texts"],
  feed: (column: TextColumn) => Promise<boolean>,
): Promise<void> {
  const source = Symbol.asyncIterator in texts ? texts[Symbol.asyncIterator]() : texts[Symbol.iterator]();
  try {
    let next = await source.next();
    while (!next.done) {
      const batch = next.value;
      const feeding = feed("bytes" in batch ? batch : textColumn(batch));
      // Both are awaited even where one fails: native code may still be reading the batch.
      const [fed, following] = await Promise.allSettled([feeding, Promise.resolve(source.next())]);
      if (fed.status === "rejected") throw fed.reason;
      if (following.status === "rejected") throw following.reason;
      if (!fed.value) break;
      next = following.value;
    }
  } finally {
    await source.return?.();
  }
}

/** Smallest, largest, mean and standard deviation (n - 1) of the bytes of all tokens but the special ones. */
function tokenByteFigures(
  tokenizer: Tokenizer,
): Pick<TokenizerStats, "tokenBytesMin" | "tokenBytesMax" | "tokenBytesMean" | "tokenBytesStd"> {
  const sizes = tokenizer.tokenBytes().filter((size) => size > 0);
  const mean = sizes.reduce((sum, size) => sum + size, 0) / sizes.length;
  const squares = sizes.reduce((sum, size) => sum + (size - mean) ** 2, 0);
  return {
    tokenBytesMin: sizes.reduce((a, b) => Math.min(a, b)),
    tokenBytesMax: sizes.reduce((a, b) => Math.max(a, b)),
    tokenBytesMean: mean,
    tokenBytesStd: Math.sqrt(squares / (sizes.length - 1)),
  };
}

function joined(left: Uint8Array, right: Uint8Array): Uint8Array<ArrayBuffer> {
  const token = new Uint8Array(left.length + right.length);
  token.set(left);
  token.set(right, left.length);
  return token;
}
