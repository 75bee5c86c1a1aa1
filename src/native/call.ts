/** Turns status codes into errors: every foreign function becomes a method that returns nothing and throws `NativeError`. */
import type { abi, AbiName, AbiRow } from "./abi.ts";
import { STATUS } from "./abi.ts";
import type { JsArgs } from "./ffi_types.ts";
import type { Symbols } from "./load.ts";

/** A failed native call: which function, with which status, and the library's message. */
export class NativeError extends Error {
  /** Name of the class. */
  override name = "NativeError";
  /** Name of the C function: "nc_...". */
  readonly function: string;
  /** Its status code; never 0. */
  readonly status: number;

  /** Makes the error of function `name` with the library's message. */
  constructor(name: string, status: number, message: string) {
    super(message);
    this.function = name;
    this.status = status;
  }
}

type Short<K extends AbiName> = K extends `nc_${infer N}` ? N : never;
type Method<R extends AbiRow> = (...args: JsArgs<R["args"]>) => R extends { nonblocking: true } ? Promise<void> : void;

/**
 * The native functions without their prefix: `nc.rmsnorm_fwd(ctx, ...)`. They change with the libraries.
 *
 * @internal
 */
export type Native = { readonly [K in AbiName as Short<K>]: Method<(typeof abi)[K]> };

const ERROR_CAPACITY = 4096;

/** Reads the last error message of a context. */
export function errorText(symbols: Symbols, ctx: Deno.PointerValue): string {
  const text = new Uint8Array(ERROR_CAPACITY);
  symbols.nc_error(ctx, text, ERROR_CAPACITY);
  return zeroTerminated(text);
}

/** Decodes UTF-8 up to the first zero byte. */
export function zeroTerminated(text: Uint8Array): string {
  const end = text.indexOf(0);
  return new TextDecoder().decode(text.subarray(0, end < 0 ? text.length : end));
}

/** Wraps the functions of a library; calls keep their arguments, statuses become errors. */
export function bindNative(symbols: Symbols): Native {
  const methods: Record<string, unknown> = {};
  for (
    const [name, symbol] of Object.entries(symbols) as [AbiName, (...args: unknown[]) => number | Promise<number>][]
  ) {
    const fail = (status: number, args: unknown[]) => {
      const ctx = (args[0] ?? null) as Deno.PointerValue;
      const isContext = ctx === null || !ArrayBuffer.isView(ctx);
      throw new NativeError(name, status, isContext ? errorText(symbols, ctx) : errorText(symbols, null));
    };
    methods[name.slice("nc_".length)] = (...args: unknown[]) => {
      const status = symbol(...args);
      if (typeof status === "number") {
        if (status !== STATUS.OK) fail(status, args);
        return;
      }
      return status.then((code) => {
        if (code !== STATUS.OK) fail(code, args);
      });
    };
  }
  return methods as unknown as Native;
}

/** Reads an address that a native function wrote into `out[0]`. */
export function pointerFrom(out: BigUint64Array): Deno.PointerObject {
  const pointer = Deno.UnsafePointer.create(out[0]);
  if (pointer === null) throw new Error("Cannot use a native handle: it is null, expected an address");
  return pointer;
}
