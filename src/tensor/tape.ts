/**
 * Records forward operations and runs their gradients in reverse: autograd over coarse tensor operations.
 *
 * An op is a row of ops.ts with a forward and a backward half. What backward reads again is allocated at the arena's front, everything
 * else is scratch. A recomputable value is dropped at the end of its segment and computed again when backward asks for it (norms, the
 * token embedding): cheaper than keeping it. Nothing here waits or is async.
 *
 * Gradients of activations live in scratch. The first writer overwrites, later ones accumulate: every backward kernel takes that flag.
 */
import type { Native } from "../native/call.ts";
import type { Arena, Mark } from "./arena.ts";
import type { Device } from "./device.ts";
import { type DType, dtypeBytes, dtypeCode } from "./dtype.ts";
import type { Parameter } from "./parameter.ts";
import { Tensor } from "./tensor.ts";

/** Work of one call, from the op table's formulas. */
export interface Cost {
  /** Floating-point operations; a multiply-add counts two. */
  readonly flops: number;
  /** Bytes read and written at least. */
  readonly bytes: number;
}

/** Work of an op that touches memory `passes` times over x and computes little. */
export const elementwise = (x: Tensor, passes: number, flops: number): Cost => ({
  flops: flops * x.size,
  bytes: passes * x.bytes,
});
/** Work of the product of x (..., K) with a weight (N, K) as `parameter.operand` gives it. */
export function product(x: Tensor, w: Parameter): Cost {
  const [N, K] = w.shape;
  const M = x.size / K;
  return { flops: 2 * M * N * K, bytes: (M * K + M * N) * dtypeBytes(x.dtype) + N * K * dtypeBytes(w.operandType) };
}

/** Totals per op. */
export type Costs = Map<string, { calls: number; flops: number; bytes: number }>;

/** Adds `calls` calls that cost `cost` each to the row of an op; nothing where nobody counts. */
export function countWork(
  costs: Costs | null,
  name: string,
  { flops, bytes, calls = 1 }: Cost & { readonly calls?: number },
): void {
  if (!costs) return;
  const row = costs.get(name) ?? { calls: 0, flops: 0, bytes: 0 };
  costs.set(name, {
    calls: row.calls + calls,
    flops: row.flops + calls * flops,
    bytes: row.bytes + calls * bytes,
  });
}

/** Where a gradient goes: the buffer, and 1 where it is added to, 0 where it is overwritten. */
export interface GradientTarget {
  /** Address of the gradient's first element. */
  readonly pointer: Deno.PointerObject;
  /** Flag of every backward kernel: 1 adds, 0 overwrites. */
  readonly accumulate: number;
}

/** One row of the op table: `A` arguments, `O` what forward leaves for the caller and for backward. */
export interface Op<A, O> {
  /** Enqueues the computation and returns outputs and saved tensors. */
  forward(tape: Tape, args: A): O;
  /** Enqueues the gradients of the inputs; reads the gradient of the output from the tape. */
  backward?(tape: Tape, args: A, saved: O): void;
  /** Counts the work of the forward or the backward half. */
  cost(args: A, half: "forward" | "backward"): Cost;
}

type Entry = { readonly kind: "op"; backward(): void } | { readonly kind: "segmentStart" } | {
  readonly kind: "segmentEnd";
};

/** The recording of one forward pass. */
export class Tape {
  /** Where the ops run. */
  readonly device: Device;
  /** The device's native functions. */
  readonly nc: Native;
  /** First argument of every native function. */
  readonly ctx: Deno.PointerObject;
  /** Memory of activations; no other tape may use it between two calls of `clear`. */
  readonly arena: Arena;
  /** Whether gradients will be asked for. */
  readonly training: boolean;
  /** False: this micro-step overwrites parameter gradients; true: it adds to them. */
  accumulate = false;
  /** Filled with the work of every op when set. */
  costs: Costs | null = null;
  #entries: Entry[] = [];
  #gradients = new Map<Tensor, Tensor>();
  #recompute = new Map<Tensor, () => void>();
  #written = new Set<Parameter>();

  /** Starts an empty recording; device and arena stay the caller's. */
  constructor(device: Device, arena: Arena, options: { training: boolean }) {
    this.device = device;
    this.nc = device.nc;
    this.ctx = device.ctx;
    this.arena = arena;
    this.training = options.training;
  }

