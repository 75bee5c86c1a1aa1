/**
 * Parameters and their groups. Matrices of one shape share one allocation for each of master weights, gradients and low-precision
 * copies, and are views into it: a group's gradients are zeroed, clipped, reduced or orthogonalised in one launch.
 */
import { LAYOUT, PACK } from "../native/abi.ts";
import type { Device, OwnedTensor } from "./device.ts";
import { type ComputeType, type DType, dtypeCode } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

/** What a model declares: a matrix (rows, cols) and the group it belongs to. All members of a group have one shape. */
export interface ParameterSpec {
  /** Name under PyTorch's scheme: "transformer.h.0.attn.c_q.weight". */
  readonly name: string;
  /** (rows, cols). */
  readonly shape: readonly [number, number];
  /** Name of the group. */
  readonly group: string;
}

/** A weight as an operand of a product. */
export interface WeightOperand {
  /** Address of the first element. */
  readonly pointer: Deno.PointerObject;
  /** Code of the layout: rows, or packed for one direction. */
  readonly layout: number;
  /** Code of the element type. */
  readonly dtype: number;
}

/** One matrix of weights: views of its group's memory, and packed forms of its own. */
export class Parameter implements Disposable {
  /** Name that checkpoints know it by. */
  readonly name: string;
  /** (rows, cols): (out, in) for a linear map, (vocabulary, width) for an embedding. */
  readonly shape: readonly [number, number];
  /** The weights, f32. */
  readonly master: Tensor;
  /** The weights in the compute type: the master itself in f32. */
  readonly copy: Tensor;
  readonly #gradient: Tensor | null;
  readonly #packed: ({ readonly memory: OwnedTensor; readonly dtype: DType } | null)[] = [null, null]; // by PACK direction

  /** Names views of a group's memory. */
  constructor(spec: ParameterSpec, master: Tensor, copy: Tensor, gradient: Tensor | null) {
    this.name = spec.name;
    this.shape = spec.shape;
    this.master = master;
    this.copy = copy;
    this.#gradient = gradient;
  }

  /** Gradient of the loss, f32. @throws {Error} for a model that was made without gradients. */
  get gradient(): Tensor {
    if (!this.#gradient) throw new Error(`Cannot use the gradient of "${this.name}": the model was made for inference`);
    return this.#gradient;
  }

  /** Number of weights. */
  get size(): number {
    return this.shape[0] * this.shape[1];
  }

  /** Returns the weight as the right operand of y = x W^T (forward) or dx = dy W (backward). */
  operand(direction: number = PACK.FORWARD): WeightOperand {
    const packed = this.#packed[direction];
    if (packed) return { pointer: packed.memory.pointer, layout: LAYOUT.PACKED, dtype: dtypeCode(packed.dtype) };
    return this.#rows;
  }

  /** Returns the weight as the output layer's losses and scores read it: quantised, else its rows. */
  headOperand(): WeightOperand {
    return this.operandType === "i8" ? this.operand() : this.#rows;
  }

  get #rows(): WeightOperand {
    return { pointer: this.copy.pointer, layout: LAYOUT.ROWS, dtype: dtypeCode(this.copy.dtype) };
  }

  /** Element type of the forward product's operand. */
  get operandType(): DType {
    return this.#packed[PACK.FORWARD]?.dtype ?? this.copy.dtype;
  }

  /**
   * Prepares the weight for repeated products, where the backend has a packed form; to be repeated after the weight changed. "i8" (forward
   * alone) quantises it, row by row.
   *
   * @throws {Error} where the backend does not multiply "i8".
   */
  pack(device: Device, direction: number, dtype: DType = this.copy.dtype): void {
    const [N, K] = this.shape;
    if (this.#packed[direction]?.dtype !== dtype) {
      this.unpack(direction);
      const bytes = new BigInt64Array(1);
      device.nc.pack_bytes(device.ctx, bytes, N, K, direction, dtypeCode(dtype));
      if (bytes[0] === 0n && dtype === this.copy.dtype) return;
      if (bytes[0] === 0n) throw new Error(`Cannot quantise "${this.name}": this device has no products of ${dtype}`);
      this.#packed[direction] = { memory: device.tensor([Number(bytes[0])], "i8"), dtype };
    }
    const { pointer } = this.#packed[direction]!.memory;
    const from = dtype === "i8" ? this.master : this.copy;
    device.nc.pack(
      ...[device.ctx, pointer, from.pointer, N, K, direction, dtypeCode(dtype), dtypeCode(from.dtype)] as const,
    );
  }

