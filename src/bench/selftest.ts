/**
 * Compares every kernel of a device with the CPU library on the same inputs; where the device is the CPU, with plain loops for every
 * operation that has one. It finds a device that computes wrongly, in seconds; whether the kernels are right at odd sizes is for the
 * conformance suite to say.
 */
import { Device, type OwnedTensor } from "../tensor/device.ts";
import { bf16FromF32, type ComputeType, type DType, dtypeCode, f32FromBf16, type TypedArray } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { CHECKS } from "./selftest_checks.ts";

/** What one operation came to. */
export interface SelftestRow {
  /** Name of the C function without its prefix. */
  readonly op: string;
  readonly dtype: ComputeType;
  /** Largest error in units of what is allowed; null where nothing was compared. */
  readonly error: number | null;
  /** Why the operation failed; null where it did not. */
  readonly problem: string | null;
}

/** Values of an operation and what they may be off by. */
export interface Expectation {
  /** Terms of the longest sum behind an element. */
  readonly terms?: number;
  /** Intermediates that are rounded to the compute type on the way to an element. */
  readonly rounded?: number;
  /** The values by plain loops. */
  readonly plain?: () => ArrayLike<number>;
  /** How the bits are read where no element type says it. */
  readonly as?: "f64" | "i64";
}

/** Random numbers that a kernel is given: on the device, and as plain loops read them. */
export interface Input {
  readonly tensor: Tensor;
  readonly pointer: Deno.PointerObject;
  readonly values: Float64Array;
}

interface Result extends Expectation {
  readonly tensor: Tensor;
}

const SEED = 20261125;

/** Where a check draws its inputs, in the same order on every device, and leaves its results. */
export class Lab implements Disposable {
  readonly device: Device;
  readonly dtype: ComputeType;
  /** Code of the compute type. */
  readonly code: number;
  readonly results: Result[] = [];
  readonly #owned: Disposable[] = [];
  #state = SEED;

  constructor(device: Device, dtype: ComputeType) {
    this.device = device;
    this.dtype = dtype;
    this.code = dtypeCode(dtype);
  }

  /** A number in [0, 1) (mulberry32). */
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Standard normal numbers times `scale` in the compute type, or in `dtype`. */
  normal(shape: readonly number[], { scale = 1, dtype = this.dtype } = {}): Input {
    const n = shape.reduce((a, c) => a * c, 1);
    return this.floats(
      Float32Array.from({ length: n }, () => {
        return scale * Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
      }),
      { shape, dtype },
    );
  }

  /** Given numbers, f32 unless told otherwise. */
  floats(values: Float32Array<ArrayBuffer>, { shape, dtype = "f32" }: {
    shape?: readonly number[];
    dtype?: ComputeType;
  } = {}): Input {
    const bits = dtype === "bf16" ? bf16FromF32(values) : values;
    const tensor = this.#own(this.device.from(bits, shape ?? [values.length], dtype));
    return {
      tensor,
      pointer: tensor.pointer,
      values: Float64Array.from(dtype === "bf16" ? f32FromBf16(bits as Uint16Array) : values),
    };
  }

  /** Given integers. */
  integers(values: ArrayLike<number>): Input {
    const bits = Int32Array.from(values);
    const tensor = this.#own(this.device.from(bits, [bits.length], "i32"));
    return { tensor, pointer: tensor.pointer, values: Float64Array.from(bits) };
  }

  /** Random integers below a bound. */
  ids(n: number, below: number): Input {
    return this.integers(Array.from({ length: n }, () => Math.floor(this.uniform() * below)));
  }

  /** Zeroed memory for a result or for scratch. */
  tensor(shape: readonly number[], dtype: DType = this.dtype): Tensor {
    return this.#own(this.device.tensor(shape, dtype));
  }

  /** Says that a tensor is a result, to be compared. Integers must be equal. */
  expect(tensor: Tensor, expectation: Expectation = {}): void {
    this.results.push({ tensor, ...expectation });
  }

  #own(tensor: OwnedTensor): OwnedTensor {
    this.#owned.push(tensor);
    return tensor;
  }

  [Symbol.dispose](): void {
    for (const each of this.#owned) each[Symbol.dispose]();
  }
}

