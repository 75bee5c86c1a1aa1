/**
 * From argv, environment and config files to the values of one command.
 *
 * Order: defaults < files < environment < flags, later ones win. Every value keeps its origin, so that `--print-config` can show it and
 * an error can name the place. Nothing here prints or exits; wrong usage throws `UsageError`.
 */
import { parseArgs } from "@std/cli/parse-args";
import { closestString } from "@std/text/closest-string";
import { parseConfig } from "./config_file.ts";
import { camelCase, convertFlag, envName, type FlagTable, type FlagValue, UsageError } from "./flags.ts";

/** A value and where it came from: "default", "run.conf:3", "NANOCHAT_DEPTH" or "--depth". */
export interface Setting {
  readonly value: FlagValue | undefined;
  readonly origin: string;
}

/** What a command line asks for. */
export interface Parsed {
  /** By flag name, in the order of the table. */
  readonly settings: ReadonlyMap<string, Setting>;
  readonly positional: readonly string[];
}

/** Where values come from. */
export interface Sources {
  readonly flags: FlagTable;
  /** Arguments after the command's name. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** True where the command takes positional arguments; without them a bare argument is a config file. */
  readonly takesPositional: boolean;
  /** Reads a config file. */
  readonly readFile: (path: string) => string;
}

/** `NANOCHAT_*` variables that are no flags. */
const NOT_FLAGS = new Set(
  "BASE_DIR CACHE EXE GOLDEN DATA TEST_SEED CUBLASLT NCCL MPIEXEC MASTER_PORT SECRET CPU_ISA CI".split(" ")
    .map((name) => `NANOCHAT_${name}`),
);

/** Adds the nearest known name to a message, where one is near enough to be a slip of the finger. */
export function nearest(word: string, known: readonly string[]): string {
  const candidate = known.length > 0 ? closestString(word, known) : "";
  return candidate !== "" && distance(word, candidate) <= Math.max(2, word.length / 3)
    ? `; did you mean "${candidate}"?`
    : "";
}

function distance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    previous = row;
  }
  return previous[b.length];
}

/** Maps every accepted spelling of a flag to its name. */
function spellings(flags: FlagTable): { long: Map<string, string>; short: Map<string, string> } {
  const long = new Map<string, string>();
  const short = new Map<string, string>();
  for (const [name, flag] of Object.entries(flags)) {
    for (const spelling of [name, ...(flag.aliases ?? [])]) long.set(spelling.toLowerCase(), name);
    if (flag.short) short.set(flag.short, name);
  }
  return { long, short };
}

/** Rewrites argv so that each flag reads `--name=text`: then `=` in a value, negative numbers and underscores are beyond doubt. */
function normalize(args: readonly string[], flags: FlagTable): string[] {
  const { long, short } = spellings(flags);
  const known = [...long.keys()].map((name) => `--${name}`);
  const normal: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--") return [...normal, ...args.slice(i)];
    if (!arg.startsWith("-") || arg === "-") {
      normal.push(arg);
      continue;
    }
    const equals = arg.indexOf("=");
    const spelled = equals < 0 ? arg : arg.slice(0, equals);
    let text = equals < 0 ? undefined : arg.slice(equals + 1);
    const word = spelled.replace(/^--?/, "").replaceAll("_", "-");
    let name = spelled.startsWith("--") ? long.get(word.toLowerCase()) : short.get(word);
    if (name === undefined && text === undefined && spelled.startsWith("--no-")) {
      const negated = long.get(word.toLowerCase().slice("no-".length));
      if (negated !== undefined && flags[negated].type === "bool") {
        name = negated;
        text = "false";
      }
    }
    if (name === undefined) {
      throw new UsageError(`Cannot read ${spelled}: no such flag${nearest(`--${word}`, known)}`);
    }
    if (flags[name].secret) {
      throw new UsageError(
        `Cannot take ${spelled} from the command line: every user of this machine can read it there, expected ` +
          `${envName(name)} or --${name}-file`,
      );
    }
    text ??= flags[name].type === "bool" ? "true" : flags[name].bare;
    if (text === undefined) {
      text = args[++i];
      const isValue = text !== undefined && (!text.startsWith("-") || /^-[\d.]/.test(text) || text === "-");
      if (!isValue) throw new UsageError(`Cannot read ${spelled}: no value follows, expected ${spelled}=VALUE`);
    }
    normal.push(`--${name}=${text}`);
  }
  return normal;
}

