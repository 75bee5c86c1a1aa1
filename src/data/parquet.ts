/**
 * Parquet files: rows as texts or as `apache-arrow` tables, and shards written row group by row group.
 *
 * Native code decodes a row group and reports its layout; this file allocates one ArrayBuffer for it, has it filled once, and every
 * vector and text is a view of that buffer. Nothing stands over native memory.
 */
import type { Data, DataType, Field, Table } from "apache-arrow";
import type { Native } from "../native/call.ts";
import { pointerFrom, zeroTerminated } from "../native/call.ts";
import { Calls } from "./calls.ts";

/** A field of a file's schema, in the form Arrow has it: a list has one child, its element. */
export interface ParquetField {
  /** Name as the file has it. */
  readonly name: string;
  /** bool, int32, uint32, int64, uint64, float32, float64, utf8, binary, fixed:N (N bytes), list or struct. */
  readonly type: string;
  /** Whether a value may be null. */
  readonly nullable: boolean;
  /** The element of a list, the members of a struct, else empty. */
  readonly children: readonly ParquetField[];
}

interface Description {
  readonly createdBy: string;
  readonly sizeBytes: number;
  readonly rowGroups: readonly { readonly rows: number; readonly bytes: number }[];
  readonly fields: readonly ParquetField[];
}

/** Texts of one row group as bytes: text i is `bytes[offsets[i]..offsets[i + 1]]`; a null has `isNull(i)` and no bytes. */
export interface TextBytes {
  /** All texts behind each other. */
  readonly bytes: Uint8Array;
  /** Where each text begins, and the end of the last: length + 1 entries. */
  readonly offsets: Int32Array;
  /** Number of texts. */
  readonly length: number;
  /** Tells whether text `i` is null. */
  isNull(i: number): boolean;
}

/** Options of `ParquetFile.encodeTexts`. */
export interface EncodeGroupOptions {
  /** Native tokenizer; it must outlive the call. */
  readonly tokenizer: Deno.PointerObject;
  /** Id in front of every document. */
  readonly prepend: number;
  /** Threads to use; 0 = physical cores. */
  readonly threads: number;
}

/** Buffers of one node of the schema, views of one ArrayBuffer. */
interface Column {
  readonly length: number;
  readonly nulls: number;
  readonly validity: Uint8Array;
  readonly offsets: Int32Array;
  readonly values: Uint8Array;
}

const LAYOUT_FIELDS = 8;

/** What `createdBy` says of a file that this program wrote (ffi/src/parquet_io/write.rs). */
export const OWN_CREATOR = "nanochat";

/** Reads a Parquet file one row group at a time. */
export class ParquetFile implements Disposable {
  /** Path as it was given to `open`. */
  readonly path: string;
  /** Rows of each row group. */
  readonly rowsOfGroup: readonly number[];
  /** Top-level fields. */
  readonly schema: readonly ParquetField[];
  /** Program that wrote the file, as the file says. */
  readonly createdBy: string;
  /** Size of the file. */
  readonly sizeBytes: number;
  readonly #calls: Calls;
  readonly #handle: Deno.PointerObject;

  private constructor(path: string, calls: Calls, handle: Deno.PointerObject, description: Description) {
    this.path = path;
    this.#calls = calls;
    this.#handle = handle;
    this.rowsOfGroup = description.rowGroups.map((group) => group.rows);
    this.schema = description.fields;
    this.createdBy = description.createdBy;
    this.sizeBytes = description.sizeBytes;
  }

  /**
   * Opens a file and reads its footer.
   *
   * @throws {NativeError} where the file cannot be read or is no Parquet file.
   */
  static open(path: string): ParquetFile {
    const calls = new Calls();
    try {
      const out = new BigUint64Array(2);
      const name = new TextEncoder().encode(path);
      calls.nc.parquet_open(calls.ctx, out, name, BigInt(name.length));
      const handle = pointerFrom(out);
      const text = new Uint8Array(Number(out[1]));
      calls.nc.parquet_describe(calls.ctx, text, handle, text.length);
      return new ParquetFile(path, calls, handle, JSON.parse(zeroTerminated(text)));
    } catch (error) {
      calls.close(() => {});
      throw error;
    }
  }

