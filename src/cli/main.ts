/** The program: argv to command to exit code. Wrong usage is 2, a failure 1; one clear line each, a stack only with `--verbose`. */
import { SandboxError } from "../engine/sandbox/denials.ts";
import { CheckpointError } from "../model/checkpoint_error.ts";
import { allFlags, type Command, type COMMON_FLAGS, type Invocation } from "./command.ts";
import { formatConfigValue } from "./config_file.ts";
import { type FlagTable, UsageError, type Values } from "./flags.ts";
import { commandHelp, programHelp } from "./help.ts";
import { plainOsError } from "./os_error.ts";
import { nearest, parse, type Parsed, unknownVariables, valuesOf } from "./parse.ts";
import { chooseColors, standardSinks, Terminal } from "./progress.ts";
import { EXIT, listenForStop } from "./signals.ts";
import { VERSION } from "./version.ts";

/** What the program needs from outside. */
export interface Program {
  readonly commands: readonly Command[];
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Runs the program; returns its exit code. */
export async function main({ commands, args, env }: Program): Promise<number> {
  const { out, err } = standardSinks();
  chooseColors(env, out.isTerminal() && err.isTerminal());
  let terminal = new Terminal({ json: false, quiet: false, verbose: args.includes("--verbose"), out, err });
  let helpOf = "nanochat --help";
  try {
    const first = args[0];
    if (first === undefined) {
      return printed(terminal, (await import("./next_step.ts")).nextStep(env.NANOCHAT_BASE_DIR));
    }
    if (first === "--version") return await version(args.slice(1), { out, err });
    if (first === "--help" || first === "-h" || (first === "help" && args.length === 1)) {
      return printed(terminal, programHelp(commands));
    }
    const words = first === "help" ? args.slice(1) : args;
    const { row, rest } = findCommand(commands, words);
    helpOf = `nanochat ${row.name} --help`;
    if (first === "help" || rest.includes("--help") || rest.includes("-h")) {
      return printed(terminal, commandHelp(row));
    }
    const parsed = parse({
      flags: allFlags(row),
      args: rest,
      env,
      takesPositional: row.positional !== undefined,
      readFile: Deno.readTextFileSync,
    });
    checkPositional(row, parsed.positional);
    const values = valuesOf(parsed.settings) as Values<typeof COMMON_FLAGS>;
    terminal = new Terminal({ json: values.json, quiet: values.quiet, verbose: values.verbose, out, err });
    const names = commands.flatMap((each) =>
      Object.entries(allFlags(each)).flatMap(([n, f]) => [n, ...f.aliases ?? []])
    );
    for (const warning of unknownVariables(env, names)) terminal.warn(warning);
    if (values.printConfig) return printed(terminal, printedConfig(row, parsed));
    return await run(row, { values, positional: parsed.positional, settings: parsed.settings, terminal });
  } catch (error) {
    const { message: given, stack } = error instanceof Error ? error : new Error(String(error));
    const message = plainOsError(given);
    const isUsage = error instanceof UsageError;
    terminal.error(isUsage ? `${message}\nSee "${helpOf}"` : message, stack);
    const isRefusal = error instanceof SandboxError ||
      (error instanceof CheckpointError && ["exists", "locked", "unsafe"].includes(error.problem));
    return isUsage ? EXIT.USAGE : isRefusal ? EXIT.REFUSED : EXIT.FAILED;
  }
}

async function version(args: readonly string[], sinks: ReturnType<typeof standardSinks>): Promise<number> {
  const other = args.find((arg) => arg !== "--json");
  if (other !== undefined) {
    throw new UsageError(`Cannot read ${JSON.stringify(other)} behind --version: expected nothing or --json`);
  }
  const json = args.includes("--json");
  const facts = json ? (await import("./version_facts.ts")).versionFacts() : undefined;
  new Terminal({ json, quiet: false, verbose: false, ...sinks }).result(VERSION, facts);
  return EXIT.DONE;
}

function printed(terminal: Terminal, text: string): number {
  terminal.result(text);
  return EXIT.DONE;
}

async function run(row: Command, invocation: Omit<Invocation<FlagTable>, "stop">): Promise<number> {
  if (!row.stoppable) {
    return (await row.run({ ...invocation, stop: new AbortController().signal })) ?? EXIT.DONE;
  }
  const { terminal } = invocation;
  using stop = listenForStop({
    first: () => terminal.warn("Stopping after this step; a second Ctrl-C stops at once, without saving"),
    second: () => Deno.exit(EXIT.STOPPED_AT_ONCE),
  });
  return (await row.run({ ...invocation, stop: stop.signal })) ?? EXIT.DONE;
}

/**
 * Finds the command that the first one or two words name.
 *
 * @throws {UsageError} with the nearest command, or the list of commands that start with the first word.
 */
export function findCommand(commands: readonly Command[], words: readonly string[]): { row: Command; rest: string[] } {
  for (const count of [2, 1]) {
    const row = commands.find(({ name }) => name === words.slice(0, count).join(" "));
    if (row) return { row, rest: words.slice(count) };
  }
  const group = commands.filter(({ name }) => name.startsWith(`${words[0]} `)).map(({ name }) => name);
  if (group.length > 0) {
    const given = words[1] === undefined || words[1].startsWith("-") ? "no action" : JSON.stringify(words[1]);
    const list = group.map((name) => `"nanochat ${name}"`).join(", ");
    throw new UsageError(`Cannot run "nanochat ${words[0]}": ${given}, expected ${list}`);
  }
  if (words[0].startsWith("-")) {
    throw new UsageError(`Cannot read ${words[0]}: flags follow the command, expected "nanochat COMMAND ${words[0]}"`);
  }
  const names = commands.flatMap(({ name }) => [name, name.split(" ")[0]]);
  throw new UsageError(`Cannot run ${JSON.stringify(words[0])}: no such command${nearest(words[0], names)}`);
}

function checkPositional(row: Command, given: readonly string[]): void {
  const wanted = row.positional ?? [];
  const least = wanted.filter(({ optional }) => !optional).length;
  if (given.length < least) {
    const { name, help } = wanted[given.length];
    throw new UsageError(`Cannot run "nanochat ${row.name}": ${name} is missing, expected ${help}`);
  }
  if (given.length > wanted.length && row.positional && !wanted.at(-1)?.many) {
    throw new UsageError(
      `Cannot run "nanochat ${row.name}": ${JSON.stringify(given[wanted.length])} is one argument too many, expected ${
        wanted.length === 0 ? "none" : `only ${wanted.map(({ name }) => name).join(" ")}`
      }`,
    );
  }
}

/** The values of all flags as a config file, each with its origin. */
export function printedConfig(row: Command, { settings }: Parsed): string {
  const secrets = Object.entries(row.flags).flatMap(([name, flag]) => flag.secret ? [name] : []);
  const leftOut = new Set(["config", "help", "print-config", ...secrets]);
  const lines = [...settings].filter(([name]) => !leftOut.has(name)).map(([name, { value, origin }]) => {
    const line = value === undefined ? `# ${name} is not set` : `${name} = ${formatConfigValue(value)}`;
    return value === undefined ? line : `${line.padEnd(40)} # ${origin}`;
  });
  return [`# nanochat ${row.name}`, ...lines].join("\n");
}
