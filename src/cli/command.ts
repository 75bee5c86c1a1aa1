/** What a command is: a row of the table in `commands.ts`, typed by its flags. */
import type { Flag, FlagTable, Values } from "./flags.ts";
import { bool, string } from "./flags.ts";
import type { Setting } from "./parse.ts";
import type { Terminal } from "./progress.ts";

/** Flags that every command takes. */
export const COMMON_FLAGS = {
  "base-dir": string(undefined, {
    help: "folder of data, tokenizers, checkpoints and runs; without it ~/.cache/nanochat",
  }),
  config: string(undefined, {
    help:
      "file of key = value lines; later ones win; where a command takes no other arguments a bare path does the same",
  }),
  json: bool(false, { help: "results and messages as one JSON object a line" }),
  quiet: bool(false, { help: "no messages and no progress; warnings stay", short: "q" }),
  verbose: bool(false, { help: "more detail, such as the stack of an error" }),
  "print-config": bool(false, { help: "shows every value with its origin, in the form of a config file, and ends" }),
  help: bool(false, { help: "shows this text", short: "h" }),
} as const satisfies FlagTable;

/** A positional argument, shown as NAME, [NAME] or NAME... in the help. */
export interface Positional {
  readonly name: string;
  readonly help: string;
  readonly optional?: boolean;
  /** Takes one or more. */
  readonly many?: boolean;
  /** What shells offer; without it the names of files. */
  readonly words?: readonly string[];
}

/** What a command's code is given. */
export interface Invocation<F extends FlagTable> {
  readonly values: Values<F & typeof COMMON_FLAGS>;
  readonly positional: readonly string[];
  /** Values with their origins, by flag name; what a run records. */
  readonly settings: ReadonlyMap<string, Setting>;
  readonly terminal: Terminal;
  /** Aborts when the user asks to stop: where the command is `stoppable`, or a stage of a recipe. */
  readonly stop: AbortSignal;
}

/** A row of the table of commands. */
export interface Command<F extends FlagTable = FlagTable> {
  /** One or two words. */
  readonly name: string;
  /** One line: what it does. */
  readonly summary: string;
  /** A few lines below the summary in the help. */
  readonly details?: string;
  readonly positional?: readonly Positional[];
  readonly flags: F;
  /** At the first signal the command ends by itself after saving, with exit code 75. */
  readonly stoppable?: boolean;
  /** Does the work; returns the exit code, nothing for 0. */
  run(invocation: Invocation<F>): Promise<number | void>;
}

/** Declares a command with the types of its flags; the table holds rows of all types. */
export function command<F extends FlagTable>(row: Command<F>): Command {
  return row as unknown as Command;
}

/** All flags of a command, its own first. */
export function allFlags(row: Command): Readonly<Record<string, Flag>> {
  return { ...row.flags, ...COMMON_FLAGS };
}

/** Whether the environment asks for a table of the time by op (`NC_PROFILE=1`). */
export function wantsProfile(): boolean {
  return Deno.env.get("NC_PROFILE") === "1";
}
