/**
 * What a flag is: declared once, and parsing, help and the README table follow from the declaration.
 *
 * A command's flags are one object, `{ depth: int(20, {...}), "device-batch-size": int(32, {...}) }`; its values arrive typed and in camel
 * case: `{ depth: number; deviceBatchSize: number }`.
 */

/** How the text of a value is read. Durations are seconds; `90`, `90s`, `10m`, `2h` and `500ms` are understood. */
export type FlagType = "int" | "float" | "bool" | "string" | "enum" | "duration";

/** A converted value. */
export type FlagValue = number | string | boolean;

/** Everything about a flag but its name, which is its key in the table. */
export interface Flag<T extends FlagValue | undefined = FlagValue | undefined> {
  readonly type: FlagType;
  /** Value where nothing sets the flag; undefined = decided by the command. */
  readonly default: T;
  readonly help: string;
  /** Unit of a number, shown in the help: "tokens". */
  readonly unit?: string;
  /** The accepted words of an enum. */
  readonly values?: readonly string[];
  /** Other long names. */
  readonly aliases?: readonly string[];
  /** Value of the flag alone, without `=`; it then never takes the next argument. */
  readonly bare?: string;
  /** One letter. */
  readonly short?: string;
  /** Never taken from the command line, which every user of a machine can read, and never shown. */
  readonly secret?: true;
  /** Given several times, the texts are joined by commas; otherwise the last one counts. */
  readonly many?: boolean;
  /** Further environment variables that set it, beside `NANOCHAT_<FLAG>`. */
  readonly env?: readonly string[];
  /** Returns what was expected, "at least 1", where the value is not acceptable. */
  check?(value: FlagValue): string | undefined;
}

/** The flags of a command by name (lower case, dashes). */
export type FlagTable = Readonly<Record<string, Flag>>;

type Camel<S extends string> = S extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : S;

/** The values of a table of flags, keys in camel case. */
export type Values<F extends FlagTable> = { readonly [K in keyof F & string as Camel<K>]: F[K]["default"] };

/** Optional parts of a flag's declaration. */
export type FlagOptions = Omit<Flag, "type" | "default">;

/** Declares a whole number. */
export function int<D extends number | undefined>(value: D, options: FlagOptions): Flag<Widen<D>> {
  return { type: "int", default: value as Widen<D>, ...options };
}

/** Declares a number. */
export function float<D extends number | undefined>(value: D, options: FlagOptions): Flag<Widen<D>> {
  return { type: "float", default: value as Widen<D>, ...options };
}

/** Declares a length of time, in seconds. */
export function duration<D extends number | undefined>(value: D, options: FlagOptions): Flag<Widen<D>> {
  return { type: "duration", default: value as Widen<D>, unit: "s", ...options };
}

/** Declares a switch: `--name`, `--no-name` or `--name=false`. */
export function bool(value: boolean, options: FlagOptions): Flag<boolean> {
  return { type: "bool", default: value, ...options };
}

/** Declares a text. */
export function string<D extends string | undefined>(value: D, options: FlagOptions): Flag<Widen<D>> {
  return { type: "string", default: value as Widen<D>, ...options };
}

/** Declares a choice among words. */
export function oneOf<const V extends readonly string[]>(
  values: V,
  options: FlagOptions & { default: V[number] },
): Flag<V[number]> {
  return { type: "enum", values, ...options };
}

type Widen<D> = D extends number ? number : D extends string ? string : D;

/** Makes a check that a number is not below a bound. */
export function atLeast(bound: number): (value: FlagValue) => string | undefined {
  return (value) => (value as number) >= bound ? undefined : `at least ${bound}`;
}

/** Makes a check that a number is positive, or -1 for "not set". */
export function positiveOrOff(value: FlagValue): string | undefined {
  return value === -1 || (value as number) > 0 ? undefined : "a positive number, or -1 for off";
}

/** Makes a check that a number lies in a closed interval. */
export function between(low: number, high: number): (value: FlagValue) => string | undefined {
  return (value) => (value as number) >= low && (value as number) <= high ? undefined : `from ${low} to ${high}`;
}

/** Wrong usage of the command line: exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

const NUMBER = /^[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)(e[+-]?\d+)?$/i;
const SECONDS = { ms: 1e-3, s: 1, m: 60, h: 3600 };

function toNumber(text: string): number | undefined {
  if (!NUMBER.test(text)) return undefined;
  const value = Number(text.replaceAll("_", ""));
  return Number.isFinite(value) ? value : undefined;
}

function toDuration(text: string): number | undefined {
  const [_, number, unit] = /^(.*?)(ms|s|m|h)?$/.exec(text)!;
  const value = toNumber(number);
  return value === undefined || value < 0 ? undefined : value * SECONDS[(unit ?? "s") as keyof typeof SECONDS];
}

function toBool(text: string): boolean | undefined {
  const word = text.toLowerCase();
  return word === "true" || word === "1" ? true : word === "false" || word === "0" ? false : undefined;
}

function convert(flag: Flag, text: string): FlagValue | undefined {
  switch (flag.type) {
    case "int": {
      const value = toNumber(text);
      return value !== undefined && Number.isSafeInteger(value) ? value + 0 : undefined;
    }
    case "float":
      return toNumber(text);
    case "duration":
      return toDuration(text);
    case "bool":
      return toBool(text);
    case "enum":
      return flag.values!.includes(text) ? text : undefined;
    case "string":
      return text;
  }
}

/** Says what a value of the flag looks like: "a whole number". */
export function expectation(flag: Flag): string {
  switch (flag.type) {
    case "int":
      return "a whole number";
    case "float":
      return "a number";
    case "duration":
      return "a length of time such as 90s, 10m or 2h";
    case "bool":
      return "true or false";
    case "enum":
      return flag.values!.filter((value) => value !== "").map((value) => JSON.stringify(value)).join(" or ");
    case "string":
      return "a text";
  }
}

/**
 * Converts the text of a value without loss: `20` is a float, `1e3` a whole number, `20.5` is not.
 *
 * @throws {UsageError} naming `where` (`--depth`, `run.conf:3: depth`), the text and what was expected.
 */
export function convertFlag(flag: Flag, text: string, { where }: { where: string }): FlagValue {
  const value = convert(flag, text);
  const expected = value === undefined ? expectation(flag) : flag.check?.(value);
  if (value === undefined || expected !== undefined) {
    throw new UsageError(`Cannot read ${where}: ${JSON.stringify(text)}, expected ${expected}`);
  }
  return value;
}

/** Name of the environment variable of a flag. */
export function envName(flag: string): string {
  return `NANOCHAT_${flag.toUpperCase().replaceAll("-", "_")}`;
}

/** Turns `device-batch-size` into `deviceBatchSize`. */
export function camelCase(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
