/** Derives `Deno.dlopen` symbol types from the rows of abi.ts with template literal types, so that a wrong argument does not type-check. */
import type { AbiRow, ArgKind } from "./abi.ts";

interface KindToFfi {
  ptr: "pointer";
  buf: "buffer";
  i32: "i32";
  i64: "i64";
  u64: "u64";
  f32: "f32";
  f64: "f64";
}

type FfiArg<A extends string> = A extends `${string}: ${infer K extends ArgKind}` ? KindToFfi[K] : never;
type FfiArgs<A extends readonly string[]> = { readonly [I in keyof A]: FfiArg<A[I]> };

/** The foreign function that a row describes. */
export interface FfiSymbol<R extends AbiRow> {
  readonly parameters: FfiArgs<R["args"]>;
  readonly result: "i32";
  readonly nonblocking: R extends { nonblocking: true } ? true : false;
}

interface KindToJs {
  ptr: Deno.PointerValue;
  buf: BufferSource | null;
  i32: number;
  i64: bigint;
  u64: bigint;
  f32: number;
  f64: number;
}

type JsArg<A extends string> = A extends `${infer N}: ${infer K extends ArgKind}`
  ? (N extends "ctx" ? Deno.PointerValue : KindToJs[K])
  : never;

/** The JavaScript arguments of a row. */
export type JsArgs<A extends readonly string[]> = { -readonly [I in keyof A]: JsArg<A[I]> };

const KIND: KindToFfi = { ptr: "pointer", buf: "buffer", i32: "i32", i64: "i64", u64: "u64", f32: "f32", f64: "f64" };

/** Splits "name: kind". */
export function splitArg(arg: string): { name: string; kind: ArgKind } {
  const [name, kind] = arg.split(": ");
  return { name, kind: kind as ArgKind };
}

/** Builds the `Deno.dlopen` table of the given rows. */
export function ffiSymbols<T extends Record<string, AbiRow>>(rows: T): { [K in keyof T]: FfiSymbol<T[K]> } {
  const symbols: Record<string, unknown> = {};
  for (const [name, row] of Object.entries(rows)) {
    const parameters = row.args.map((arg) => KIND[splitArg(arg).kind]);
    symbols[name] = { parameters, result: "i32", nonblocking: row.nonblocking ?? false };
  }
  return symbols as { [K in keyof T]: FfiSymbol<T[K]> };
}
