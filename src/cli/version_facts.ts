/** What the program is, beyond its version: commit, interface, file formats. */
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { FORMATS } from "../data/formats.ts";
import { CHECKOUT, packedCommit } from "../native/installation.ts";
import { abiHash } from "../native/load.ts";
import { type Program, readCommit } from "../report/environment.ts";
import config from "../../deno.json" with { type: "json" };
import { VERSION } from "./version.ts";

/** Describes the program for a report: its version and, in a checkout, the folder of its sources. */
export function thisProgram(): Program {
  const isCheckout = CHECKOUT !== undefined && existsSync(join(CHECKOUT, ".git"));
  return { version: VERSION, checkout: isCheckout ? CHECKOUT : undefined };
}

/** What `--version --json` tells: what must agree where programs exchange files or load a library. */
export function versionFacts(): Record<string, unknown> {
  return {
    version: config.version,
    commit: CHECKOUT === undefined ? packedCommit() : readCommit(CHECKOUT),
    abi: abiHash(),
    formats: Object.fromEntries(Object.values(FORMATS).map(({ format, version }) => [format, version])),
    deno: Deno.version.deno,
    target: Deno.build.target,
  };
}
