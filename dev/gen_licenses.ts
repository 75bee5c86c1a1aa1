/**
 * Writes src/cli/third_party.json, what `nanochat licenses` shows: every part by others in the program, with its licence text. With
 * `--check` only compares and fails on a difference.
 *
 * The npm packages are those that the program imports, and what they depend on; the crates are those that the library and the launcher
 * of the single file link on Linux x86-64. Names, versions and texts come from the packages themselves. Where one carries no text, the
 * standard text of its licence stands in (dev/licenses). Where the licence is a choice with MIT in it, the parts are used under MIT, and
 * that text alone is kept.
 */
import { dirname, join, relative } from "@std/path";
import { runChild } from "./process.ts";

const ROOT = join(import.meta.dirname!, "..");
const OUT = join(ROOT, "src", "cli", "third_party.json");
const ENTRY = "bin/nanochat.ts";
/** Packages whose files are copied, not imported: dev/build_sandbox.ts. */
const COPIED = ["pyodide"];
const MANIFESTS = ["ffi/Cargo.toml", "bin/launcher/Cargo.toml"];
const TARGET = "x86_64-unknown-linux-gnu";

/** A part before its texts are shared. */
interface Part {
  readonly kind: "runtime" | "npm" | "crate" | "python";
  readonly name: string;
  /** Absent where the part has none of its own. */
  readonly version?: string;
  /** SPDX expression. */
  readonly license: string;
  readonly texts: readonly string[];
}

/** Gives the standard text of a licence. */
function standard(id: string, copyright: string): string {
  return Deno.readTextFileSync(join(ROOT, "dev", "licenses", `${id.replace("-or-later", "")}.txt`)).replace(
    "<copyright>",
    copyright,
  );
}

/** What no package manager tells about: the runtime, and what Pyodide's one file was linked from. */
async function runtimes(): Promise<Part[]> {
  const pyodide = dirname(new URL(import.meta.resolve("pyodide")).pathname);
  const { info } = JSON.parse(await Deno.readTextFile(join(pyodide, "pyodide-lock.json")));
  const part = (
    kind: Part["kind"],
    name: string,
    [license, copyright, version]: readonly [string, string, string?],
  ) => ({
    ...{ kind, name, version, license, texts: [standard(license, copyright)] },
  });
  const emscripten = String(info.platform).replace("emscripten_", "").replaceAll("_", ".");
  return [
    part("runtime", "deno", ["MIT", "Copyright 2018-2026 the Deno authors", Deno.version.deno]),
    part("runtime", "v8", [
      "BSD-3-Clause",
      "Copyright 2014, the V8 project authors. All rights reserved.",
      Deno.version.v8,
    ]),
    part("runtime", "rust-std", ["MIT", "Copyright (c) The Rust Project Contributors"]),
    part("runtime", "glibc", ["LGPL-2.1-or-later", ""]), // linked into the launcher; anybody can link it anew from our sources
    part("python", "cpython", ["PSF-2.0", "", info.python]),
    part("python", "emscripten", ["MIT", "Copyright (c) 2010-2014 Emscripten authors, see AUTHORS file.", emscripten]),
    part("python", "musl", ["MIT", "Copyright (c) 2005-2020 Rich Felker, et al."]),
    part("python", "expat", [
      "MIT",
      "Copyright (c) 1998-2000 Thai Open Source Software Center Ltd and Clark Cooper\nCopyright (c) 2001-2025 Expat maintainers",
    ]),
    part("python", "libffi", ["MIT", "Copyright (c) 1996-2025 Anthony Green, Red Hat, Inc and others."]),
    part("python", "libmpdec", ["BSD-2-Clause", "Copyright (c) 2008-2024 Stefan Krah. All rights reserved."]),
    part("python", "hacl-star", ["MIT", "Copyright (c) 2016-2022 INRIA, CMU and Microsoft Corporation"]),
    part("python", "zlib", ["Zlib", "Copyright (C) 1995-2024 Jean-loup Gailly and Mark Adler"]),
    part("python", "bzip2", ["bzip2-1.0.6", "Copyright (C) 1996-2019 Julian R Seward. All rights reserved."]),
    part("python", "liblzma", ["public-domain", "liblzma of XZ Utils, by Lasse Collin, Igor Pavlov and others."]),
    part("python", "sqlite", ["public-domain", "SQLite, by D. Richard Hipp and others."]),
  ];
}

async function output(command: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runChild({ command, args, cwd: ROOT, deadlineMs: 120_000 });
  if (code !== 0) {
    throw new Error(`Cannot list packages: "${command} ${args.join(" ")}" ended with ${code}:\n${stderr}`);
  }
  return stdout;
}

const TEXT_NAME = /^(li[cs]en[cs]e|copying|notice|copyright|unlicense)/i;

/** Lists the licence files of a package. */
function licenseFiles(folder: string, depth = 3): string[] {
  return [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1).flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    if (isDirectory) return depth > 1 ? licenseFiles(path, depth - 1) : [];
    return TEXT_NAME.test(name) ? [path] : [];
  });
}

/** Reads the texts of a package that apply to us. */
function readTexts(folder: string, license: string): string[] {
  let names = licenseFiles(folder).map((path) => relative(folder, path));
  if (/ OR /.test(license) && names.some((name) => /^LICENSE-MIT/.test(name))) {
    names = names.filter((name) => name.includes("/") || !/APACHE|BSD|ZLIB|UNLICENSE|^COPYING$|^LICENSE$/.test(name));
  }
  names = names.filter((name) => name !== "zstd/COPYING"); // the GPL: zstd is used under its BSD licence, zstd/LICENSE
  return names.map((name) => Deno.readTextFileSync(join(folder, name)));
}

