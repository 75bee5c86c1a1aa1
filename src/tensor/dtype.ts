/** Element types: names, sizes, and their typed arrays on the JavaScript side. */
import { DTYPE, DTYPE_BYTES } from "../native/abi.ts";

/** Name of an element type; each has a code in the C interface, which `dtypeCode` looks up. */
export type DType = "f32" | "bf16" | "f16" | "i32" | "u16" | "i8" | "e4m3" | "e5m2";
/** Types that a model computes in. */
export type ComputeType = "f32" | "bf16";

/** What `--dtype` accepts, and its meaning. */
export const COMPUTE_TYPES: Readonly<Record<string, ComputeType>> = {
  fp32: "f32",
  float32: "f32",
  f32: "f32",
  bf16: "bf16",
  bfloat16: "bf16",
};

/** Returns the code of a type in the C interface. */
export function dtypeCode(dtype: DType): number {
  return DTYPE[dtype];
}

/** Returns the size of one element in bytes. */
export function dtypeBytes(dtype: DType): number {
  return DTYPE_BYTES[dtype];
}

/** Elements on the JavaScript side; 16-bit floats and fp8 are raw bits. */
export type TypedArray = Float32Array | Int32Array | Uint16Array | Int8Array | Uint8Array;

/** Wraps a buffer in the typed array of a type. */
export function typedArray(dtype: DType, buffer: ArrayBuffer): TypedArray {
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer);
    case "i32":
      return new Int32Array(buffer);
    case "i8":
      return new Int8Array(buffer);
    case "e4m3":
    case "e5m2":
      return new Uint8Array(buffer);
    default:
      return new Uint16Array(buffer);
  }
}

/** Rounds floats to bfloat16 bits, to nearest, ties to even. */
export function bf16FromF32(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const isNaN = (b: number) => (b & 0x7fffffff) > 0x7f800000;
  return Uint16Array.from(bits, (b) => isNaN(b) ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16);
}

/** Widens bfloat16 bits. */
export function f32FromBf16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i] << 16;
  return new Float32Array(wide.buffer);
}