  /** Number of row groups. */
  get rowGroups(): number {
    return this.rowsOfGroup.length;
  }

  /** Number of rows in all row groups. */
  get rows(): number {
    return this.rowsOfGroup.reduce((sum, rows) => sum + rows, 0);
  }

  /**
   * Reads the texts of a row group.
   *
   * @throws {Error} where the column is missing or holds no text, and for a null or a text that is not UTF-8 (with its row).
   */
  async readTexts(rowGroup: number, column = "text"): Promise<string[]> {
    const texts = await this.readBytes(rowGroup, column, { raw: false });
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return Array.from({ length: texts.length }, (_, i) => {
      if (texts.isNull(i)) {
        throw new Error(`Cannot read row group ${rowGroup} of "${this.path}": row ${i} is null, expected a text`);
      }
      return decoder.decode(texts.bytes.subarray(texts.offsets[i], texts.offsets[i + 1]));
    });
  }

  /**
   * Reads the texts of a row group as bytes; `raw` leaves it to the caller to find bytes that are not UTF-8.
   *
   * @throws {Error} where the column is missing or holds no text.
   */
  async readBytes(rowGroup: number, column = "text", { raw = true } = {}): Promise<TextBytes> {
    const field = this.fieldIndex(column);
    const [{ length, nulls, validity, offsets, values }] = await this.#read(rowGroup, field, raw);
    const isNull = (i: number) => nulls > 0 && ((validity[i >> 3] >> (i & 7)) & 1) === 0;
    return { bytes: values, offsets, length, isNull };
  }

  /**
   * Finds a text column.
   *
   * @throws {Error} where it is missing or holds no text.
   */
  fieldIndex(column: string): number {
    const index = this.schema.findIndex((field) => field.name === column);
    if (index < 0) {
      const names = this.schema.map((field) => JSON.stringify(field.name)).join(", ");
      throw new Error(`Cannot read texts of "${this.path}": it has the columns ${names}, expected "${column}"`);
    }
    const { type } = this.schema[index];
    if (type !== "utf8" && type !== "binary") {
      throw new TypeError(`Cannot read texts of "${this.path}": column "${column}" holds ${type}, expected text`);
    }
    return index;
  }

  /**
   * Encodes the texts of a row group without a detour over JavaScript: the ids of all documents in order.
   *
   * @throws {Error} as `readTexts`.
   */
  encodeTexts(rowGroup: number, { tokenizer, prepend, threads }: EncodeGroupOptions): Promise<Int32Array<ArrayBuffer>> {
    const field = this.fieldIndex("text");
    const { nc, ctx } = this.#calls;
    return this.#calls.run(`read "${this.path}"`, async () => {
      const out = new BigUint64Array(3);
      await nc.parquet_encode_text(ctx, out, this.#handle, tokenizer, rowGroup, field, prepend, threads);
      const [_, total, documents] = out;
      const ids = new Int32Array(Number(total));
      nc.bpe_encoded_read(ctx, ids, new BigInt64Array(Number(documents)), pointerFrom(out), total, documents);
      return ids;
    });
  }

  /** Reads one row group, or all of them, as a table whose vectors stand over one ArrayBuffer for each row group. */
  async readTable(rowGroup?: number): Promise<Table> {
    const arrow = await loadArrow();
    const schema = new arrow.Schema(this.schema.map((field) => arrowField(arrow, field)));
    const groups = rowGroup === undefined ? this.rowsOfGroup.map((_, i) => i) : [rowGroup];
    const batches = [];
    for (const group of groups) {
      const columns = await this.#read(group, -1, false);
      const next = columns[Symbol.iterator]();
      const children = schema.fields.map((field) => arrowData(arrow, field.type, next));
      const length = this.rowsOfGroup[group];
      const data = arrow.makeData({ type: new arrow.Struct(schema.fields), length, nullCount: 0, children });
      batches.push(new arrow.RecordBatch(schema, data));
    }
    return new arrow.Table(schema, batches);
  }

  #read(rowGroup: number, field: number, raw: boolean): Promise<Column[]> {
    const { nc, ctx } = this.#calls;
    return this.#calls.run(`read "${this.path}"`, async () => {
      const out = new BigUint64Array(3);
      await nc.parquet_read(ctx, out, this.#handle, rowGroup, field, raw ? 1 : 0);
      return takeChunk(nc, ctx, out);
    });
  }

  /** Closes the file, after a read in flight. */
  [Symbol.dispose](): void {
    this.#calls.close(() => this.#calls.nc.parquet_free(this.#calls.ctx, this.#handle));
  }
}

