/** Runs the command of a recipe's stage inside the program: its flags come from the recipe, what it says goes where the recipe tells. */
import { findAsset } from "../data/assets.ts";
import type { Log, Progress } from "../data/log.ts";
import type { Stage } from "../train/recipes.ts";
import type { StageCall, StageEnd } from "../train/run.ts";
import { allFlags, type Command } from "./command.ts";
import { DATA_DIR } from "./flag_sets.ts";
import { parse, valuesOf } from "./parse.ts";
import { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** A terminal that hands messages to a log and results to another terminal, and keeps the numbers of the last result. */
class StageTerminal extends Terminal {
  figures: Record<string, number> = {};
  readonly #log: Log;
  readonly #result: (text: string, object?: unknown) => void;

  constructor(log: Log, result: (text: string, object?: unknown) => void) {
    const nowhere = { write: () => {}, isTerminal: () => false, columns: () => 80 };
    super({ json: false, quiet: false, verbose: false, out: nowhere, err: nowhere });
    this.#log = log;
    this.#result = result;
  }

  override result(text: string, object?: unknown): void {
    const rows = Object.entries(object ?? {}).filter(([_, value]) => typeof value === "number");
    this.figures = Object.fromEntries(rows);
    this.#result(text, object);
  }

  override info(message: string): void {
    this.#log.info(message);
  }

  override warn(message: string): void {
    this.#log.warn(message);
  }

  override progress(state: Progress): void {
    this.#log.progress(state);
  }
}

/** What the user of a recipe gives to all its stages. */
export interface CommonOptions {
  /** Flags that a stage takes where its command has them: device, threads, types. */
  readonly flags?: Readonly<Record<string, string | number | boolean>>;
  /** Server that plays the hub; the shards lie below it in base_data/. */
  readonly baseUrl?: string;
}

/** Finds the command of a stage. @throws {Error} for one that is not in the table. */
export function findStageCommand(commands: readonly Command[], { name, command }: Stage): Command {
  const row = commands.find((each) => each.name === command);
  if (row) return row;
  throw new Error(`Cannot run stage "${name}": there is no command "nanochat ${command}"`);
}

/** Gives the arguments of a stage's command. */
export function stageArgs(
  row: Command,
  { stage, call, common = {} }: {
    stage: Stage;
    call: Pick<StageCall, "folders" | "dataDir" | "assetDir" | "isResumed">;
    common?: CommonOptions;
  },
): string[] {
  const has = (name: string) => name in row.flags;
  const flags: Record<string, string | number | boolean> = { ...stage.flags };
  for (const [name, value] of Object.entries(common.flags ?? {})) if (has(name)) flags[name] = value;
  if (common.baseUrl !== undefined && has("base-url")) {
    flags["base-url"] = stage.command === "data download" ? `${common.baseUrl}/base_data` : common.baseUrl;
  }
  if (has("data-dir") && call.dataDir !== call.folders.data) {
    flags["data-dir"] = row.flags["data-dir"] === DATA_DIR["data-dir"] ? call.dataDir : call.assetDir;
  }
  if (has("bundle") && call.assetDir !== call.folders.root) flags.bundle = findAsset(call.assetDir, "eval-bundle");
  if (has("run")) flags.run = call.folders.run!;
  if (call.isResumed && has("resume")) flags.resume = "auto";
  else if (has("overwrite")) flags.overwrite = true;
  const written = Object.entries(flags).map(([name, value]) =>
    value === true ? `--${name}` : value === false ? `--no-${name}` : `--${name}=${value}`
  );
  return [...stage.args ?? [], ...written, `--base-dir=${call.folders.root}`];
}

/** Writes a stage as it could be typed, with the folders that the recipe gives it. */
export function commandLine(row: Command, options: Parameters<typeof stageArgs>[1]): string {
  const quoted = (word: string) => /^[\w./:,=+*-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
  return [`nanochat ${row.name}`, ...stageArgs(row, options).map(quoted)].join(" ");
}

/**
 * Makes what `runRecipe` executes stages with.
 *
 * @throws {Error} for a command that is not in the table.
 */
export function stageExecutor(
  commands: readonly Command[],
  { result, common }: { result: (text: string, object?: unknown) => void; common?: CommonOptions },
): (stage: Stage, call: StageCall) => Promise<StageEnd> {
  return async (stage, call) => {
    const row = findStageCommand(commands, stage);
    const { settings, positional } = parse({
      flags: allFlags(row),
      args: stageArgs(row, { stage, call, common }),
      env: {},
      takesPositional: row.positional !== undefined,
      readFile: Deno.readTextFileSync,
    });
    const terminal = new StageTerminal(call.log, result);
    const invocation = { values: valuesOf(settings), positional, settings, terminal, stop: call.stop };
    const code = (await row.run(invocation as Parameters<Command["run"]>[0])) ?? EXIT.DONE;
    return { stopped: code === EXIT.STOPPED, figures: terminal.figures };
  };
}
