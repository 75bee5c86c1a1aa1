/**
 * Text to token ids and back, over the native BPE encoder (`ffi/src/bpe/`).
 *
 * A vocabulary is: a split pattern, mergeable tokens in rank order (id = rank) and special tokens, which only a caller can ask for:
 * their names inside a text are plain text. Strings are encoded as UTF-8; a lone surrogate counts as U+FFFD. The file format,
 * `nanochat_tokenizer.json`, is ours; `src/interop/` reads and writes those of others.
 */
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { type Native, pointerFrom } from "../native/call.ts";
import { TOKENIZER_FILE } from "./base_dir.ts";
import { Calls } from "./calls.ts";
import { formatProblem, FORMATS } from "./formats.ts";

/** nanochat's split pattern: GPT-4's with digits in runs of at most 2. */
export const SPLIT_PATTERN =
  "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,2}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+";

/** nanochat's special tokens in id order; they follow the mergeable tokens. */
export const SPECIAL_TOKENS = [
  "<|bos|>",
  "<|user_start|>",
  "<|user_end|>",
  "<|assistant_start|>",
  "<|assistant_end|>",
  "<|python_start|>",
  "<|python_end|>",
  "<|output_start|>",
  "<|output_end|>",
] as const;

const { format: FORMAT, version: VERSION } = FORMATS.tokenizer;

/** Texts as an Arrow column (a row group's `TextBytes`): text i is `bytes[offsets[i] .. offsets[i + 1]]`, UTF-8. */
export interface TextColumn {
  /** All texts behind each other, UTF-8. */
  readonly bytes: Uint8Array;
  /** Where each text begins, and the end of the last. */
  readonly offsets: Int32Array;
}

/** A column whose memory native code may read. */
export interface OwnedColumn extends TextColumn {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly offsets: Int32Array<ArrayBuffer>;
}

/** What defines a tokenizer. */
export interface TokenizerParts {
  /** Regular expression that cuts a text before merging. */
  readonly pattern: string;
  /** Bytes of the mergeable tokens; the index is the id. */
  readonly tokens: readonly Uint8Array[];
  /** Special tokens by name, with ids behind the mergeable ones. */
  readonly specials: Readonly<Record<string, number>>;
}

/** Ids around a text: each an id or the name of a special token. */
export interface EncodeOptions {
  /** In front of the text. */
  readonly prepend?: number | string;
  /** Behind the text. */
  readonly append?: number | string;
}

/** How many bytes a token counts in bits per byte: its own, or those of its text after decoding alone (old bpb figures). */
export type TokenBytesRule = "bytes" | "reference";

/** Encodes strings to UTF-8 and lays them behind each other. */
export function textColumn(texts: readonly string[]): OwnedColumn {
  const encoder = new TextEncoder();
  const parts = texts.map((text) => encoder.encode(text));
  const offsets = new Int32Array(parts.length + 1);
  let total = 0;
  for (const part of parts) total += part.length;
  if (total > 0x7fffffff) {
    throw new RangeError(`Cannot encode ${total} bytes of text at once, expected at most 2147483647`);
  }
  const bytes = new Uint8Array(total);
  parts.forEach((part, i) => {
    bytes.set(part, offsets[i]);
    offsets[i + 1] = offsets[i] + part.length;
  });
  return { bytes, offsets };
}

/** A vocabulary that encodes and decodes. Owns native memory: dispose of it when done. */
export class Tokenizer implements Disposable {
  /** The split pattern. */
  readonly pattern: string;
  /** Number of ids: the largest one plus 1. */
  readonly vocabSize: number;
  /** Number of mergeable tokens; their ids come first. */
  readonly mergeableCount: number;
  readonly #specials: ReadonlyMap<string, number>;
  readonly #calls: Calls;
  readonly #nc: Native;
  readonly #ctx: Deno.PointerObject;
  #handle: Deno.PointerObject | null;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #offsets: Int32Array<ArrayBuffer>;
  readonly #utf8 = new TextEncoder();
  readonly #count = new Int32Array(1);
  readonly #places = new Int32Array(1 << 14);
  #sha256: string | undefined;

