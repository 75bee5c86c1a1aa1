/**
 * Writes `kernels_cu/nanochat.h` and `ffi/src/abi.rs` from `src/native/abi.ts`; with `--check` only compares and fails on a difference.
 */
import {
  abi,
  ABI_VERSION,
  type AbiRow,
  ADAMW_HYPER,
  type ArgKind,
  COMM,
  DTYPE,
  DTYPE_BYTES,
  EPILOGUE,
  LAYOUT,
  MUON_HYPER,
  PACK,
  STATUS,
} from "../src/native/abi.ts";
import { splitArg } from "../src/native/ffi_types.ts";
import { abiHash } from "../src/native/load.ts";

const NOTE = "Generated from src/native/abi.ts by dev/gen_abi.ts; do not edit.";
const C: Record<ArgKind, string> = {
  ptr: "void*",
  buf: "void*",
  i32: "int32_t",
  i64: "int64_t",
  u64: "uint64_t",
  f32: "float",
  f64: "double",
};
const RUST: Record<ArgKind, string> = {
  ptr: "*mut c_void",
  buf: "*mut u8",
  i32: "i32",
  i64: "i64",
  u64: "u64",
  f32: "f32",
  f64: "f64",
};
const rows = Object.entries(abi as Record<string, AbiRow>);
const enums: [string, Record<string, number>][] = [
  ["DTYPE", DTYPE],
  ["STATUS", STATUS],
  ["LAYOUT", LAYOUT],
  ["PACK", PACK],
  ["EPILOGUE", EPILOGUE],
  ["ADAMW", ADAMW_HYPER],
  ["MUON", MUON_HYPER],
  ["COMM", COMM],
];

function upperSnake(name: string): string {
  return name.replace(/([a-z])([A-Z])/g, "$1_$2").toUpperCase();
}

/** The C header that every CUDA file includes. */
function header(): string {
  const constants = enums.flatMap(([prefix, values]) =>
    Object.entries(values).map(([name, value]) => `#define NC_${prefix}_${upperSnake(name)} ${value}`)
  );
  const functions = rows.filter(([_, row]) => row.lib !== "cpu").map(([name, row]) => {
    const args = row.args.map(splitArg).map(({ name, kind }) =>
      name === "ctx" ? "nc_context* ctx" : `${C[kind]} ${name}`
    );
    return `/* ${row.doc} */\nNC_API int32_t ${name}(${args.join(", ")});`;
  });
  return `/* ${NOTE} */
#pragma once
#include <stdint.h>

#define NC_ABI_VERSION ${ABI_VERSION}
#define NC_ABI_HASH "${abiHash()}"
${constants.join("\n")}

#ifdef __cplusplus
extern "C" {
#endif
#define NC_API __attribute__((visibility("default")))
typedef struct nc_context nc_context;

${functions.join("\n\n")}

#ifdef __cplusplus
}
#endif
`;
}

/** The Rust constants, and one check per function that its definition has the signature of its row. */
function rust(): string {
  const constants = enums.flatMap(([prefix, values]) =>
    Object.entries(values).map(([name, value]) => `pub const ${prefix}_${upperSnake(name)}: i32 = ${value};`)
  );
  const sizes = Object.values(DTYPE_BYTES).join(", ");
  const checks = rows.map(([name, row]) => {
    const args = row.args.map(splitArg).map(({ name, kind }) => name === "ctx" ? "*mut Context" : RUST[kind]);
    return `const _: unsafe extern "C" fn(${args.join(", ")}) -> i32 = crate::${name};`;
  });
  return `// ${NOTE}
#![allow(dead_code)]
use crate::Context;
use std::ffi::c_void;

pub const ABI_VERSION: i32 = ${ABI_VERSION};
pub const ABI_HASH: &str = "${abiHash()}";
/// Element sizes by dtype code.
pub const DTYPE_BYTES: [usize; ${Object.keys(DTYPE_BYTES).length}] = [${sizes}];
${constants.join("\n")}

${checks.join("\n")}
`;
}

async function rustfmt(text: string): Promise<string> {
  const child = new Deno.Command("rustfmt", {
    args: ["--edition", "2024"],
    cwd: new URL("../ffi", import.meta.url), // where rustfmt.toml lies
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  const { code, stdout } = await child.output();
  if (code !== 0) {
    throw new Error(
      `Cannot format ffi/src/abi.rs: rustfmt ended with ${code}, expected 0; run "rustup component add rustfmt"`,
    );
  }
  return new TextDecoder().decode(stdout);
}

const outputs: [string, string][] = [["kernels_cu/nanochat.h", header()], ["ffi/src/abi.rs", await rustfmt(rust())]];
let stale = 0;
for (const [file, text] of outputs) {
  const path = new URL(`../${file}`, import.meta.url);
  if (Deno.args.includes("--check")) {
    const found = await Deno.readTextFile(path).catch(() => "");
    if (found !== text) {
      console.error(`${file} differs from src/native/abi.ts; run "deno task gen"`);
      stale++;
    }
  } else {
    await Deno.writeTextFile(path, text);
  }
}
Deno.exit(stale === 0 ? 0 : 1);
