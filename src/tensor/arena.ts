/**
 * One block of memory for all activations of a step, used from both ends: what backward needs again grows from the front, scratch
 * grows from the back. Marks nest; releasing one takes the storage of everything younger away. A reset starts the next step, so the
 * same program takes the same addresses again, which is what lets a step be recorded as a graph.
 */
import type { Device, Memory } from "./device.ts";
import { type DType, dtypeBytes } from "./dtype.ts";
import { pointerAt, sizeOf, Tensor } from "./tensor.ts";

const ALIGN = 256; // bytes; the alignment that cuBLASLt's fastest kernels ask for

/** A point to return to. */
export interface Mark {
  /** Tensors at the front. */
  readonly front: number;
  /** Tensors at the back. */
  readonly back: number;
}

/** One end of the arena: its tensors and the bytes used behind each. */
interface End {
  readonly tensors: Tensor[];
  readonly used: number[];
}

/** A double-ended stack of tensors in one allocation. */
export class Arena implements Disposable {
  /** Capacity. */
  readonly bytes: number;
  readonly #memory: Memory;
  readonly #front: End = { tensors: [], used: [0] };
  readonly #back: End = { tensors: [], used: [0] };
  #peak = 0;

  /** Allocates the block, rounded up to 256 bytes. */
  constructor(device: Device, bytes: number) {
    this.bytes = Math.ceil(bytes / ALIGN) * ALIGN;
    this.#memory = device.alloc(this.bytes);
  }

  /** Most bytes in use at once so far. */
  get peak(): number {
    return this.#peak;
  }

  /** Allocates at the front: lives until its mark is released or the arena is reset. Contents are undefined. */
  saved(shape: readonly number[], dtype: DType): Tensor {
    const tensor = new Tensor(null, shape, dtype);
    const end = this.#push(this.#front, tensor);
    tensor.place(pointerAt(this.#memory.pointer, end - aligned(tensor)));
    return tensor;
  }

  /** Allocates at the back. Contents are undefined. */
  scratch(shape: readonly number[], dtype: DType): Tensor {
    const tensor = new Tensor(null, shape, dtype);
    this.placeScratch(tensor);
    return tensor;
  }

  /** Gives a released tensor new storage at the back. */
  placeScratch(tensor: Tensor): void {
    const end = this.#push(this.#back, tensor);
    tensor.place(pointerAt(this.#memory.pointer, this.bytes - end));
  }

  /** Remembers this point. */
  mark(): Mark {
    return { front: this.#front.tensors.length, back: this.#back.tensors.length };
  }

  /** Takes everything allocated at the back since the mark. */
  releaseScratch(mark: Mark): void {
    pop(this.#back, mark.back);
  }

  /** Takes everything allocated since the mark, at both ends. */
  release(mark: Mark): void {
    pop(this.#back, mark.back);
    pop(this.#front, mark.front);
  }

  /** Tells whether a tensor was allocated at the front since the mark. */
  isYounger(tensor: Tensor, mark: Mark): boolean {
    return this.#front.tensors.indexOf(tensor, mark.front) >= 0;
  }

  /** Starts the next step. */
  reset(): void {
    this.release({ front: 0, back: 0 });
  }

  #push(end: End, tensor: Tensor): number {
    const used = end.used.at(-1)! + aligned(tensor);
    const other = end === this.#front ? this.#back : this.#front;
    const total = used + other.used.at(-1)!;
    if (total > this.bytes) {
      const what = `(${tensor.shape.join(", ")}) ${tensor.dtype}`;
      throw new RangeError(`Cannot allocate ${what}: the arena has ${this.bytes} bytes, expected at least ${total}`);
    }
    this.#peak = Math.max(this.#peak, total);
    end.tensors.push(tensor);
    end.used.push(used);
    return used;
  }

  /** Frees the block. */
  [Symbol.dispose](): void {
    this.reset();
    this.#memory[Symbol.dispose]();
  }
}

function pop(end: End, length: number): void {
  for (const tensor of end.tensors.splice(length)) tensor.release();
  end.used.length = length + 1;
}

function aligned(tensor: Tensor): number {
  return Math.ceil(sizeOf(tensor.shape) * dtypeBytes(tensor.dtype) / ALIGN) * ALIGN;
}
