/**
 * Opens and checks a native library. The only file that calls `Deno.dlopen`.
 */
import { createHash } from "node:crypto";
import {
  abi,
  ABI_VERSION,
  ADAMW_HYPER,
  COMM,
  DTYPE,
  DTYPE_BYTES,
  EPILOGUE,
  LAYOUT,
  MUON_HYPER,
  PACK,
  STATUS,
} from "./abi.ts";
import type { AbiRow } from "./abi.ts";
import { ffiSymbols } from "./ffi_types.ts";
import { assetPath, CHECKOUT } from "./installation.ts";

/** Which implementation of the C interface: the Rust library, the CUDA library, or the CUDA sources emulated on the CPU. */
export type LibraryKind = "cpu" | "cuda" | "cuda_emu";

/** The raw foreign functions of an opened library. */
export type Symbols = Deno.DynamicLibrary<ReturnType<typeof ffiSymbols<typeof abi>>>["symbols"];

const REPAIR: Record<LibraryKind, string> = {
  cpu: CHECKOUT ? 'run "deno task build:cpu"' : "start nanochat again, which unpacks it",
  cuda: CHECKOUT
    ? 'run "deno task build:cuda", or choose --device-type=cpu'
    : "this file is the variant for the CPU: choose --device-type=cpu",
  cuda_emu: 'run "deno task build:cuda-emu"',
};

/** Hash of everything that both sides of the interface must agree on: 32 hex digits. */
export function abiHash(): string {
  const constants = { ABI_VERSION, ADAMW_HYPER, COMM, DTYPE, DTYPE_BYTES, EPILOGUE, LAYOUT, MUON_HYPER, PACK, STATUS };
  const rows = Object.entries(abi as Record<string, AbiRow>).map((
    [name, row],
  ) => [name, row.args, row.nonblocking ?? false]);
  return createHash("sha256").update(JSON.stringify([constants, rows])).digest("hex").slice(0, 32);
}

/** Path of a library, there or not. NC_CUDA_EMU=1 puts the emulation in the place of the library for cards. */
function libraryPath(kind: LibraryKind): string {
  return assetPath(kind === "cuda" && Deno.env.get("NC_CUDA_EMU") === "1" ? "cuda_emu" : kind);
}

/** Gives the file that `openLibrary` would open; undefined where there is none. */
export function findLibrary(kind: LibraryKind): string | undefined {
  const path = libraryPath(kind);
  return isFile(path) ? path : undefined;
}

const opened = new Map<LibraryKind, Symbols>();

/**
 * Opens a native library once and returns its functions.
 *
 * @throws {Error} where no file is found (with the repair) or the library was built from another interface.
 */
export function openLibrary(kind: LibraryKind): Symbols {
  const known = opened.get(kind);
  if (known) return known;
  const path = findLibrary(kind);
  if (path === undefined) {
    throw new Error(`Cannot open the library "${kind}": not found at ${libraryPath(kind)}; ${REPAIR[kind]}`);
  }
  const rows = Object.fromEntries(
    Object.entries(abi as Record<string, AbiRow>).filter(([_, row]) => kind === "cpu" || row.lib !== "cpu"),
  ) as typeof abi;
  const symbols = openFile(path, kind, rows);
  opened.set(kind, symbols);
  return symbols;
}

function openFile(path: string, kind: LibraryKind, rows: typeof abi): Symbols {
  try {
    // The hash is compared before the whole table is bound, so that a stale library is named as such and not by a missing symbol.
    const probe = Deno.dlopen(path, ffiSymbols({ nc_abi_hash: abi.nc_abi_hash }));
    const text = new Uint8Array(32);
    probe.symbols.nc_abi_hash(text);
    probe.close();
    const found = new TextDecoder().decode(text);
    if (found !== abiHash()) {
      throw new Error(`its interface is ${found}, expected ${abiHash()}; ${REPAIR[kind]}`);
    }
    return Deno.dlopen(path, ffiSymbols(rows)).symbols as Symbols;
  } catch (cause) {
    throw new Error(`Cannot open ${path}: ${(cause as Error).message}`, { cause });
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