/** Moves a native chunk (handle, nodes, bytes in `out`) into an ArrayBuffer of its size. */
function takeChunk(nc: Native, ctx: Deno.PointerObject, out: BigUint64Array): Column[] {
  const chunk = pointerFrom(out);
  const nodes = Number(out[1]);
  const numbers = new BigInt64Array(nodes * LAYOUT_FIELDS);
  nc.parquet_layout(ctx, numbers, chunk);
  const buffer = new ArrayBuffer(Number(out[2]));
  nc.parquet_fill(ctx, new Uint8Array(buffer), chunk, out[2]);
  return Array.from({ length: nodes }, (_, i) => {
    const at = Array.from(numbers.subarray(i * LAYOUT_FIELDS, (i + 1) * LAYOUT_FIELDS), Number);
    return {
      length: at[0],
      nulls: at[1],
      validity: new Uint8Array(buffer, at[2], at[3]),
      offsets: new Int32Array(buffer, at[4], at[5] / 4),
      values: new Uint8Array(buffer, at[6], at[7]),
    };
  });
}

type Arrow = typeof import("apache-arrow");

let arrow: Promise<Arrow> | undefined;

/**
 * Loads `apache-arrow` when the first table is made.
 *
 * Its one text decoder, made while the module loads, would drop a byte order mark at the start of every text. For that moment the
 * default is to keep it.
 */
export function loadArrow(): Promise<Arrow> {
  arrow ??= (async () => {
    const Original = globalThis.TextDecoder;
    globalThis.TextDecoder = class extends Original {
      constructor(label?: string, options?: TextDecoderOptions) {
        super(label, { ignoreBOM: true, ...options });
      }
    };
    try {
      return await import("apache-arrow");
    } finally {
      globalThis.TextDecoder = Original;
    }
  })();
  return arrow;
}

function arrowField(arrow: Arrow, field: ParquetField): Field {
  return new arrow.Field(field.name, arrowType(arrow, field), field.nullable);
}

function arrowType(arrow: Arrow, field: ParquetField): DataType {
  const children = field.children.map((child) => arrowField(arrow, child));
  const [type, width] = field.type.split(":");
  const make: Record<string, () => DataType> = {
    bool: () => new arrow.Bool(),
    int32: () => new arrow.Int32(),
    uint32: () => new arrow.Uint32(),
    int64: () => new arrow.Int64(),
    uint64: () => new arrow.Uint64(),
    float32: () => new arrow.Float32(),
    float64: () => new arrow.Float64(),
    utf8: () => new arrow.Utf8(),
    binary: () => new arrow.Binary(),
    fixed: () => new arrow.FixedSizeBinary(Number(width)),
    list: () => new arrow.List(children[0]),
    struct: () => new arrow.Struct(children),
  };
  return make[type]();
}

