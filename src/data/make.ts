/**
 * Makes shards of a user's own text (nanochat, dev/repackage_data_reference.py): documents in a shuffled order, row groups of 1,024,
 * a shard closed when it has enough characters at the end of a row group. Nothing is dropped, and the last shard, which is
 * validation, always exists: about a twentieth of the documents, or what is left over by full shards.
 *
 * Shuffling takes two passes, so that memory does not grow with the text: documents are dealt at random into buckets (files), then
 * each bucket is shuffled in memory. A text that fits one bucket never leaves memory.
 */
import { join } from "@std/path";
import { format as formatBytes } from "@std/fmt/bytes";
import { characters, fileList, inputKind, listInputs, noFindings, PIECE_BYTES, readDocuments } from "./documents.ts";
import type { Log } from "./log.ts";
import { SILENT } from "./log.ts";
import { ParquetWriter } from "./parquet.ts";
import { Random } from "./random.ts";

/** Options of `makeShards`. */
export interface MakeOptions {
  /** Folders and files: .txt, .md, .jsonl, .parquet, each also with .gz except Parquet. */
  readonly inputs: readonly string[];
  /** Folder of the shards; it is created and must hold none yet. */
  readonly out: string;
  /** Field of a JSON line or column of a Parquet file with the text; default "text". */
  readonly key?: string;
  /** Seed of the shuffle; default 42. */
  readonly seed?: number;
  /** Characters at which a shard is closed; default 250,000,000. */
  readonly shardChars?: number;
  /** Documents of a row group; default 1,024. */
  readonly rowGroup?: number;
  /** Bytes of text that are shuffled in memory at a time; default 512 MiB. */
  readonly bucketBytes?: number;
  readonly log?: Log;
}

/** A shard that was written. */
export interface MadeShard {
  readonly path: string;
  documents: number;
  characters: number;
}

type Bytes = Uint8Array<ArrayBuffer>;

const VALIDATION_SHARE = 0.05;

/**
 * Makes shards and returns them in order; the last one is validation.
 *
 * @throws {Error} for input that cannot be read, for a folder that holds shards, and where the text is too little for a training and
 *   a validation shard.
 */
export async function makeShards(options: MakeOptions): Promise<MadeShard[]> {
  const { inputs, out, seed = 42, bucketBytes = 512 * 2 ** 20, log = SILENT } = options;
  const { files, leftOut } = listInputs(inputs);
  if (leftOut.length > 0) log.warn(`Left out ${leftOut.length} files that are no text: ${fileList(leftOut)}`);
  refuseShards(out);
  const sizes = files.map((file) => Deno.statSync(file).size);
  const work = join(out, ".making");
  Deno.mkdirSync(out, { recursive: true });
  removeFolder(work); // of an earlier run that was stopped
  Deno.mkdirSync(work);
  try {
    // Compressed input unpacks to three times its size, more or less.
    const text = files.reduce((sum, file, i) => sum + sizes[i] * (/\.(gz|parquet)$/i.test(file) ? 3 : 1), 0);
    using buckets = new Buckets(work, { count: Math.ceil(text / bucketBytes), random: new Random(seed) });
    await deal(files, sizes, buckets, options);
    const shards = await writeShards(buckets, work, options);
    for (const shard of shards) Deno.renameSync(join(work, shard.path), join(out, shard.path));
    return shards.map((shard) => ({ ...shard, path: join(out, shard.path) }));
  } finally {
    removeFolder(work);
  }
}