  /** Runs the forward half of an op and remembers its backward half. */
  apply<A, O>(name: string, op: Op<A, O>, args: A): O {
    const saved = op.forward(this, args);
    countWork(this.costs, name, op.cost(args, "forward"));
    if (this.training && op.backward) {
      const backward = () => {
        op.backward!(this, args, saved);
        countWork(this.costs, `${name}_bwd`, op.cost(args, "backward"));
      };
      this.#entries.push({ kind: "op", backward });
    }
    return saved;
  }

  /** Allocates an output that backward or another segment reads again. */
  saved(shape: readonly number[], dtype: DType): Tensor {
    return this.arena.saved(shape, dtype);
  }

  /** Allocates memory that lives until the end of the segment. */
  scratch(shape: readonly number[], dtype: DType): Tensor {
    return this.arena.scratch(shape, dtype);
  }

  /** Allocates an output that is dropped at the end of its segment; `compute` writes it, now and again when backward needs it. */
  recomputable(shape: readonly number[], dtype: DType, compute: (y: Tensor) => void): Tensor {
    const y = this.arena.scratch(shape, dtype);
    compute(y);
    if (this.training) this.#recompute.set(y, () => compute(y));
    return y;
  }

  /** Returns a tensor with its value at hand, computed again where it was dropped. */
  value(x: Tensor): Tensor {
    if (x.alive) return x;
    const recompute = this.#recompute.get(x);
    if (!recompute) {
      throw new Error(
        `Cannot read a tensor (${
          x.shape.join(", ")
        }) in backward: it was dropped, expected a saved or recomputable one`,
      );
    }
    this.arena.placeScratch(x);
    recompute();
    return x;
  }

  /**
   * Groups ops: their scratch is released together, in forward and in backward. What other segments use must be saved. Without
   * gradients saved tensors are released too, unless the result is one of them.
   */
  segment<R>(body: () => R): R {
    const mark = this.arena.mark();
    if (this.training) this.#entries.push({ kind: "segmentStart" });
    const result = body();
    if (this.training) {
      this.#entries.push({ kind: "segmentEnd" });
      this.arena.releaseScratch(mark);
    } else if (result instanceof Tensor && this.arena.isYounger(result, mark)) {
      this.arena.releaseScratch(mark);
    } else {
      this.arena.release(mark);
    }
    return result;
  }

  /** Returns where the gradient of an activation is to be written. */
  gradientTarget(x: Tensor): GradientTarget {
    const known = this.#gradients.get(x);
    if (known) return { pointer: known.pointer, accumulate: 1 };
    const gradient = this.arena.scratch(x.shape, x.dtype);
    this.#gradients.set(x, gradient);
    return { pointer: gradient.pointer, accumulate: 0 };
  }

  /** Returns the gradient of an output. @throws {Error} where nothing was propagated to it. */
  gradient(y: Tensor): Tensor {
    const gradient = this.#gradients.get(y);
    if (!gradient) {
      throw new Error(
        `Cannot run backward: a tensor (${y.shape.join(", ")}) has no gradient, expected one from its consumer`,
      );
    }
    return gradient;
  }

  /** Passes the gradient of `y` on to `x` unchanged (a residual connection): in the same storage where `x` has none yet. */
  passGradient(x: Tensor, y: Tensor): void {
    const dy = this.gradient(y);
    const dx = this.#gradients.get(x);
    if (dx) this.nc.add(this.ctx, dx.pointer, dx.pointer, dy.pointer, BigInt(dx.size), dtypeCode(dx.dtype));
    else this.#gradients.set(x, dy);
  }

  /** Sets the gradient of a tensor by hand: where backward starts. */
  setGradient(y: Tensor, dy: Tensor): void {
    this.#gradients.set(y, dy);
  }

  /** Returns where the gradient of a parameter is to be written: overwritten at its first use in a step, then added to. */
  parameterTarget(w: Parameter): GradientTarget {
    const accumulate = this.accumulate || this.#written.has(w) ? 1 : 0;
    this.#written.add(w);
    return { pointer: w.gradient.pointer, accumulate };
  }

  /** Runs the backward halves, last first. `clear` starts the next pass. */
  backward(): void {
    const marks: Mark[] = [];
    for (const entry of this.#entries.reverse()) {
      if (entry.kind === "op") entry.backward();
      else if (entry.kind === "segmentEnd") marks.push(this.arena.mark());
      else this.arena.releaseScratch(marks.pop()!);
    }
    this.#entries = [];
  }

  /** Forgets the recording and starts the arena anew. */
  clear(): void {
    this.#entries = [];
    this.#gradients.clear();
    this.#recompute.clear();
    this.#written.clear();
    this.arena.reset();
  }
}