function fromFile(path: string, sources: Sources, set: (name: string, setting: Setting) => void): void {
  const { long } = spellings(sources.flags);
  let content: string;
  try {
    content = sources.readFile(path);
  } catch (cause) {
    throw new UsageError(`Cannot read the config file ${JSON.stringify(path)}: ${(cause as Error).message}`, { cause });
  }
  for (const { key, text, line } of parseConfig(content, { file: path })) {
    const name = long.get(key);
    const origin = `${path}:${line}`;
    if (name === undefined || name === "config") {
      throw new UsageError(`Cannot read ${origin}: no setting ${JSON.stringify(key)}${nearest(key, [...long.keys()])}`);
    }
    set(name, { value: convertFlag(sources.flags[name], text, { where: `${origin}: ${key}` }), origin });
  }
}

/**
 * Merges all sources into one value for each flag.
 *
 * @throws {UsageError} for an unknown flag or key (with the nearest known one), a value of the wrong kind, an unreadable file.
 */
export function parse(sources: Sources): Parsed {
  const { flags, env } = sources;
  const args = parseArgs(normalize(sources.args, flags), {
    string: [...Object.keys(flags), "_"],
    collect: Object.keys(flags),
    "--": true,
  });
  const bare = [...args._.map(String), ...(args["--"] ?? [])];
  const settings = new Map<string, Setting>();
  for (const [name, flag] of Object.entries(flags)) settings.set(name, { value: flag.default, origin: "default" });
  const set = (name: string, setting: Setting) => void settings.set(name, setting);

  const files: string[] = "config" in flags ? [...(args.config ?? [])] : [];
  const fromEnv = "config" in flags ? env[envName("config")] : undefined;
  if (fromEnv) files.unshift(fromEnv);
  if (!sources.takesPositional) files.push(...bare);
  for (const path of files) fromFile(path, sources, set);

  for (const [name, flag] of Object.entries(flags)) {
    if (name === "config") continue;
    const names = [...(flag.env ?? []), ...(flag.aliases ?? []).map(envName), envName(name)];
    for (const variable of names) {
      const text = env[variable];
      if (text) set(name, { value: convertFlag(flag, text, { where: variable }), origin: variable });
    }
  }
  for (const [name, flag] of Object.entries(flags)) {
    const texts: string[] | undefined = args[name];
    if (name === "config" || !texts || texts.length === 0) continue;
    const where = `--${name}`;
    const text = flag.many ? texts.join(",") : texts[texts.length - 1];
    set(name, { value: convertFlag(flag, text, { where }), origin: where });
  }
  return { settings, positional: sources.takesPositional ? bare : [] };
}

/** Lists `NANOCHAT_*` variables that no command reads, one warning each. */
export function unknownVariables(env: Readonly<Record<string, string>>, flagNames: Iterable<string>): string[] {
  const known = new Set([...NOT_FLAGS, ...[...flagNames].map(envName)]);
  return Object.keys(env).filter((name) => name.startsWith("NANOCHAT_") && !known.has(name)).sort()
    .map((name) => `${name} is set, but no flag has that name${nearest(name, [...known])}`);
}

/** Turns settings into the typed object that a command receives. */
export function valuesOf(settings: ReadonlyMap<string, Setting>): Record<string, FlagValue | undefined> {
  return Object.fromEntries([...settings].map(([name, { value }]) => [camelCase(name), value]));
}
