/**
 * A tensor: an address in device memory, a shape and an element type. Row-major, always contiguous.
 *
 * The storage belongs to whoever allocated it (`Device.tensor`, `Arena`). A tensor whose storage the arena took back throws when it is
 * used, so that no kernel reads memory that belongs to another tensor by now.
 */
import { type DType, dtypeBytes } from "./dtype.ts";

/** A shaped, typed address in device memory. */
export class Tensor {
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
  #pointer: Deno.PointerObject | null;

  /** Describes memory that somebody else owns; null = none yet. */
  constructor(pointer: Deno.PointerObject | null, shape: readonly number[], dtype: DType) {
    this.#pointer = pointer;
    this.shape = shape;
    this.dtype = dtype;
  }

  /** Address of the first element. @throws {Error} after the storage was released. */
  get pointer(): Deno.PointerObject {
    if (this.#pointer === null) {
      throw new Error(`Cannot use a tensor (${this.shape.join(", ")}): its storage was released`);
    }
    return this.#pointer;
  }

  /** Whether the tensor has storage now. */
  get alive(): boolean {
    return this.#pointer !== null;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Size in bytes. */
  get bytes(): number {
    return this.size * dtypeBytes(this.dtype);
  }

  /** Gives the tensor storage (the arena does, also when a dropped value is computed again). */
  place(pointer: Deno.PointerObject): void {
    this.#pointer = pointer;
  }

  /** Takes the storage away. */
  release(): void {
    this.#pointer = null;
  }

  /** Views `shape` elements of the same storage, `offset` elements after the first. */
  view(shape: readonly number[], offset = 0): Tensor {
    if (offset + sizeOf(shape) > this.size) {
      throw new RangeError(
        `Cannot view (${shape.join(", ")}) at ${offset}: the tensor (${this.shape.join(", ")}) is too small`,
      );
    }
    return new Tensor(pointerAt(this.pointer, offset * dtypeBytes(this.dtype)), shape, this.dtype);
  }
}

/** Multiplies the dimensions. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** Returns the address `bytes` after `base`. */
export function pointerAt(base: Deno.PointerObject, bytes: number): Deno.PointerObject {
  return Deno.UnsafePointer.create(Deno.UnsafePointer.value(base) + BigInt(bytes))!;
}

/** Splits a shape into all dimensions but the last, multiplied, and the last: how most ops see a tensor. */
export function rowsAndWidth(x: Tensor): { rows: number; C: number } {
  const C = x.shape[x.shape.length - 1];
  return { rows: x.size / C, C };
}
