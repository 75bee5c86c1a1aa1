/** Speed of what surrounds the model: tokenizer, loader, start of the program. One figure row each; keys are stable. */
import { DataLoader } from "../data/dataloader.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../train/tok_train.ts";
import { type Figures, median } from "./bench.ts";

const RUNS = 5;
const DOCUMENT_CHARS = 4000; // about the length of a web page

async function seconds(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1e3;
}

async function medianSeconds(work: () => unknown): Promise<number> {
  const times: number[] = [];
  for (let i = -1; i < RUNS; i++) { // the first run warms up
    const time = await seconds(work);
    if (i >= 0) times.push(time);
  }
  return median(times);
}

function pieces(text: string): string[] {
  const parts: string[] = [];
  for (let i = 0; i < text.length; i += DOCUMENT_CHARS) parts.push(text.slice(i, i + DOCUMENT_CHARS).toWellFormed());
  return parts;
}

/** Peak resident memory of this process so far, in bytes; 0 where the system does not say. */
function peakBytes(): number {
  try {
    const found = /^VmHWM:\s*(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status"));
    return found ? 1024 * Number(found[1]) : 0;
  } catch {
    return 0;
  }
}

/** Times training, encoding and decoding on a text. MB = 10^6 bytes of UTF-8. */
export async function benchTokenizer(
  { text, vocabSize, threads }: { text: string; vocabSize: number; threads: number },
): Promise<Figures> {
  const documents = pieces(text);
  const megabytes = new TextEncoder().encode(text).length / 1e6;
  let made: Tokenizer | undefined;
  const trainSec = await seconds(async () => {
    made = (await trainTokenizer({ texts: [documents], vocabSize, threads })).tokenizer;
  });
  using tokenizer = made!;
  const ids = (await tokenizer.encodeBatch(documents)).map((row) => Int32Array.from(row));
  const tokens = ids.reduce((sum, row) => sum + row.length, 0);
  const oneSec = await medianSeconds(() => tokenizer.encodeBatch(documents, { threads: 1 }));
  const allSec = await medianSeconds(() => tokenizer.encodeBatch(documents, { threads }));
  const decodeSec = await medianSeconds(() => ids.forEach((row) => tokenizer.decodeBytes(row)));
  return {
    bench: "tokenizer",
    vocab_size: tokenizer.vocabSize,
    threads,
    text_mb: megabytes,
    train_sec: trainSec,
    train_mb_per_sec: megabytes / trainSec,
    encode_mb_per_sec_1t: megabytes / oneSec,
    encode_mb_per_sec: megabytes / allSec,
    decode_mb_per_sec: megabytes / decodeSec,
    bytes_per_token: megabytes * 1e6 / tokens,
    peak_bytes: peakBytes(),
  };
}

/** Times batches of a loader that nobody computes with, the reading and encoding included. */
export async function benchLoader(
  options: { files: readonly string[]; tokenizer: Tokenizer; B: number; T: number; threads: number; batches: number },
): Promise<Figures> {
  const { files, tokenizer, B, T, threads, batches } = options;
  await using loader = new DataLoader({ files, tokenizer, B, T, threads });
  await loader.next();
  const time = await seconds(async () => {
    for (let i = 0; i < batches; i++) await loader.next();
  });
  return { bench: "loader", device_batch_size: B, max_seq_len: T, batches, tok_per_sec: batches * B * T / time };
}

/** Times the program from its start to its end with a command that does nothing: the median of several starts. */
export async function benchStart(command: readonly string[]): Promise<Figures> {
  const [program, ...args] = command;
  const startSec = await medianSeconds(async () => {
    const { code } = await new Deno.Command(program, { args, stdout: "null", stderr: "null" }).output();
    if (code !== 0) throw new Error(`Cannot time the start: "${command.join(" ")}" ended with ${code}, expected 0`);
  });
  return { bench: "start", program, start_ms: 1e3 * startSec };
}