/** An operation under test. */
export interface Check {
  readonly op: string;
  /** Compute types that make a difference to it. */
  readonly types: readonly ComputeType[];
  /** Draws inputs, calls the kernel, names its results. */
  run(t: Lab): void;
}

/** Results of a run: bits to be equal in the next one, numbers to be compared. */
interface Outcome {
  readonly bits: readonly TypedArray[];
  readonly values: readonly Float64Array[];
  readonly results: readonly Result[];
}

async function outcome(device: Device, { check, dtype }: { check: Check; dtype: ComputeType }): Promise<Outcome> {
  using t = new Lab(device, dtype);
  check.run(t);
  const bits: TypedArray[] = [];
  for (const { tensor } of t.results) bits.push(await device.read(tensor));
  return { bits, values: t.results.map((result, i) => numbers(bits[i], result)), results: t.results };
}

function numbers(bits: TypedArray, { tensor, as }: Result): Float64Array {
  if (as === "f64") return new Float64Array(bits.buffer);
  if (as === "i64") return Float64Array.from(new BigInt64Array(bits.buffer), Number);
  return Float64Array.from(tensor.dtype === "bf16" ? f32FromBf16(bits as Uint16Array) : bits);
}

const UNIT = { f32: 2 ** -24, bf16: 2 ** -8 }; // half the spacing of numbers at 1
const EXACT = new Set<DType>(["i32", "i8", "u16"]);

/**
 * Largest error in units of what is allowed. Two right results may each be off by the rounding of what is stored, of each rounded
 * intermediate, and of n additions in fp32, whose terms are taken to be as large as the results are on average times sqrt(n).
 */
function largestError(found: Float64Array, expected: ArrayLike<number>, { result, dtype }: {
  result: Result;
  dtype: ComputeType;
}): number {
  const { tensor: { dtype: stored }, terms = 1, rounded = 0, as } = result;
  if (found.length !== expected.length) return Infinity;
  const size = Math.sqrt(found.reduce((sum, _, i) => sum + expected[i] ** 2, 0) / found.length);
  let largest = 0;
  for (let i = 0; i < found.length; i++) {
    if (Object.is(found[i], expected[i]) || found[i] === expected[i]) continue;
    const own = 2 * (stored === "bf16" ? UNIT.bf16 : UNIT.f32) * Math.abs(expected[i]);
    const allowed = own + (4 * terms * UNIT.f32 + rounded * UNIT[dtype]) * (Math.abs(expected[i]) + size);
    const error = EXACT.has(stored) && as === undefined ? Infinity : Math.abs(found[i] - expected[i]) / allowed;
    largest = Math.max(largest, Number.isNaN(error) ? Infinity : error);
  }
  return largest;
}

const sameBits = (a: TypedArray, b: TypedArray) => {
  const [x, y] = [a, b].map((each) => new Uint8Array(each.buffer, each.byteOffset, each.byteLength));
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
};

async function examine(device: Device, reference: Device | null, of: { check: Check; dtype: ComputeType }) {
  const found = await outcome(device, of);
  const again = await outcome(device, of);
  if (!found.bits.every((bits, i) => sameBits(bits, again.bits[i]))) {
    return { error: Infinity, problem: "the same inputs gave other bits the second time" };
  }
  const right = reference && await outcome(reference, of);
  const errors = found.values.flatMap((values, i) => {
    const result = found.results[i];
    const expected = right ? right.values[i] : result.plain?.();
    return expected ? [largestError(values, expected, { result, dtype: of.dtype })] : [];
  });
  const error = errors.length > 0 ? Math.max(...errors) : null;
  return { error, problem: error !== null && error > 1 ? "the results are wrong" : null };
}

/** Runs every check on a device; a failure of a kernel is a row, and so are those of all later ones where the device is lost. */
export async function selftest(device: Device): Promise<SelftestRow[]> {
  using reference = device.kind === "cpu" ? null : Device.open("cpu");
  const rows: SelftestRow[] = [];
  for (const check of CHECKS) {
    for (const dtype of check.types) {
      const { op } = check;
      try {
        rows.push({ op, dtype, ...await examine(device, reference, { check, dtype }) });
      } catch (error) {
        rows.push({ op, dtype, error: null, problem: (error as Error).message });
      }
    }
  }
  return rows;
}