  private constructor(
    { calls, handle }: { calls: Calls; handle: Deno.PointerObject },
    parts: TokenizerParts,
    column: OwnedColumn,
  ) {
    this.#calls = calls;
    this.#nc = calls.nc;
    this.#ctx = calls.ctx;
    this.#handle = handle;
    this.pattern = parts.pattern;
    this.mergeableCount = parts.tokens.length;
    this.#specials = new Map(Object.entries(parts.specials).sort((a, b) => a[1] - b[1]));
    this.#bytes = column.bytes;
    this.#offsets = column.offsets;
    this.vocabSize = column.offsets.length - 1;
  }

  /**
   * Builds a tokenizer.
   *
   * @throws {RangeError} where a special id collides; {@link NativeError} where the pattern or the tokens do not make a vocabulary.
   */
  static async fromParts(parts: TokenizerParts): Promise<Tokenizer> {
    const column = vocabularyColumn(parts);
    const calls = new Calls();
    try {
      const out = new BigUint64Array(1);
      const pattern = new TextEncoder().encode(parts.pattern);
      const { bytes, offsets } = column;
      await calls.nc.bpe_create(
        calls.ctx,
        out,
        pattern,
        bytes,
        offsets,
        BigInt(pattern.length),
        BigInt(bytes.length),
        offsets.length - 1,
        parts.tokens.length,
      );
      return new Tokenizer({ calls, handle: pointerFrom(out) }, parts, column);
    } catch (error) {
      calls.close(() => {});
      throw error;
    }
  }

  /**
   * Reads the tokenizer that lies in a folder.
   *
   * @throws {Error} where there is none; {SyntaxError} where the file is not one of ours.
   */
  static async load(folder: string): Promise<Tokenizer> {
    const path = join(folder, TOKENIZER_FILE);
    let text: string;
    try {
      text = await Deno.readTextFile(path);
    } catch (cause) {
      if (!(cause instanceof Deno.errors.NotFound)) throw cause;
      throw new Error(
        `Cannot open the tokenizer at "${folder}": ${TOKENIZER_FILE} is missing; run "nanochat tokenizer train"`,
        { cause },
      );
    }
    return await Tokenizer.fromParts(parseTokenizer(text, path));
  }