function refuseShards(out: string): void {
  let names: string[] = [];
  try {
    names = Array.from(Deno.readDirSync(out), (entry) => entry.name).filter((name) => name.endsWith(".parquet"));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  if (names.length > 0) {
    throw new Error(
      `Cannot make shards in "${out}": it holds ${names.length} already (${fileList(names)}), expected an empty folder`,
    );
  }
}

function removeFolder(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** First pass: reads all documents and deals them into the buckets. */
async function deal(
  files: readonly string[],
  sizes: readonly number[],
  buckets: Buckets,
  { inputs, key = "text", log = SILENT }: MakeOptions,
): Promise<void> {
  const findings = noFindings();
  const total = sizes.reduce((a, b) => a + b, 0);
  let done = 0;
  const onBytes = (bytes: number) => log.progress({ label: "Reading documents", done: done += bytes, total });
  // A single text file is cut finer, so that a small one still gives documents for both splits.
  const single = files.length === 1 && inputKind(files[0]) === "text";
  const pieceBytes = single ? Math.min(PIECE_BYTES, Math.max(256, Math.ceil(total / 40))) : PIECE_BYTES;
  for (const file of files) {
    for await (const document of readDocuments(file, { key, pieceBytes, findings, onBytes })) buckets.add(document);
  }
  log.progress({ label: "Reading documents", done: total, total });
  const { replacedDocuments, replacements, firstReplaced, nulls, cutFiles } = findings;
  if (cutFiles > 0) {
    log.info(`Cut ${cutFiles} long text files into documents of up to ${formatBytes(pieceBytes, { binary: true })}`);
  }
  if (nulls > 0) log.warn(`Left out ${nulls} rows without a text (null)`);
  if (replacements > 0) {
    log.warn(
      `Replaced invalid UTF-8 in ${replacedDocuments} documents by ${replacements} replacement characters, the first in ${firstReplaced}`,
    );
  }
  const { documents } = buckets;
  if (documents < 2) {
    const missing = documents === 1 ? "1 more document is missing" : "2 documents are missing";
    const found = documents === 1 ? `1 document of ${buckets.characters} characters` : "no document";
    throw new Error(
      `Cannot make shards of ${
        fileList(inputs)
      }: found ${found} in ${files.length} files, expected at least 2, one to train on and one to validate; ${missing}`,
    );
  }
}

/** Second pass: writes the documents, shuffled, into shards named `shard_00000.parquet` and so on in `folder`. */
async function writeShards(
  buckets: Buckets,
  folder: string,
  { shardChars = 250_000_000, rowGroup = 1024, log = SILENT }: MakeOptions,
): Promise<MadeShard[]> {
  const { documents: n, characters: total } = buckets;
  const lastClose = lastClosing(n, rowGroup);
  const shards: MadeShard[] = [];
  const group: Bytes[] = [];
  let written = 0;
  let writtenChars = 0;
  let writer: ParquetWriter | undefined;
  let shard: MadeShard | undefined;
  const flush = async () => {
    if (group.length === 0) return;
    if (!writer || !shard) {
      shard = { path: `shard_${String(shards.length).padStart(5, "0")}.parquet`, documents: 0, characters: 0 };
      shards.push(shard);
      writer = ParquetWriter.create(join(folder, shard.path));
    }
    const size = group.reduce((sum, document) => sum + document.length, 0);
    const [bytes, ends] = [new Uint8Array(size), new BigInt64Array(group.length)];
    let at = 0;
    for (const [i, document] of group.entries()) {
      bytes.set(document, at);
      ends[i] = BigInt(at += document.length);
      shard.characters += characters(document);
    }
    await writer.writeBytes(bytes, ends);
    shard.documents += group.length;
    group.length = 0;
    log.progress({ label: "Writing shards", done: written, total: n });
  };
  const close = async () => {
    await flush();
    if (!writer || !shard) return;
    await writer.finish();
    writer[Symbol.dispose]();
    writtenChars += shard.characters;
    writer = shard = undefined;
  };
  try {
    for await (const document of buckets.shuffled()) {
      group.push(document);
      written++;
      if (group.length === rowGroup) {
        await flush();
        if (shard!.characters >= shardChars && written <= lastClose) await close();
      }
      // The last chance to leave enough for validation: taken where this shard is the first or would be full before the end.
      if (written === lastClose && (shards.length < 2 || total - writtenChars >= shardChars)) await close();
    }
    await close();
  } finally {
    writer?.[Symbol.dispose]();
  }
  return shards;
}

/** Number of documents after which no shard may end but the last: the rest is enough to validate on. */
function lastClosing(documents: number, rowGroup: number): number {
  const validation = Math.max(1, Math.min(rowGroup, Math.round(documents * VALIDATION_SHARE)));
  const last = documents - validation;
  // With many row groups the border costs little; with few the training shard ends in a shorter one.
  return last >= 20 * rowGroup ? last - last % rowGroup : last;
}

/** Documents dealt at random into buckets, read back shuffled. */
class Buckets implements Disposable {
  documents = 0;
  characters = 0;
  readonly #random: Random;
  readonly #memory: Bytes[] | undefined;
  readonly #files: Deno.FsFile[] = [];

  constructor(folder: string, { count, random }: { count: number; random: Random }) {
    this.#random = random;
    if (count <= 1) this.#memory = [];
    else {
      for (let i = 0; i < Math.min(count, 256); i++) {
        this.#files.push(Deno.openSync(join(folder, `bucket_${i}`), { read: true, write: true, create: true }));
      }
    }
  }

  /** Adds a document: its length in 4 bytes, then its bytes. */
  add(document: Bytes): void {
    this.documents++;
    this.characters += characters(document);
    if (this.#memory) {
      this.#memory.push(document);
      return;
    }
    const record = new Uint8Array(4 + document.length);
    new DataView(record.buffer).setUint32(0, document.length, true);
    record.set(document, 4);
    writeAll(this.#files[this.#random.below(this.#files.length)], record);
  }

  /** Yields all documents: bucket by bucket, each shuffled. */
  async *shuffled(): AsyncGenerator<Bytes> {
    if (this.#memory) {
      this.#random.shuffle(this.#memory);
      yield* this.#memory;
      return;
    }
    for (const file of this.#files) {
      const documents = await readBucket(file);
      this.#random.shuffle(documents);
      yield* documents;
    }
  }

  [Symbol.dispose](): void {
    for (const file of this.#files) file.close();
  }
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}

async function readBucket(file: Deno.FsFile): Promise<Bytes[]> {
  const bytes = new Uint8Array((await file.stat()).size);
  await file.seek(0, Deno.SeekMode.Start);
  for (let at = 0; at < bytes.length;) {
    const read = await file.read(bytes.subarray(at));
    if (read === null) throw new Error(`Cannot read a bucket: it ends at ${at}, expected ${bytes.length} bytes`);
    at += read;
  }
  const view = new DataView(bytes.buffer);
  const documents: Bytes[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = view.getUint32(at, true);
    documents.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return documents;
}
