/**
 * The safetensors file format: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes without gaps.
 *
 * Takes and gives headers only: the bytes of tensors never pass through JavaScript. The header is read by a small parser of its own,
 * because `JSON.parse` hides duplicate names and lets a hostile header grow to many times its size in memory.
 *
 * Source: https://github.com/huggingface/safetensors, README "Format".
 */

/** Element types of the format, under our names. */
export type TensorDtype =
  | "f64"
  | "f32"
  | "bf16"
  | "f16"
  | "e4m3"
  | "e5m2"
  | "i64"
  | "u64"
  | "i32"
  | "u32"
  | "i16"
  | "u16"
  | "i8"
  | "u8"
  | "bool";

const FORMAT_NAME: Record<TensorDtype, string> = {
  f64: "F64",
  f32: "F32",
  bf16: "BF16",
  f16: "F16",
  e4m3: "F8_E4M3",
  e5m2: "F8_E5M2",
  i64: "I64",
  u64: "U64",
  i32: "I32",
  u32: "U32",
  i16: "I16",
  u16: "U16",
  i8: "I8",
  u8: "U8",
  bool: "BOOL",
};

const BYTES: Record<TensorDtype, number> = {
  f64: 8,
  f32: 4,
  bf16: 2,
  f16: 2,
  e4m3: 1,
  e5m2: 1,
  i64: 8,
  u64: 8,
  i32: 4,
  u32: 4,
  i16: 2,
  u16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
};

const OUR_NAME = new Map(Object.entries(FORMAT_NAME).map(([ours, theirs]) => [theirs, ours as TensorDtype]));

/** Data begins at a multiple of this, so that a mapped tensor lies as well as an allocated one. */
const ALIGNMENT = 64;
/** Longest header that is read; the largest published models stay below a tenth of it. */
const MAX_HEADER_BYTES = 16 * 1024 * 1024;
const MAX_RANK = 16;

/** A tensor to be written: `bytes` is its size, which must follow from dtype and shape. */
export interface TensorEntry {
  /** Unique in the file. */
  readonly name: string;
  /** Element type. */
  readonly dtype: TensorDtype;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Size in bytes. */
  readonly bytes: number;
}

/** Where a tensor lies: `begin` and `end` are byte offsets in the file. */
export interface TensorSlot {
  /** Element type. */
  readonly dtype: TensorDtype;
  /** Sizes, outermost first. */
  readonly shape: number[];
  /** Offset of the first byte. */
  readonly begin: number;
  /** Offset behind the last byte. */
  readonly end: number;
}

/** A header that was read and checked. */
export interface SafetensorsHeader {
  /** By name, in the order of their bytes. */
  readonly tensors: Map<string, TensorSlot>;
  /** Free text by name. */
  readonly metadata: Record<string, string>;
  /** Offset of the first byte after the header. */
  readonly dataBegin: number;
}

/** Gives the size in bytes of a tensor, NaN where it is no exact integer. */
export function tensorBytes(dtype: TensorDtype, shape: readonly number[]): number {
  const bytes = shape.reduce((product, n) => product * n, 1) * BYTES[dtype];
  return Number.isSafeInteger(bytes) ? bytes : NaN;
}

/**
 * Builds the head of a file (length and padded JSON); the tensors' bytes follow it in the order of `entries`.
 *
 * @throws {RangeError} where a name occurs twice or a size does not follow from dtype and shape.
 */
export function encodeHeader(
  entries: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  const seen = new Set(["__metadata__"]);
  let offset = 0;
  for (const { name, dtype, shape, bytes } of entries) {
    if (seen.has(name)) throw new RangeError(`Cannot write tensor "${name}": the name is taken, expected another`);
    seen.add(name);
    const expected = tensorBytes(dtype, shape);
    if (bytes !== expected) {
      throw new RangeError(
        `Cannot write tensor "${name}": it has ${bytes} bytes, expected ${expected} for ${dtype} (${shape.join(", ")})`,
      );
    }
    header.push([name, { dtype: FORMAT_NAME[dtype], shape, data_offsets: [offset, offset + bytes] }]);
    offset += bytes;
  }
  // Joined by hand: an object would move names such as "0" to the front.
  const json = new TextEncoder().encode(
    `{${header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(",")}}`,
  );
  const total = Math.ceil((8 + json.length) / ALIGNMENT) * ALIGNMENT;
  const head = new Uint8Array(total).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(total - 8), true);
  head.set(json, 8);
  return head;
}

/**
 * Reads the length of the JSON header from a file's first 8 bytes; `fileBytes` is the size of the whole file.
 *
 * @throws {SyntaxError} where no such header fits the file.
 */
export function headerBytes(first: Uint8Array, fileBytes: number): number {
  if (first.length < 8 || fileBytes < 10) {
    throw new SyntaxError(`Cannot read safetensors: the file has ${fileBytes} bytes, expected at least 10`);
  }
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  const room = Math.min(fileBytes - 8, MAX_HEADER_BYTES);
  if (length < 2n || length > BigInt(room)) {
    throw new SyntaxError(`Cannot read safetensors: the header has ${length} bytes, expected 2 to ${room}`);
  }
  return Number(length);
}

/**
 * Reads and checks a header: dtypes, shapes, sizes, unique names, and that the tensors fill the file without gap or overlap.
 *
 * @param bytes the file's beginning, at least up to the end of the header
 * @param fileBytes size of the whole file, where `bytes` is only its beginning
 * @throws {SyntaxError} that names what is wrong and where.
 */
