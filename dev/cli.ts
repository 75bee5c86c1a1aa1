/** Runs the program as users type it, for the command-line tests. */
import { join } from "@std/path";
import { type Child, type Ended, runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { programFile } from "../src/native/installation.ts";

/** What is tested: the wrapper script of this checkout, or the single file where NANOCHAT_EXE names it. */
export const SCRIPT = programFile();

/** Home folder of the single file in tests; empty when their tier starts. */
export const TEST_HOME = join(ROOT, "dist", "home");

/** The whole environment of the single file in tests: none of ours, and no program on PATH. */
export const EMPTY_ENVIRONMENT = { HOME: TEST_HOME, PATH: "/nonexistent", NO_COLOR: "1" };

/** How a call differs from typing the command in this folder. */
export interface CallOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  readonly script?: string;
  readonly stdin?: string;
  readonly deadlineMs?: number;
  readonly onOutput?: Child["onOutput"];
}

/** Runs `nanochat ARGS` and waits for its end; one minute unless told otherwise. */
export function nanochat(args: readonly string[], options: CallOptions = {}): Promise<Ended> {
  const { cwd, script = SCRIPT, stdin, deadlineMs = 60_000, onOutput } = options;
  if (Deno.env.has("NANOCHAT_EXE")) {
    const env = { ...EMPTY_ENVIRONMENT, ...options.env };
    return runChild({ command: script, args, cwd, stdin, deadlineMs, onOutput, env, clearEnv: true });
  }
  // The wrapper looks for deno on PATH; in a test it is the one that runs the test.
  const PATH = `${join(Deno.execPath(), "..")}:${Deno.env.get("PATH")}`;
  const env = { PATH, NO_COLOR: "1", ...options.env };
  return runChild({ command: script, args, cwd, stdin, deadlineMs, onOutput, env });
}

/** Makes a folder, with a space in its name, for the time of a test. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "nanochat cli " });
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
