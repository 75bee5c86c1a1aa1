/** `nanochat licenses`: the parts of the program by others, and the texts that they come with. */
import { nearest } from "./parse.ts";
import type { Terminal } from "./progress.ts";
import thirdParty from "./third_party.json" with { type: "json" };

/** A part by others; equal texts are shared. */
interface Part {
  readonly kind: string;
  readonly name: string;
  readonly version?: string;
  readonly license: string;
  readonly texts: readonly number[];
}

const TITLES: Readonly<Record<string, string>> = {
  runtime: "What the program runs on",
  npm: "Packages of npm",
  python: "In Pyodide, which runs the programs of models",
  crate: "Crates in the native library and in the launcher of the single file",
};

/**
 * Lists the parts; with `name` or `texts` shows the texts of one or of all instead.
 *
 * @throws {RangeError} for a name that no part has.
 */
export function showLicenses(name: string | undefined, options: { texts: boolean; terminal: Terminal }): void {
  const { texts, terminal } = options;
  const all: readonly Part[] = thirdParty.parts;
  const parts = all.filter((part) => name === undefined || part.name === name);
  if (parts.length === 0) {
    const hint = nearest(name!, all.map((part) => part.name));
    throw new RangeError(`Cannot show the licence of ${JSON.stringify(name)}: no part has that name${hint}`);
  }
  const rows = parts.map((part) => ({ ...part, texts: part.texts.map((i) => thirdParty.texts[i]) }));
  const text = name !== undefined || texts
    ? rows.map((row) => [`${line(row)}\n`, ...row.texts].join("\n")).join(`\n\n${"=".repeat(80)}\n\n`)
    : Object.entries(TITLES).map(([kind, title]) => [title, ...rows.filter((row) => row.kind === kind).map(line)])
      .map(([title, ...lines]) => `${title}\n${lines.map((each) => `  ${each}`).join("\n")}`).join("\n\n") +
      '\n\n"nanochat licenses NAME" shows the text of a part, "nanochat licenses --texts" all of them.';
  terminal.result(text, { parts: rows });
}

function line({ name, version = "", license }: Pick<Part, "name" | "version" | "license">): string {
  return `${name.padEnd(20)} ${version.padEnd(18)} ${license}`;
}
