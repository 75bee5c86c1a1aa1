/**
 * A file of tensors that is written from mapped checkpoints piece by piece: f32 values as they are, rounded to bfloat16, or in q8_0,
 * blocks of 32 values with one f16 scale (ggml's format of that name). No tensor is ever whole in the memory of JavaScript.
 */
import { crc32 } from "node:zlib";
import { addressAt, type NativeContext, readMemory } from "../../native/files.ts";
import { bf16FromF32 } from "../../tensor/dtype.ts";

/** What values are written as. */
export type FileDtype = "f32" | "bf16" | "q8_0";

/** f32 values in mapped memory, row by row. */
export interface SourceTensor {
  /** Name in the file. */
  readonly name: string;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Address of the first value. */
  readonly pointer: Deno.PointerObject;
}

/** Values of a block of q8_0. */
export const Q8_BLOCK = 32;
const Q8_BYTES = 2 + Q8_BLOCK;
const PIECE_VALUES = 1 << 20; // a multiple of every block
const MARGIN_BYTES = 1 << 20;

/** Counts the values of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** Gives the bytes of a tensor in a file. */
export function fileBytes(shape: readonly number[], dtype: FileDtype): number {
  const values = sizeOf(shape);
  return dtype === "f32" ? 4 * values : dtype === "bf16" ? 2 * values : values / Q8_BLOCK * Q8_BYTES;
}

/** Gives the bytes that an export of tensors takes on disk, heads and small files included. */
export function roomBytes(tensors: readonly SourceTensor[], dtype: FileDtype): number {
  return tensors.reduce((sum, { shape }) => sum + fileBytes(shape, dtype), MARGIN_BYTES);
}

/** Quantises values to q8_0: scale = max |x| / 127 in f16, then x / scale rounded, halves away from zero. */
export function quantizeQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(values.length / Q8_BLOCK * Q8_BYTES);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block * Q8_BLOCK < values.length; block++) {
    const x = values.subarray(block * Q8_BLOCK, (block + 1) * Q8_BLOCK);
    let most = 0;
    for (const value of x) most = Math.max(most, Math.abs(value));
    const scale = Math.fround(most / 127);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    const at = block * Q8_BYTES;
    view.setFloat16(at, scale, true);
    for (let i = 0; i < Q8_BLOCK; i++) {
      const scaled = Math.fround(x[i] * inverse);
      view.setInt8(at + 2 + i, Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5));
    }
  }
  return bytes;
}

function encode(values: Float32Array, dtype: FileDtype): Uint8Array {
  if (dtype === "q8_0") return quantizeQ8(values);
  const { buffer, byteOffset, byteLength } = dtype === "bf16" ? bf16FromF32(values) : values;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** A new file, written from its beginning. */
export class TensorFile implements Disposable {
  readonly #file: Deno.FsFile;
  readonly #context: NativeContext;
  #position = 0;

  /** Creates the file, which must not exist. */
  constructor(context: NativeContext, path: string) {
    this.#context = context;
    this.#file = Deno.openSync(path, { write: true, createNew: true });
  }

  /** Bytes written so far. */
  get position(): number {
    return this.#position;
  }

  /** Appends bytes. */
  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    this.#position += bytes.length;
  }

  /** Appends zeros up to a multiple of `alignment`. */
  align(alignment: number): void {
    this.write(new Uint8Array((alignment - this.#position % alignment) % alignment));
  }

  /** Replaces bytes that were written before. */
  patch(position: number, bytes: Uint8Array): void {
    this.#file.seekSync(position, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    this.#file.seekSync(this.#position, Deno.SeekMode.Start);
  }

  /** Appends a tensor; returns the CRC-32 of its bytes. */
  writeTensor({ shape, pointer }: Omit<SourceTensor, "name">, dtype: FileDtype): number {
    const size = sizeOf(shape);
    let crc = 0;
    for (let at = 0; at < size; at += PIECE_VALUES) {
      const count = Math.min(PIECE_VALUES, size - at);
      const piece = readMemory(this.#context, { pointer: addressAt(pointer, 4 * at), bytes: 4 * count });
      const bytes = encode(new Float32Array(piece.buffer), dtype);
      crc = crc32(bytes, crc);
      this.write(bytes);
    }
    return crc;
  }

  /** Waits until everything is on disk and closes the file. */
  [Symbol.dispose](): void {
    this.#file.syncSync();
    this.#file.close();
  }
}