  /** Writes the tokenizer into a folder, which is made where it does not exist; a file there is replaced in one step. */
  async save(folder: string): Promise<void> {
    await Deno.mkdir(folder, { recursive: true });
    const path = join(folder, TOKENIZER_FILE);
    const temporary = `${path}.${Deno.pid}.tmp`;
    await Deno.writeTextFile(temporary, this.#serialize());
    await Deno.rename(temporary, path);
  }

  #serialize(): string {
    const tokens = Array.from({ length: this.mergeableCount }, (_, id) => `"${this.token(id).toBase64()}"`);
    const specials = JSON.stringify(Object.fromEntries(this.#specials));
    return `{"format":"${FORMAT}","version":${VERSION},"pattern":${JSON.stringify(this.pattern)},"tokens":[\n` +
      `${tokens.join(",\n")}\n],"specials":${specials}}\n`;
  }

  /** SHA-256 of the saved form, in hex: equal for tokenizers that give the same ids. */
  get sha256(): string {
    return this.#sha256 ??= createHash("sha256").update(this.#serialize()).digest("hex");
  }

  /** The native tokenizer, for native code that encodes by itself; valid until disposal. */
  get handle(): Deno.PointerObject {
    if (this.#handle === null) throw new Error("Cannot use the tokenizer: it was disposed of");
    return this.#handle;
  }

  /** Id of `<|bos|>`. */
  get bosId(): number {
    return this.encodeSpecial("<|bos|>");
  }

  /** Special tokens by name, in id order. */
  get specials(): ReadonlyMap<string, number> {
    return this.#specials;
  }

  /**
   * Finds the id of a special token.
   *
   * @throws {RangeError} where the vocabulary has no token of that name.
   */
  encodeSpecial(name: string): number {
    const id = this.#specials.get(name);
    if (id === undefined) {
      throw new RangeError(
        `Cannot find special token "${name}", expected one of ${[...this.#specials.keys()].join(" ")}`,
      );
    }
    return id;
  }

  /** Bytes of one token, as a view; a special token has those of its name. */
  token(id: number): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(this.#offsets[this.#checked(id)], this.#offsets[id + 1]);
  }

  /** Returns the two ids that each mergeable token is joined from, behind each other; -1 -1 where no merge makes it. */
  merges(): Int32Array {
    const merges = new Int32Array(2 * this.mergeableCount);
    this.#nc.bpe_merges(this.#ctx, merges, this.handle);
    return merges;
  }

  /** Encodes one text at once; for many or long texts {@link encodeBatch} uses all threads and leaves the event loop free. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const bytes = this.#utf8.encode(text);
    const places = bytes.length <= this.#places.length ? this.#places : new Int32Array(bytes.length);
    this.#nc.bpe_encode_text(this.#ctx, places, this.#count, this.handle, bytes, BigInt(bytes.length));
    const ids = Array.from(places.subarray(0, this.#count[0]));
    if (options.prepend !== undefined) ids.unshift(this.#id(options.prepend));
    if (options.append !== undefined) ids.push(this.#id(options.append));
    return ids;
  }

  /**
   * Encodes many texts at once; the results, in the order of the texts, are views of one buffer.
   *
   * @param options.threads 0 = physical cores (default)
   */
  async encodeBatch(
    texts: readonly string[],
    options: EncodeOptions & { threads?: number } = {},
  ): Promise<Int32Array[]> {
    const { ids, ends } = await this.encodeColumn(textColumn(texts), options);
    return Array.from(ends, (end, i) => ids.subarray(i === 0 ? 0 : Number(ends[i - 1]), Number(end)));
  }

  /**
   * Encodes a column of texts: all ids, and the number of ids up to the end of each text.
   *
   * @param options.threads 0 = physical cores (default)
   */
  async encodeColumn(
    column: TextColumn,
    options: EncodeOptions & { threads?: number } = {},
  ): Promise<{ ids: Int32Array<ArrayBuffer>; ends: BigInt64Array<ArrayBuffer> }> {
    const { bytes, offsets } = column as OwnedColumn;
    const documents = offsets.length - 1;
    const handle = this.handle;
    const prepend = options.prepend === undefined ? -1 : this.#id(options.prepend);
    const append = options.append === undefined ? -1 : this.#id(options.append);
    const out = new BigUint64Array(2);
    await this.#calls.run("encode text", () =>
      this.#nc.bpe_encode(
        this.#ctx,
        out,
        handle,
        bytes,
        offsets,
        BigInt(bytes.length),
        BigInt(documents),
        prepend,
        append,
        options.threads ?? 0,
      ));
    const ids = new Int32Array(Number(out[1]));
    const ends = new BigInt64Array(documents);
    this.#nc.bpe_encoded_read(this.#ctx, ids, ends, pointerFrom(out), out[1], BigInt(documents));
    return { ids, ends };
  }

  /**
   * Joins the bytes of tokens.
   *
   * @throws {RangeError} where an id is not in the vocabulary.
   */
  decodeBytes(ids: ArrayLike<number>): Uint8Array<ArrayBuffer> {
    const list = ids instanceof Int32Array ? ids : Int32Array.from(ids, (id) => this.#checked(id));
    const offsets = this.#offsets;
    let size = 0;
    for (let i = 0; i < list.length; i++) size += offsets[list[i] + 1] - offsets[list[i]];
    // An id outside the table makes the sum NaN, so that one test behind the loop is enough.
    if (Number.isNaN(size)) list.forEach((id) => this.#checked(id));
    const text = new Uint8Array(size);
    const memory = list as Int32Array<ArrayBuffer>;
    this.#nc.bpe_decode(this.#ctx, text, this.handle, memory, BigInt(size), BigInt(list.length));
    return text;
  }

  /** Decodes tokens to text; torn characters become U+FFFD, special tokens their names. */
  decode(ids: ArrayLike<number>): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  /** Bytes that each id counts in bits per byte, 0 for special tokens: length V. */
  tokenBytes(rule: TokenBytesRule = "bytes"): Int32Array<ArrayBuffer> {
    const table = new Int32Array(this.vocabSize);
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    for (let id = 0; id < this.mergeableCount; id++) {
      const bytes = this.token(id);
      table[id] = rule === "bytes" ? bytes.length : this.#utf8.encode(decoder.decode(bytes)).length;
    }
    return table;
  }

  /** Frees the native tokenizer behind the calls in flight. */
  [Symbol.dispose](): void {
    if (this.#handle === null) return;
    const handle = this.#handle;
    this.#handle = null;
    this.#calls.close(() => this.#nc.bpe_free(this.#ctx, handle));
  }

  #id(token: number | string): number {
    return typeof token === "string" ? this.encodeSpecial(token) : this.#checked(token);
  }

  #checked(id: number): number {
    if (!Number.isInteger(id) || id < 0 || id >= this.vocabSize) {
      throw new RangeError(`Cannot use token id ${id}, expected an integer of 0 to ${this.vocabSize - 1}`);
    }
    return id;
  }
}

/** Decodes a stream of ids: text comes out as soon as its characters are whole. */
export class StreamDecoder {
  readonly #tokenizer: Pick<Tokenizer, "token">;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** Starts a stream; the tokenizer must outlive it. */
  constructor(tokenizer: Pick<Tokenizer, "token">) {
    this.#tokenizer = tokenizer;
  }

  /** Takes the next ids and returns the text that they complete. */
  push(...ids: number[]): string {
    return ids.map((id) => this.#decoder.decode(this.#tokenizer.token(id), { stream: true })).join("");
  }

  /** Ends the stream: an unfinished character becomes U+FFFD. */
  flush(): string {
    return this.#decoder.decode();
  }
}

/** Ids up to here behind the last mergeable one may stay without a token: memory is reserved for each. */
const MAX_UNUSED_IDS = 1 << 16;

/** Lays all tokens, specials by name, behind each other in id order. */
function vocabularyColumn({ tokens, specials }: TokenizerParts): OwnedColumn {
  const all: (Uint8Array | undefined)[] = [...tokens];
  const end = tokens.length + MAX_UNUSED_IDS;
  for (const [name, id] of Object.entries(specials)) {
    if (!Number.isInteger(id) || id < tokens.length || id >= end || all[id] !== undefined) {
      const given = JSON.stringify(name);
      throw new RangeError(
        `Cannot give special token ${given} the id ${id}, expected a free one of ${tokens.length} to ${end - 1}`,
      );
    }
    all[id] = new TextEncoder().encode(name);
  }
  const offsets = new Int32Array(all.length + 1);
  for (let id = 0; id < all.length; id++) offsets[id + 1] = offsets[id] + (all[id]?.length ?? 0);
  const bytes = new Uint8Array(offsets[all.length]);
  for (let id = 0; id < all.length; id++) if (all[id]) bytes.set(all[id]!, offsets[id]);
  return { bytes, offsets };
}

/** Reads the JSON of a saved tokenizer; `path` names it in errors. */
function parseTokenizer(text: string, path: string): TokenizerParts {
  const refuse = (what: string, cause?: unknown) =>
    new SyntaxError(`Cannot read the tokenizer "${path}": ${what}`, { cause });
  let file: Record<string, unknown>;
  try {
    file = JSON.parse(text);
  } catch (cause) {
    // V8 quotes the place as it is, line breaks included.
    throw refuse(`not JSON, ${(cause as Error).message.replace(/\s+/g, " ")}`, cause);
  }
  const problem = formatProblem(file, { expected: FORMATS.tokenizer });
  if (problem) throw refuse(problem);
  const { pattern, tokens, specials } = file;
  const isTable = typeof specials === "object" && specials !== null && !Array.isArray(specials);
  if (typeof pattern !== "string" || !Array.isArray(tokens) || !isTable) {
    throw refuse("pattern, tokens or specials missing, expected all three");
  }
  try {
    const bytes = tokens.map((token) => Uint8Array.fromBase64(token));
    return { pattern, tokens: bytes, specials: specials as Record<string, number> };
  } catch (cause) {
    throw refuse(`a token is not base64, ${(cause as Error).message}`, cause);
  }
}
