/**
 * A device: one native context, its memory, and copies between it and JavaScript.
 *
 * Calls enqueue and return; `wait` and `read` are the only points where the host sees results. A context serves one caller at a
 * time: the loader, the checkpoint writer and the engine open devices of their own.
 */
import { STATUS } from "../native/abi.ts";
import { bindNative, type Native, NativeError, pointerFrom, zeroTerminated } from "../native/call.ts";
import type { NativeContext } from "../native/files.ts";
import { findLibrary, type LibraryKind, openLibrary } from "../native/load.ts";
import {
  COMPUTE_TYPES,
  type ComputeType,
  type DType,
  dtypeBytes,
  dtypeCode,
  f32FromBf16,
  type TypedArray,
  typedArray,
} from "./dtype.ts";
import { sizeOf, Tensor } from "./tensor.ts";

/** Which device a user asks for; "" = a GPU where there is one, else the CPU. */
export type DeviceType = "cpu" | "cuda" | "";

/** What a device says about itself. */
export interface DeviceInfo {
  /** Kind of processor. */
  readonly kind: "cpu" | "cuda";
  /** Name as its maker gives it. */
  readonly name: string;
  /** CPU: the instruction set that kernels were chosen for. */
  readonly isa?: string;
  /** CPU: threads of the pool. */
  readonly threads?: number;
  /** Instructions or units that kernels may choose by. */
  readonly features: readonly string[];
}

/** Memory of a device, in bytes. */
export interface MemoryInfo {
  /** Allocated now. */
  readonly allocated: number;
  /** Most that was allocated at once. */
  readonly peak: number;
  /** Memory of the device. */
  readonly total: number;
  /** Memory of the device that is free. */
  readonly free: number;
}

/** A block of device memory that its owner frees. */
export class Memory implements Disposable {
  /** Address of the first byte; not readable from JavaScript on a GPU. */
  readonly pointer: Deno.PointerObject;
  /** Size. */
  readonly bytes: number;
  readonly #device: Device;
  #freed = false;

  /** Takes over a block that was allocated on this device. */
  constructor(device: Device, pointer: Deno.PointerObject, bytes: number) {
    this.#device = device;
    this.pointer = pointer;
    this.bytes = bytes;
  }

  /** Frees the block behind the work that is queued now. */
  [Symbol.dispose](): void {
    if (!this.#freed && this.#device.isOpen) this.#device.nc.free(this.#device.ctx, this.pointer);
    this.#freed = true;
  }
}

/** A tensor that owns its memory. */
export class OwnedTensor extends Tensor implements Disposable {
  readonly #memory: Memory;

  /** Takes over a block of at least the tensor's size. */
  constructor(memory: Memory, shape: readonly number[], dtype: DType) {
    super(memory.pointer, shape, dtype);
    this.#memory = memory;
  }

  /** Frees the memory behind the work that is queued now; using the tensor afterwards throws. */
  [Symbol.dispose](): void {
    this.release();
    this.#memory[Symbol.dispose]();
  }
}

/** An opened device. */
export class Device implements Disposable {
  /** Library behind it; "plan" counts memory and work without computing. */
  readonly kind: LibraryKind | "plan";
  /** The native functions: `device.nc.rmsnorm_fwd(device.ctx, ...)`. */
  readonly nc: Native;
  /** First argument of every native function. */
  readonly ctx: Deno.PointerObject;
  #open = true;
  #host: Device | undefined;

  /** Takes over a native context; `open` makes one. */
  constructor(kind: LibraryKind | "plan", nc: Native, ctx: Deno.PointerObject) {
    this.kind = kind;
    this.nc = nc;
    this.ctx = ctx;
  }

  /**
   * Opens a device. `index` chooses a GPU; `threads` is the size of the CPU pool, 0 = physical cores that the process may use.
   *
   * @throws {Error} where the library or the device is missing, saying what to do.
   */
  static open(kind: LibraryKind, options: { index?: number; threads?: number } = {}): Device {
    const nc = bindNative(openLibrary(kind));
    const out = new BigUint64Array(1);
    nc.context_create(out, options.index ?? 0, options.threads ?? 0);
    return new Device(kind, nc, pointerFrom(out));
  }

  /**
   * Opens the device that a user asked for: without a wish a GPU where the library and a card are there, else the CPU.
   *
   * @throws {Error} where what was asked for is missing, saying why and what to do.
   */
  static choose(type: DeviceType, options: { index?: number; threads?: number } = {}): Device {
    if (type !== "") return Device.open(type, options);
    if (findLibrary("cuda") !== undefined) {
      try {
        return Device.open("cuda", options);
      } catch (error) {
        if (!(error instanceof NativeError) || error.status !== STATUS.UNSUPPORTED) throw error;
      }
    }
    return Device.open("cpu", options);
  }

  /** Whether the context still exists. */
  get isOpen(): boolean {
    return this.#open;
  }

