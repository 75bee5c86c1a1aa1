/**
 * Times tokenizer training, encoding and decoding on the training shards of a folder:
 * `deno run -A dev/bench/tokenizer.ts FOLDER [VOCAB] [THREADS]`. One JSON object a line. Processor time counts beside wall time, because it
 * stays comparable on a machine that does other work.
 */
import process from "node:process";
import { listShards, openShard, splitShards, TEXT_COLUMN } from "../../src/data/dataset.ts";
import type { OwnedColumn } from "../../src/data/tokenizer.ts";
import { trainTokenizer } from "../../src/train/tok_train.ts";

const RUNS = 3;
const [folder, vocab = "65536", threads = "1"] = Deno.args;
if (folder === undefined) throw new Error("Cannot bench the tokenizer: no folder given, expected one with shards");

const columns: OwnedColumn[] = [];
for (const file of splitShards(listShards(folder)).train) {
  using shard = openShard(file);
  for (let group = 0; group < shard.rowGroups; group++) {
    const { bytes, offsets } = await shard.readBytes(group, TEXT_COLUMN);
    columns.push({ bytes: bytes.slice(), offsets: offsets.slice() });
  }
}
const megabytes = columns.reduce((sum, { bytes }) => sum + bytes.length, 0) / 1e6;

async function time(what: string, work: () => unknown): Promise<void> {
  for (let run = 0; run < RUNS; run++) {
    const [wall, cpu] = [performance.now(), process.cpuUsage()];
    await work();
    const { user, system } = process.cpuUsage(cpu);
    const [wallSec, cpuSec] = [(performance.now() - wall) / 1e3, (user + system) / 1e6];
    console.log(JSON.stringify({ what, megabytes, wallSec, cpuSec, mbPerSec: megabytes / wallSec }));
  }
}

const options = { vocabSize: Number(vocab), threads: Number(threads) };
const { tokenizer } = await trainTokenizer({ texts: columns, ...options });
await time("train", async () => (await trainTokenizer({ texts: columns, ...options })).tokenizer[Symbol.dispose]());
const encoded: Int32Array[] = [];
await time("encode", async () => {
  encoded.length = 0;
  for (const column of columns) encoded.push((await tokenizer.encodeColumn(column, options)).ids);
});
await time("decode", () => encoded.forEach((ids) => tokenizer.decodeBytes(ids)));
