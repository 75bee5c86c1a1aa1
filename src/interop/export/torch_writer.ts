/**
 * Writes files as torch.save does: a zip of stored entries, `data.pkl` with the objects and `data/<key>` with the bytes of each tensor,
 * each at a multiple of 64 bytes. Sizes and offsets are those of zip64 throughout, so that a file may have any size.
 *
 * Sources: torch/serialization.py of PyTorch 2; PKWARE APPNOTE 6.3.
 */
import { crc32 } from "node:zlib";
import type { NativeContext } from "../../native/files.ts";
import { Bytes } from "./bytes.ts";
import { type PickledTensor, writePickle } from "./pickle_writer.ts";
import { fileBytes, type SourceTensor, TensorFile } from "./tensor_file.ts";

const ALIGNMENT = 64;
const LOCAL = 0x04034b50;
const DIRECTORY = 0x02014b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const END = 0x06054b50;
const VERSION = 45; // the first with zip64
const FULL = 0xffffffff; // the value is in the extra field
const ZIP64_FIELD = 0x0001;
const PADDING_FIELD = 0x4246; // "FB", torch's own
const CRC_AT = 14;

/** A tensor that is written into a file. */
export class SavedTensor implements PickledTensor {
  /** Names its storage, shape, and what writes its bytes and returns their CRC-32. */
  constructor(
    readonly storage: string,
    readonly shape: readonly number[],
    readonly bytes: number,
    readonly write: (file: TensorFile) => number,
  ) {}

  /** A tensor of f32 values in mapped memory, as they are or rounded. */
  static mapped(tensor: Omit<SourceTensor, "name">, dtype: "f32" | "bf16"): SavedTensor {
    const storage = dtype === "f32" ? "FloatStorage" : "BFloat16Storage";
    const { shape } = tensor;
    return new SavedTensor(storage, shape, fileBytes(shape, dtype), (file) => file.writeTensor(tensor, dtype));
  }

  /** A tensor of a few values. */
  static of(values: Float32Array | Int32Array, shape: readonly number[]): SavedTensor {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const storage = values instanceof Float32Array ? "FloatStorage" : "IntStorage";
    return new SavedTensor(storage, shape, bytes.length, (file) => writeBytes(file, bytes));
  }
}

function writeBytes(file: TensorFile, bytes: Uint8Array): number {
  file.write(bytes);
  return crc32(bytes);
}

interface Entry {
  readonly name: Uint8Array;
  readonly size: number;
  readonly crc: number;
  readonly offset: number;
}

/** Saves a value, see `writePickle`, whose tensors are `SavedTensor`s, to a new file; `name` is the folder of the entries. */
export function saveTorch(
  context: NativeContext,
  value: unknown,
  { path, name }: { path: string; name: string },
): void {
  const tensors: SavedTensor[] = [];
  const pickle = writePickle(value, {
    keyOf(value) {
      if (!(value instanceof SavedTensor)) return undefined;
      return { key: String(tensors.push(value) - 1), tensor: value };
    },
  });
  using file = new TensorFile(context, path);
  const entries: Entry[] = [];
  const add = (part: string, size: number, write: (file: TensorFile) => number) => {
    entries.push(writeEntry(file, { name: new TextEncoder().encode(`${name}/${part}`), size, write }));
  };
  const addBytes = (part: string, bytes: Uint8Array) => add(part, bytes.length, (file) => writeBytes(file, bytes));
  addBytes("data.pkl", pickle);
  addBytes("byteorder", new TextEncoder().encode("little"));
  for (const [key, tensor] of tensors.entries()) add(`data/${key}`, tensor.bytes, tensor.write);
  addBytes("version", new TextEncoder().encode("3\n"));
  writeDirectory(file, entries);
}

function writeEntry(
  file: TensorFile,
  { name, size, write }: { name: Uint8Array; size: number; write: (file: TensorFile) => number },
): Entry {
  const offset = file.position;
  const fixed = 30 + name.length + 20 + 4;
  const padding = (ALIGNMENT - (offset + fixed) % ALIGNMENT) % ALIGNMENT;
  const head = new Bytes();
  head.u32(LOCAL);
  head.u16(VERSION);
  head.raw([0, 0, 0, 0, 0, 0, 0, 0]); // flags, stored, no time
  head.u32(0); // the CRC, once it is known
  head.u32(FULL);
  head.u32(FULL);
  head.u16(name.length);
  head.u16(20 + 4 + padding);
  head.raw(name);
  head.u16(ZIP64_FIELD);
  head.u16(16);
  head.u64(size);
  head.u64(size);
  head.u16(PADDING_FIELD);
  head.u16(padding);
  head.raw(new Uint8Array(padding));
  file.write(head.all);
  const crc = write(file);
  const sum = new Bytes();
  sum.u32(crc);
  file.patch(offset + CRC_AT, sum.all);
  return { name, size, crc, offset };
}

function writeDirectory(file: TensorFile, entries: readonly Entry[]): void {
  const begin = file.position;
  const out = new Bytes();
  for (const { name, size, crc, offset } of entries) {
    out.u32(DIRECTORY);
    out.u16(VERSION);
    out.u16(VERSION);
    out.raw([0, 0, 0, 0, 0, 0, 0, 0]);
    out.u32(crc);
    out.u32(FULL);
    out.u32(FULL);
    out.u16(name.length);
    out.u16(28);
    out.raw([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // no comment, first disk, no attributes
    out.u32(FULL);
    out.raw(name);
    out.u16(ZIP64_FIELD);
    out.u16(24);
    for (const value of [size, size, offset]) out.u64(value);
  }
  const bytes = out.all.length;
  out.u32(END64);
  out.u64(44);
  out.u16(VERSION);
  out.u16(VERSION);
  out.u32(0);
  out.u32(0);
  for (const value of [entries.length, entries.length, bytes, begin]) out.u64(value);
  out.u32(LOCATOR64);
  out.u32(0);
  out.u64(begin + bytes);
  out.u32(1);
  out.u32(END);
  out.u32(0);
  out.u16(0xffff);
  out.u16(0xffff);
  out.u32(FULL);
  out.u32(FULL);
  out.u16(0);
  file.write(out.all);
}