interface Crate {
  readonly name: string;
  readonly version: string;
  readonly license: string | null;
  readonly manifest_path: string;
}

interface NpmPackage {
  readonly name: string;
  readonly version: string;
  readonly dependencies: readonly string[];
  readonly localPath: string;
}

const hasCode = (folder: string): boolean =>
  [...Deno.readDirSync(folder)].some(({ name, isDirectory }) =>
    isDirectory ? hasCode(join(folder, name)) : /\.[cm]?js$/.test(name)
  );

/** Lists the packages that the program imports, with what they depend on, and those whose files are copied. */
async function npmParts(): Promise<Part[]> {
  const graph = JSON.parse(await output(Deno.execPath(), ["info", "--json", "--lock=deno.lock", ENTRY]));
  const packages: Record<string, NpmPackage> = graph.npmPackages;
  const parts = new Map<string, Part>();
  const add = (id: string, { deep }: { deep: boolean }) => {
    const { name, version, localPath, dependencies } = packages[id];
    if (parts.has(id) || !hasCode(localPath)) return; // packages of types leave nothing in the program
    const { license } = JSON.parse(Deno.readTextFileSync(join(localPath, "package.json")));
    const found = readTexts(localPath, license);
    const texts = found.length > 0 ? found : [standard(license, `Copyright (c) the authors of ${name}`)];
    parts.set(id, { kind: "npm", name, version, license, texts });
    if (deep) { for (const each of dependencies) add(each, { deep }); }
  };
  for (const { specifier } of graph.modules as { specifier: string }[]) {
    const id = /^npm:\/?((?:@[^/]+\/)?[^/]+@[^/]+)/.exec(specifier)?.[1];
    if (id !== undefined) add(id, { deep: true });
  }
  for (const id of Object.keys(packages)) if (COPIED.includes(id.replace(/@[^@]*$/, ""))) add(id, { deep: false });
  return [...parts.values()];
}

/** Lists the crates that a library links: no macros, nothing that only a build or a test needs. */
async function crateParts(manifest: string): Promise<Part[]> {
  const where = ["--locked", `--manifest-path=${manifest}`];
  const format = ["--edges=normal,no-proc-macro", "--prefix=none", "--format={p}", `--target=${TARGET}`];
  const tree = (await output("cargo", ["tree", ...format, ...where])).trim().split("\n").slice(1); // without ourselves
  const args = ["metadata", "--format-version=1", `--filter-platform=${TARGET}`, ...where];
  const metadata: { packages: Crate[] } = JSON.parse(await output("cargo", args));
  return [...new Set(tree.map((line) => line.replace(" (*)", "")))].map((line) => {
    const crate = metadata.packages.find(({ name, version }) => `${name} v${version}` === line);
    const texts = crate ? readTexts(dirname(crate.manifest_path), crate.license ?? "") : [];
    if (!crate?.license || texts.length === 0) {
      throw new Error(`Cannot list crate ${line}: its licence is ${crate?.license} with ${texts.length} texts`);
    }
    return { kind: "crate", name: crate.name, version: crate.version, license: crate.license, texts };
  });
}

/** Shares equal texts and sorts the parts. */
function render(parts: readonly Part[]): string {
  const order = ["runtime", "npm", "python", "crate"];
  const texts = new Map<string, string>(); // by their words: line breaks do not make another licence
  const words = (text: string) => text.replace(/\s+/g, " ").trim();
  for (const text of parts.flatMap((part) => part.texts)) if (!texts.has(words(text))) texts.set(words(text), text);
  const ids = [...texts.keys()];
  const rows = [...parts].sort((a, b) =>
    order.indexOf(a.kind) - order.indexOf(b.kind) || (a.name < b.name ? -1 : 1) || (a.version! < b.version! ? -1 : 1)
  ).map((part) => ({ ...part, texts: [...new Set(part.texts.map((text) => ids.indexOf(words(text))))] }));
  const tidy = [...texts.values()].map((text) => text.replace(/\r\n/g, "\n").replace(/[ \t]+$/gm, "").trim());
  const unique = rows.filter((row, i) => row.name !== rows[i - 1]?.name || row.version !== rows[i - 1].version);
  const lines = (values: readonly unknown[]) => values.map((value) => `    ${JSON.stringify(value)}`).join(",\n");
  return `{\n  "parts": [\n${lines(unique)}\n  ],\n  "texts": [\n${lines(tidy)}\n  ]\n}\n`;
}

if (import.meta.main) {
  const crates = await Promise.all(MANIFESTS.map(crateParts));
  const text = render([...await runtimes(), ...await npmParts(), ...crates.flat()]);
  const values = (json: string) => JSON.stringify(JSON.parse(json)); // the formatter chooses spaces and line breaks
  if (!Deno.args.includes("--check")) {
    await Deno.writeTextFile(OUT, text);
    await output(Deno.execPath(), ["fmt", "--quiet", OUT]);
  } else if (values(await Deno.readTextFile(OUT)) !== values(text)) {
    console.error(`${relative(ROOT, OUT)} is not what the packages say; run: deno task gen:licenses`);
    Deno.exit(1);
  }
}