  /** Whether the weight is prepared for products in a direction. */
  isPacked(direction: number): boolean {
    return this.#packed[direction] !== null;
  }

  /** Frees a packed form behind the work that is queued: products read the weight itself again, to the same bits unless it was quantised. */
  unpack(direction: number): void {
    this.#packed[direction]?.memory[Symbol.dispose]();
    this.#packed[direction] = null;
  }

  /** Frees the packed forms. */
  [Symbol.dispose](): void {
    for (const direction of this.#packed.keys()) this.unpack(direction);
  }
}

/** Matrices of one shape in one allocation. */
export class ParameterGroup implements Disposable {
  /** Name of the group. */
  readonly name: string;
  /** Members, in the order of the memory. */
  readonly parameters: readonly Parameter[];
  /** (n, rows, cols), f32. */
  readonly master: OwnedTensor;
  /** (n, rows, cols), f32; null for inference. */
  readonly gradient: OwnedTensor | null;
  /** (n, rows, cols) in the compute type; null where that is f32. */
  readonly copy: OwnedTensor | null;

  /** Allocates zero matrices, gradients only for training; all `specs` have one shape. */
  constructor(device: Device, specs: readonly ParameterSpec[], options: { dtype: ComputeType; training: boolean }) {
    const [rows, cols] = specs[0].shape;
    const shape = [specs.length, rows, cols];
    this.name = specs[0].group;
    this.master = device.tensor(shape, "f32");
    this.gradient = options.training ? device.tensor(shape, "f32") : null;
    this.copy = options.dtype === "f32" ? null : device.tensor(shape, options.dtype);
    this.parameters = specs.map((spec, i) => {
      const part = (whole: Tensor) => whole.view(spec.shape, i * rows * cols);
      const master = part(this.master);
      return new Parameter(
        spec,
        master,
        this.copy ? part(this.copy) : master,
        this.gradient ? part(this.gradient) : null,
      );
    });
  }

  /** (rows, cols) of each member. */
  get shape(): readonly [number, number] {
    return this.parameters[0].shape;
  }

  /** Frees weights, gradients, copies and packed forms. */
  [Symbol.dispose](): void {
    for (const parameter of this.parameters) parameter[Symbol.dispose]();
    this.master[Symbol.dispose]();
    this.gradient?.[Symbol.dispose]();
    this.copy?.[Symbol.dispose]();
  }
}

/** All parameters of a model. */
export class Parameters implements Disposable {
  /** Groups in order of first appearance. */
  readonly groups: readonly ParameterGroup[];
  readonly #device: Device;
  readonly #byName = new Map<string, Parameter>();
  readonly #names: string[];

  /** Allocates the parameters of `specs`; the order of names is kept, groups are in order of first appearance. */
  constructor(device: Device, specs: readonly ParameterSpec[], options: { dtype: ComputeType; training: boolean }) {
    this.#device = device;
    this.#names = specs.map((spec) => spec.name);
    this.groups = [...Map.groupBy(specs, (spec) => spec.group).values()].map((members) =>
      new ParameterGroup(device, members, options)
    );
    for (const group of this.groups) {
      for (const parameter of group.parameters) this.#byName.set(parameter.name, parameter);
    }
  }

  /** Finds a parameter. @throws {RangeError} for an unknown name. */
  get(name: string): Parameter {
    const parameter = this.#byName.get(name);
    if (!parameter) {
      throw new RangeError(
        `Cannot find the parameter "${name}": expected one of ${this.#names.slice(0, 8).join(", ")}, ...`,
      );
    }
    return parameter;
  }

  /** Lists all parameters in declaration order. */
  all(): Parameter[] {
    return this.#names.map((name) => this.get(name));
  }

  /** Number of weights. */
  get size(): number {
    return this.all().reduce((sum, parameter) => sum + parameter.size, 0);
  }

  /** Writes the low-precision copies from the masters (after loading; the optimizer kernels do it in training). */
  refreshCopies(): void {
    const { nc, ctx } = this.#device;
    for (const { master, copy } of this.groups) {
      if (copy) nc.cast(ctx, copy.pointer, master.pointer, BigInt(copy.size), dtypeCode(copy.dtype), dtypeCode("f32"));
    }
  }

  /** Frees all memory. */
  [Symbol.dispose](): void {
    for (const group of this.groups) group[Symbol.dispose]();
  }
}
