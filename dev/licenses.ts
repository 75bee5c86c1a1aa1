/**
 * Collects the licences of parts by others: what a package says of itself, its texts, and standard texts where it has none
 * (dev/licenses). Where the licence is a choice with MIT in it, a part is used under MIT, and that text alone is kept.
 */
import { dirname, join, relative } from "@std/path";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";

/** Licences of crates whose manifest does not say it: their repositories do. */
const UNSTATED: Readonly<Record<string, string>> = { "libuv-sys-lite": "MIT" };
const TARGET = "x86_64-unknown-linux-gnu";

/** A part before its texts are shared. */
export interface Part {
  readonly kind: "runtime" | "npm" | "crate" | "python" | "deno" | "v8";
  readonly name: string;
  /** Absent where the part has none of its own. */
  readonly version?: string;
  /** SPDX expression. */
  readonly license: string;
  readonly texts: readonly string[];
}

/** Makes a part from the standard text of its licence. */
export function standardPart(kind: Part["kind"], name: string, fields: readonly [string, string, string?]): Part {
  const [license, copyright, version] = fields;
  return { kind, name, version, license, texts: standard(license, copyright) };
}

/** Gives the standard texts of a licence, of a choice the one that is preferred. */
export function standard(expression: string, copyright: string): string[] {
  const choices = expression.split(/ OR |\//).map((each) => each.replace(/[()]/g, "").trim());
  const choice = choices.find((each) => each === "MIT") ?? choices[0];
  return choice.split(/ AND | WITH /).map((id) =>
    Deno.readTextFileSync(join(ROOT, "dev", "licenses", `${id.replace("-or-later", "")}.txt`)).replace(
      "<copyright>",
      copyright,
    )
  );
}

/** Runs a program and gives what it printed. */
export async function output(command: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runChild({ command, args, cwd: ROOT, deadlineMs: 600_000 });
  if (code !== 0) {
    throw new Error(`Cannot list packages: "${command} ${args.join(" ")}" ended with ${code}:\n${stderr}`);
  }
  return stdout;
}

const TEXT_NAME = /^(li[cs]en[cs]e|copying|notice|copyright|unlicense)/i;
const NO_TEXT = /\.(sh|py|rs|c|h|toml)$/;
const SHORTEST = 100; // characters; what has fewer names another file, which the package does not have
/** Licences of which another one is chosen, or that only building takes. */
const NOT_OURS = /^zstd\/COPYING$|COPYING\.L?GPL|LICENSE-BUILDTOOLS$/;

/** Lists the licence files of a package. */
function licenseFiles(folder: string, depth = 3): string[] {
  return [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1).flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    if (isDirectory) return depth > 1 ? licenseFiles(path, depth - 1) : [];
    return TEXT_NAME.test(name) && !NO_TEXT.test(name) ? [path] : [];
  });
}

/** Reads the texts of a package that apply to us. */
export function readTexts(folder: string, license: string): string[] {
  let names = licenseFiles(folder).map((path) => relative(folder, path));
  if (/ OR |\//.test(license) && names.some((name) => /^LICENSE-MIT/.test(name))) {
    names = names.filter((name) => name.includes("/") || !/APACHE|BSD|ZLIB|UNLICENSE|^COPYING$|^LICENSE$/.test(name));
  }
  return names.filter((name) => !NOT_OURS.test(name)).map((name) => Deno.readTextFileSync(join(folder, name)))
    .filter((text) => text.length > SHORTEST);
}

interface Crate {
  readonly name: string;
  readonly version: string;
  readonly license: string | null;
  readonly authors: readonly string[];
  readonly manifest_path: string;
}

/**
 * Lists the crates that a library or program links: no macros, nothing that only a build or a test needs. With `standIn`, the standard
 * text stands in where a crate brings none.
 *
 * @throws {Error} where a crate has no licence or no text.
 */
export async function crateParts(
  manifest: string,
  { kind, standIn }: { readonly kind: Part["kind"]; readonly standIn: boolean },
): Promise<Part[]> {
  const where = ["--locked", `--manifest-path=${manifest}`];
  const format = ["--edges=normal,no-proc-macro", "--prefix=none", "--format={p}", `--target=${TARGET}`];
  const tree = (await output("cargo", ["tree", ...format, ...where])).trim().split("\n").slice(1); // without ourselves
  const args = ["metadata", "--format-version=1", `--filter-platform=${TARGET}`, ...where];
  const metadata: { packages: Crate[] } = JSON.parse(await output("cargo", args));
  return [...new Set(tree.map((line) => line.replace(" (*)", "")))].map((line) => {
    const crate = metadata.packages.find(({ name, version }) => `${name} v${version}` === line);
    if (!crate) throw new Error(`Cannot list crate ${line}: cargo metadata does not know it`);
    const { name, version, authors } = crate;
    const license = crate.license ?? UNSTATED[name] ?? "";
    let texts = readTexts(dirname(crate.manifest_path), license);
    const holders = authors.map((author) => author.replace(/ *<[^>]*>/, "")).join(", ") || `the authors of ${name}`;
    if (texts.length === 0 && standIn) texts = standard(license, `Copyright (c) ${holders}`);
    if (license === "" || texts.length === 0) {
      throw new Error(`Cannot list crate ${line}: its licence is "${license}" with ${texts.length} texts`);
    }
    return { kind, name, version, license, texts };
  });
}

/** Writes parts as JSON, sorted, equal texts once; `head` comes in front. */
export function render(parts: readonly Part[], head: Readonly<Record<string, string>> = {}): string {
  const order = ["runtime", "npm", "python", "crate", "v8", "deno"];
  const texts = new Map<string, string>(); // by their words: line breaks do not make another licence
  const words = (text: string) => text.replace(/\s+/g, " ").trim();
  for (const text of parts.flatMap((part) => part.texts)) if (!texts.has(words(text))) texts.set(words(text), text);
  const ids = [...texts.keys()];
  const rows = [...parts].sort((a, b) =>
    order.indexOf(a.kind) - order.indexOf(b.kind) || (a.name < b.name ? -1 : 1) || (a.version! < b.version! ? -1 : 1)
  ).map((part) => ({ ...part, texts: [...new Set(part.texts.map((text) => ids.indexOf(words(text))))] }));
  const tidy = [...texts.values()].map((text) => text.replace(/\r\n|\f/g, "\n").replace(/[ \t]+$/gm, "").trim());
  const unique = rows.filter((row, i) => row.name !== rows[i - 1]?.name || row.version !== rows[i - 1].version);
  const lines = (values: readonly unknown[]) => values.map((value) => `    ${JSON.stringify(value)}`).join(",\n");
  const first = Object.entries(head).map(([key, value]) => `  "${key}": ${JSON.stringify(value)},\n`).join("");
  return `{\n${first}  "parts": [\n${lines(unique)}\n  ],\n  "texts": [\n${lines(tidy)}\n  ]\n}\n`;
}
