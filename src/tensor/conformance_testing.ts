/**
 * What the tests of the conformance suite share: random inputs, a device with a tape, the comparison within a tolerance, and gradients by
 * finite differences.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "./arena.ts";
import { Device } from "./device.ts";
import { TEST_BACKEND } from "./backend_testing.ts";
import { bf16FromF32, type ComputeType, f32FromBf16 } from "./dtype.ts";
import { abs, type Sum, tolerance } from "./ops_testing.ts";
import { type Parameter, ParameterGroup } from "./parameter.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

/** Where random inputs begin; printed with each failure. */
export const SEED = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 20261124);
/** Types that every op computes in. */
export const DTYPES: readonly ComputeType[] = ["f32", "bf16"];

/** Standard normal numbers of a small generator (mulberry32 and Box-Muller), rounded to the type that the op will see. */
export class Inputs {
  #state = SEED;
  readonly dtype: ComputeType;
  constructor(dtype: ComputeType) {
    this.dtype = dtype;
  }
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }
  normal(n: number, scale = 1): Float32Array<ArrayBuffer> {
    const values = Float32Array.from({ length: n }, () => {
      return scale * Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
    });
    return this.dtype === "bf16" ? f32FromBf16(bf16FromF32(values)) : values;
  }
  integers(n: number, below: number): Int32Array<ArrayBuffer> {
    return Int32Array.from({ length: n }, () => Math.floor(this.uniform() * below));
  }
}

/** A device, a tape, and what a test needs to put values in and take them out. */
export class Bench implements Disposable {
  readonly device = Device.open(TEST_BACKEND);
  readonly arena = new Arena(this.device, 64 << 20);
  readonly tape: Tape;
  readonly dtype: ComputeType;
  readonly inputs: Inputs;

  constructor(dtype: ComputeType, { training = true } = {}) {
    this.dtype = dtype;
    this.tape = new Tape(this.device, this.arena, { training });
    this.inputs = new Inputs(dtype);
  }

  tensor(values: Float32Array<ArrayBuffer>, shape: number[]): Tensor {
    return this.device.from(this.dtype === "bf16" ? bf16FromF32(values) : values, shape, this.dtype);
  }

  parameter(values: Float32Array<ArrayBuffer>, shape: [number, number]): Parameter {
    const group = new ParameterGroup(this.device, [{ name: "w", shape, group: "w" }], {
      dtype: this.dtype,
      training: true,
    });
    const [parameter] = group.parameters;
    this.device.upload(parameter.master, values);
    if (group.copy) this.device.upload(parameter.copy, bf16FromF32(values));
    return parameter;
  }

  /**
   * Compares a tensor with expected values.
   *
   * @param check.sum what each element adds up; absent = the values are copied and must be exact
   * @param check.wrong expected values of an op that leaves a term out: they must be refused
   */
  async close(
    label: string,
    actual: Tensor,
    { expected, sum, wrong }: { expected: Float64Array; sum?: Sum; wrong?: Float64Array },
  ): Promise<void> {
    const values = await this.device.readFloats(actual);
    assertEquals(values.length, expected.length, label);
    const bounds = expected.map((value, i) => {
      const [terms, magnitude, rounded] = [sum?.terms ?? 0, sum?.magnitude[i] ?? 0, sum?.rounded?.[i] ?? 0];
      return tolerance(this.dtype, { stored: actual.dtype, value, terms, magnitude, rounded });
    });
    values.forEach((x, i) => {
      const error = Math.abs(x - expected[i]);
      assert(error <= bounds[i], `${label}[${i}] is ${x}, expected ${expected[i]} within ${bounds[i]}, seed ${SEED}`);
    });
    if (!wrong) return;
    const noise = 1e-7 * abs(expected).reduce((a, c) => Math.max(a, c), 0); // of finite differences, where no term is missing
    const planted = [...wrong.keys()].filter((i) => Math.abs(wrong[i] - expected[i]) > noise);
    const refused = planted.filter((i) => Math.abs(values[i] - wrong[i]) > bounds[i]);
    assert(refused.length > 0, `${label}: none of ${planted.length} wrong values is refused, seed ${SEED}`);
  }

  /** Starts backward at `y` with a given gradient. */
  backward(y: Tensor, dy: Float32Array<ArrayBuffer>): void {
    this.tape.setGradient(y, this.tensor(dy, [...y.shape]));
    this.tape.backward();
  }

  [Symbol.dispose](): void {
    this.device[Symbol.dispose]();
  }
}

/** Gradient of sum(dy * f(x)) by central differences. */
export function differences(x: Float32Array, dy: Float32Array, f: (x: Float64Array) => Float64Array): Float64Array {
  const at = Float64Array.from(x);
  const value = () => f(at).reduce((sum, y, i) => sum + y * dy[i], 0);
  return Float64Array.from(x, (center, i) => {
    const h = 1e-5;
    at[i] = center + h;
    const up = value();
    at[i] = center - h;
    const down = value();
    at[i] = center;
    return (up - down) / (2 * h);
  });
}

/** Widens to the type of the plain loops. */
export const wide = (x: Float32Array) => Float64Array.from(x);

/** A matrix whose last column is zero: the product lacks one term of every sum. */
export const withoutColumn = (x: Float32Array, cols: number) => x.map((v, i) => i % cols === cols - 1 ? 0 : v);
/** A matrix whose last row is zero: sums over rows lack one term. */
export const withoutRow = (x: Float32Array, cols: number) => x.map((v, i) => i >= x.length - cols ? 0 : v);
