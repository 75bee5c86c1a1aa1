/**
 * The step block: the few numbers that change from step to step (learning rates, momentum, bias corrections, clip bound), in device
 * memory, filled by one asynchronous copy. Kernels read them there, so that a recorded graph of a step can be replayed.
 */
import type { Device, OwnedTensor } from "./device.ts";
import type { Tensor } from "./tensor.ts";

const ALIGN_FLOATS = 16;

/** Consecutive f32 values of the block. */
export interface Slots {
  /** Where kernels read them. */
  readonly tensor: Tensor;
  /** What the next upload sends. */
  readonly values: Float32Array;
}

/** Host and device side of the block. */
export class StepBlock implements Disposable {
  readonly #device: Device;
  readonly #values: Float32Array<ArrayBuffer>;
  readonly #tensor: OwnedTensor;
  #used = 0;

  constructor(device: Device, capacity = 4096) {
    this.#device = device;
    this.#values = new Float32Array(capacity);
    this.#tensor = device.tensor([capacity], "f32");
  }

  /** Takes `length` values. @throws {RangeError} when the block is full. */
  slots(length: number): Slots {
    const start = this.#used;
    this.#used += Math.ceil(length / ALIGN_FLOATS) * ALIGN_FLOATS;
    return { tensor: this.#tensor.view([length], start), values: this.#values.subarray(start, start + length) };
  }

  /** Enqueues the copy of all values to the device. */
  upload(): void {
    this.#device.upload(this.#tensor, this.#values);
  }

  /** Frees the device side. */
  [Symbol.dispose](): void {
    this.#tensor[Symbol.dispose]();
  }
}