  /** The context with the one that handles its files: a device other than the CPU has a host, opened when it is first asked for. */
  get context(): NativeContext {
    const { nc, ctx, kind } = this;
    if (kind === "cpu" || kind === "plan") return { nc, ctx };
    this.#host ??= Device.open("cpu", { threads: 1 });
    return { nc, ctx, host: { nc: this.#host.nc, ctx: this.#host.ctx } };
  }

  /** Describes the device. */
  info(): DeviceInfo {
    const text = new Uint8Array(4096);
    this.nc.device_info(this.ctx, text, text.length);
    return JSON.parse(zeroTerminated(text));
  }

  /** Reports memory in use and at hand. */
  memory(): MemoryInfo {
    const figures = new BigInt64Array(4);
    this.nc.memory_info(this.ctx, figures);
    const [allocated, peak, total, free] = Array.from(figures, Number);
    return { allocated, peak, total, free };
  }

  /** Allocates zeroed memory. */
  alloc(bytes: number): Memory {
    const out = new BigUint64Array(1);
    this.nc.alloc(this.ctx, out, BigInt(bytes));
    return new Memory(this, pointerFrom(out), bytes);
  }

  /** Allocates a zeroed tensor; the caller or the device's end frees it. */
  tensor(shape: readonly number[], dtype: DType): OwnedTensor {
    return new OwnedTensor(this.alloc(sizeOf(shape) * dtypeBytes(dtype)), shape, dtype);
  }

  /** Allocates a tensor and enqueues the upload of its elements (bits for bf16). */
  from(data: ArrayBufferView<ArrayBuffer>, shape: readonly number[], dtype: DType): OwnedTensor {
    const tensor = this.tensor(shape, dtype);
    this.upload(tensor, data);
    return tensor;
  }

  /** Enqueues a copy of a JavaScript buffer into a tensor; the buffer may be changed at once. */
  upload(tensor: Tensor, data: ArrayBufferView<ArrayBuffer>): void {
    if (data.byteLength !== tensor.bytes) {
      throw new RangeError(
        `Cannot upload ${data.byteLength} bytes: the tensor (${
          tensor.shape.join(", ")
        }) ${tensor.dtype} has ${tensor.bytes}`,
      );
    }
    this.nc.upload(this.ctx, tensor.pointer, data, BigInt(data.byteLength));
  }

  /** Enqueues y[i] = value. */
  fill(y: Tensor, value: number): void {
    this.nc.fill(this.ctx, y.pointer, BigInt(y.size), value, dtypeCode(y.dtype));
  }

  /** Enqueues y = x for tensors of equal size and type. */
  copy(y: Tensor, x: Tensor): void {
    this.nc.copy(this.ctx, y.pointer, x.pointer, BigInt(x.bytes));
  }

  /** Waits until everything enqueued so far is done. @throws {NativeError} the first failure of the queue. */
  wait(): Promise<void> {
    return this.nc.wait(this.ctx);
  }

  /** Waits and copies a tensor to the host, in its own element type. */
  async read(tensor: Tensor): Promise<TypedArray> {
    const out = new BigUint64Array(1);
    this.nc.host_alloc(this.ctx, out, BigInt(tensor.bytes));
    using host = new Memory(this, pointerFrom(out), tensor.bytes);
    this.nc.copy(this.ctx, host.pointer, tensor.pointer, BigInt(tensor.bytes));
    await this.wait();
    const buffer = new ArrayBuffer(tensor.bytes);
    this.nc.host_read(this.ctx, new Uint8Array(buffer), host.pointer, BigInt(tensor.bytes));
    return typedArray(tensor.dtype, buffer);
  }

  /** Waits and copies a float tensor to the host; bf16 is widened. @throws {TypeError} for other types. */
  async readFloats(tensor: Tensor): Promise<Float32Array> {
    const data = await this.read(tensor);
    if (tensor.dtype === "f32") return data as Float32Array;
    if (tensor.dtype === "bf16") return f32FromBf16(data as Uint16Array);
    throw new TypeError(`Cannot read floats: the tensor is ${tensor.dtype}, expected f32 or bf16`);
  }

  /** Finishes the queue and frees everything that the device still owns. */
  [Symbol.dispose](): void {
    if (this.#open) this.nc.context_free(this.ctx);
    this.#open = false;
    this.#host?.[Symbol.dispose]();
    this.#host = undefined;
  }
}

/**
 * Chooses what a model computes in: what was asked for ("fp32", "bf16"), else bf16 where the device multiplies it natively.
 *
 * @throws {RangeError} for other names.
 */
export function chooseComputeType(device: Device, dtype = ""): ComputeType {
  if (dtype === "") {
    const { kind, isa } = device.info();
    return kind === "cuda" || isa === "avx512bf16" ? "bf16" : "f32";
  }
  const type = COMPUTE_TYPES[dtype];
  if (type) return type;
  throw new RangeError(`Cannot compute in "${dtype}": expected one of ${Object.keys(COMPUTE_TYPES).join(", ")}`);
}
