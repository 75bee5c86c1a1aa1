/** The program's version, from deno.json. */
import { existsSync } from "node:fs";
import { join } from "@std/path";
import type { Program } from "../report/environment.ts";
import config from "../../deno.json" with { type: "json" };

/** `nanochat 0.1.0 (deno 2.9.6, x86_64-unknown-linux-gnu)`. */
export const VERSION = `nanochat ${config.version} (deno ${Deno.version.deno}, ${Deno.build.target})`;

/** Describes the program for a report: its version and, in a checkout, the folder of its sources. */
export function thisProgram(): Program {
  const root = join(import.meta.dirname ?? "/", "..", "..");
  return { version: VERSION, checkout: existsSync(join(root, ".git")) ? root : undefined };
}
