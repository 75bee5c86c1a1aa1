/**
 * The plan backend: runs the same TypeScript with shapes only. No memory is touched; what comes out is the peak of the arena, the
 * bytes allocated, and FLOPs and bytes per op. Fitting the batch, `nanochat plan`, MFU and the roofline come from this.
 */
import { abi } from "../native/abi.ts";
import type { Native } from "../native/call.ts";
import { Device } from "./device.ts";

const CONTEXT = 1n << 40n; // addresses that are never dereferenced
const FIRST = CONTEXT + 4096n;

/** What the plan allocates: total now, and most at once. */
interface Ledger {
  allocated: number;
  peak: number;
  next: bigint;
  readonly sizes: Map<bigint, number>;
}

/** A device without memory that counts what would be allocated. */
export class PlanDevice extends Device {
  readonly #ledger: Ledger;

  constructor() {
    const ledger: Ledger = { allocated: 0, peak: 0, next: FIRST, sizes: new Map() };
    super("plan", planFunctions(ledger), Deno.UnsafePointer.create(CONTEXT)!);
    this.#ledger = ledger;
  }

  /** Most bytes allocated at once, by every owner. */
  get peakBytes(): number {
    return this.#ledger.peak;
  }
}

type AnyFunction = (...args: never[]) => unknown;

function planFunctions(ledger: Ledger): Native {
  const methods: Record<string, AnyFunction> = {};
  for (const [name, row] of Object.entries(abi)) {
    methods[name.slice("nc_".length)] = "nonblocking" in row ? () => Promise.resolve() : () => {};
  }
  const alloc = (_ctx: Deno.PointerValue, out: BigUint64Array, bytes: bigint) => {
    out[0] = ledger.next;
    ledger.sizes.set(ledger.next, Number(bytes));
    ledger.next += (bytes + 8191n) / 4096n * 4096n;
    ledger.allocated += Number(bytes);
    ledger.peak = Math.max(ledger.peak, ledger.allocated);
  };
  const free = (_ctx: Deno.PointerValue, memory: Deno.PointerObject) => {
    const address = Deno.UnsafePointer.value(memory);
    ledger.allocated -= ledger.sizes.get(address) ?? 0;
    ledger.sizes.delete(address);
  };
  const memoryInfo = (_ctx: Deno.PointerValue, info: BigInt64Array) => {
    info.set([BigInt(ledger.allocated), BigInt(ledger.peak), 0n, 0n]);
  };
  Object.assign(methods, { alloc, host_alloc: alloc, free, memory_info: memoryInfo });
  return methods as unknown as Native;
}
