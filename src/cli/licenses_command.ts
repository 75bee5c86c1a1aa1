/** `nanochat licenses`: the parts of the program by others, and the texts that they come with. */
import { nearest } from "./parse.ts";
import type { Terminal } from "./progress.ts";
import program from "./third_party.json" with { type: "json" };
import deno from "./third_party_deno.json" with { type: "json" };

/** A part by others. */
interface Part {
  readonly kind: string;
  readonly name: string;
  readonly version?: string;
  readonly license: string;
  readonly texts: readonly string[];
}

/** A file of dev/gen_licenses.ts: equal texts are shared. */
interface Listed {
  readonly parts: readonly (Omit<Part, "texts"> & { readonly texts: readonly number[] })[];
  readonly texts: readonly string[];
}

const PARTS: readonly Part[] = ([program, deno] as Listed[]).flatMap(({ parts, texts }) =>
  parts.map((part) => ({ ...part, texts: part.texts.map((i) => texts[i]) }))
);

const TITLES: Readonly<Record<string, string>> = {
  runtime: "What the program runs on",
  npm: "Packages of npm",
  python: "In Pyodide, which runs the programs of models",
  crate: "Crates in the native library and in the launcher of the single file",
  v8: "In V8, the JavaScript engine of Deno",
  deno: "Crates in Deno",
};

/**
 * Lists the parts; with `name` or `texts` shows the texts of one or of all instead.
 *
 * @throws {RangeError} for a name that no part has.
 */
export function showLicenses(name: string | undefined, options: { texts: boolean; terminal: Terminal }): void {
  const { texts, terminal } = options;
  const rows = PARTS.filter((part) => name === undefined || part.name === name);
  if (rows.length === 0) {
    const hint = nearest(name!, PARTS.map((part) => part.name));
    throw new RangeError(`Cannot show the licence of ${JSON.stringify(name)}: no part has that name${hint}`);
  }
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