export function parseHeader(bytes: Uint8Array, fileBytes: number = bytes.length): SafetensorsHeader {
  const length = headerBytes(bytes, fileBytes);
  const dataBegin = 8 + length;
  if (bytes.length < dataBegin) {
    throw new SyntaxError(`Cannot read safetensors: ${bytes.length} bytes are at hand, expected ${dataBegin}`);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, dataBegin));
  } catch {
    throw new SyntaxError("Cannot read safetensors: the header is not valid UTF-8");
  }
  const { tensors, metadata } = new HeaderParser(text).parse();
  const sorted = [...tensors].sort(([_, a], [__, b]) => a.begin - b.begin || a.end - b.end);
  const slots = new Map<string, TensorSlot>();
  let end = 0;
  for (const [name, slot] of sorted) {
    const expected = tensorBytes(slot.dtype, slot.shape);
    if (slot.end - slot.begin !== expected) {
      throw new SyntaxError(
        `Cannot read tensor "${name}": it occupies ${slot.end - slot.begin} bytes, expected ${expected} for ` +
          `${slot.dtype} (${slot.shape.join(", ")})`,
      );
    }
    if (slot.begin !== end) {
      throw new SyntaxError(
        `Cannot read tensor "${name}": its data begins at ${slot.begin}, expected ${end}, the end of the one before`,
      );
    }
    end = slot.end;
    slots.set(name, { ...slot, begin: dataBegin + slot.begin, end: dataBegin + slot.end });
  }
  if (dataBegin + end !== fileBytes) {
    throw new SyntaxError(`Cannot read safetensors: the file has ${fileBytes} bytes, expected ${dataBegin + end}`);
  }
  return { tensors: slots, metadata, dataBegin };
}

/** Parser of exactly the header's grammar; offsets in its errors count characters of the JSON text. */
class HeaderParser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): { tensors: Map<string, TensorSlot>; metadata: Record<string, string> } {
    const tensors = new Map<string, TensorSlot>();
    const metadata: [string, string][] = [];
    let hasMetadata = false;
    this.#object((name) => {
      if (name === "__metadata__") {
        if (hasMetadata) throw this.#error("a second __metadata__", "one");
        hasMetadata = true;
        const seen = new Set<string>();
        this.#object((key) => {
          if (seen.has(key)) throw this.#error(`a second metadata key ${JSON.stringify(key)}`, "unique keys");
          seen.add(key);
          metadata.push([key, this.#string()]);
        });
        return;
      }
      if (tensors.has(name)) throw this.#error(`a second tensor ${JSON.stringify(name)}`, "unique names");
      tensors.set(name, this.#tensor(name));
    });
    this.#space();
    if (this.#at !== this.#text.length) throw this.#error("more text", "the end of the header");
    return { tensors, metadata: Object.fromEntries(metadata) };
  }

  #tensor(name: string): TensorSlot {
    let dtype: TensorDtype | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.#object((key) => {
      if (key === "dtype" && dtype === undefined) {
        const text = this.#string();
        dtype = OUR_NAME.get(text);
        if (dtype === undefined) {
          throw this.#error(
            `dtype ${JSON.stringify(text)} of tensor ${JSON.stringify(name)}`,
            `one of ${[...OUR_NAME.keys()].join(", ")}`,
          );
        }
      } else if (key === "shape" && shape === undefined) shape = this.#integers(MAX_RANK);
      else if (key === "data_offsets" && offsets === undefined) offsets = this.#integers(2);
      else throw this.#error(`key ${JSON.stringify(key)}`, "dtype, shape and data_offsets, each once");
    });
    if (dtype === undefined || shape === undefined || offsets?.length !== 2) {
      throw this.#error(`tensor ${JSON.stringify(name)} without all of its keys`, "dtype, shape and two data_offsets");
    }
    return { dtype, shape, begin: offsets[0], end: offsets[1] };
  }

  #object(entry: (key: string) => void): void {
    this.#expect("{");
    if (this.#accept("}")) return;
    do {
      const key = this.#string();
      this.#expect(":");
      entry(key);
    } while (this.#accept(","));
    this.#expect("}");
  }

  #integers(most: number): number[] {
    const values: number[] = [];
    this.#expect("[");
    if (this.#accept("]")) return values;
    do {
      if (values.length === most) throw this.#error("a longer list", `at most ${most} integers`);
      this.#space();
      const digits = this.#match(/(?:0|[1-9][0-9]{0,15})(?![0-9.eE])/y);
      const value = Number(digits);
      if (digits === undefined || !Number.isSafeInteger(value)) throw this.#error(this.#here(), "an integer");
      values.push(value);
    } while (this.#accept(","));
    this.#expect("]");
    return values;
  }

  #string(): string {
    this.#space();
    if (this.#text[this.#at] !== '"') throw this.#error(this.#here(), "a string");
    // A loop and not a pattern: a pattern with alternatives keeps a stack entry per character of a hostile string.
    let end = this.#at + 1;
    while (end < this.#text.length && this.#text[end] !== '"') end += this.#text[end] === "\\" ? 2 : 1;
    try {
      const value = JSON.parse(this.#text.slice(this.#at, end + 1));
      this.#at = end + 1;
      return value;
    } catch {
      throw this.#error("a malformed string", "a JSON string");
    }
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #space(): void {
    this.#match(/[ \t\r\n]*/y);
  }

  #accept(character: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#error(this.#here(), `"${character}"`);
  }

  #here(): string {
    return this.#at < this.#text.length ? JSON.stringify(this.#text[this.#at]) : "the end";
  }

  #error(found: string, expected: string): SyntaxError {
    return new SyntaxError(`Cannot read safetensors: found ${found} at character ${this.#at}, expected ${expected}`);
  }
}
