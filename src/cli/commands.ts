/**
 * The table of commands: parsing, `--help` and the tables of the README come from it. A new command is one row here.
 *
 * A row's code is imported when the command runs, so that `--help` costs nothing.
 */
import type { Command } from "./command.ts";

/** All commands, in the order of the help. */
export const COMMANDS: readonly Command[] = [];