/** Builds the data of a node and, depth first, of everything below it. */
function arrowData(arrow: Arrow, type: DataType, columns: Iterator<Column>): Data {
  const { length, nulls, validity, offsets, values } = columns.next().value as Column;
  const common = { length, nullCount: nulls, nullBitmap: nulls > 0 ? validity : null };
  if (arrow.DataType.isStruct(type)) {
    const children = type.children.map((field: Field) => arrowData(arrow, field.type, columns));
    return arrow.makeData({ type, ...common, children });
  }
  if (arrow.DataType.isList(type)) {
    const child = arrowData(arrow, type.valueType, columns);
    return arrow.makeData({ type, ...common, valueOffsets: offsets, child });
  }
  if (arrow.DataType.isUtf8(type)) return arrow.makeData({ type, ...common, valueOffsets: offsets, data: values });
  if (arrow.DataType.isBinary(type)) return arrow.makeData({ type, ...common, valueOffsets: offsets, data: values });
  // deno-lint-ignore no-explicit-any -- makeData's overloads do not accept the union of the remaining types
  return arrow.makeData({ type, ...common, data: numbers(type, values) } as any) as Data;
}

/** A view of the bytes in the element type of the vector. */
function numbers(type: DataType, bytes: Uint8Array): ArrayBufferView {
  const ArrayType = type.ArrayType as { new (b: ArrayBufferLike, start: number, n: number): ArrayBufferView } & {
    readonly BYTES_PER_ELEMENT: number;
  };
  return new ArrayType(bytes.buffer, bytes.byteOffset, bytes.length / ArrayType.BYTES_PER_ELEMENT);
}

/** Options of a shard writer. */
export interface WriterOptions {
  /** zstd level, 1 to 22; default 3. */
  readonly level?: number;
}

/** Writes a shard: one text column, a row group a call. The file takes its name when it is whole. */
export class ParquetWriter implements Disposable {
  readonly path: string;
  readonly #calls = new Calls();
  readonly #handle: Deno.PointerObject;

  private constructor(path: string, level: number) {
    this.path = path;
    const out = new BigUint64Array(1);
    const name = new TextEncoder().encode(path);
    try {
      this.#calls.nc.shard_create(this.#calls.ctx, out, name, BigInt(name.length), level);
    } catch (error) {
      this.#calls.close(() => {});
      throw error;
    }
    this.#handle = pointerFrom(out);
  }

  /** Creates `<path>.tmp`; disposing an unfinished writer removes it. */
  static create(path: string, { level = 3 }: WriterOptions = {}): ParquetWriter {
    return new ParquetWriter(path, level);
  }

  /** Appends one row group. */
  write(texts: readonly string[]): Promise<void> {
    const encoder = new TextEncoder();
    const parts = texts.map((text) => encoder.encode(text));
    const ends = new BigInt64Array(parts.length);
    let end = 0;
    parts.forEach((part, i) => ends[i] = BigInt(end += part.length));
    const bytes = new Uint8Array(end);
    parts.forEach((part, i) => bytes.set(part, Number(ends[i]) - part.length));
    return this.writeBytes(bytes, ends);
  }

  /** Appends one row group of UTF-8: document i is `bytes[ends[i - 1]..ends[i]]`. */
  writeBytes(bytes: Uint8Array<ArrayBuffer>, ends: BigInt64Array<ArrayBuffer>): Promise<void> {
    const { nc, ctx } = this.#calls;
    return this.#calls.run(
      `write "${this.path}"`,
      () => nc.shard_write(ctx, this.#handle, bytes, ends, BigInt(ends.length)),
    );
  }

  /** Writes the footer and gives the file its name. */
  finish(): Promise<void> {
    const { nc, ctx } = this.#calls;
    return this.#calls.run(`finish "${this.path}"`, () => nc.shard_finish(ctx, this.#handle));
  }

  [Symbol.dispose](): void {
    this.#calls.close(() => this.#calls.nc.shard_free(this.#calls.ctx, this.#handle));
  }
}

/**
 * Writes all texts into one shard; the file takes its name when it is whole.
 *
 * @param options.rowGroupSize texts of a row group; default 1024
 */
export async function writeParquet(
  path: string,
  texts: readonly string[],
  { rowGroupSize = 1024, ...options }: WriterOptions & { readonly rowGroupSize?: number } = {},
): Promise<void> {
  using writer = ParquetWriter.create(path, options);
  for (let i = 0; i < texts.length; i += rowGroupSize) await writer.write(texts.slice(i, i + rowGroupSize));
  await writer.finish();
}
