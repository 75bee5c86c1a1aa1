/**
 * Writes what `nanochat licenses` shows: every part by others in the program, with its licence text. `deno task gen:licenses`.
 *
 * `third_party.json` is the runtime, the npm packages that the program imports and what they depend on, and the crates that the library
 * and the launcher of the single file link on Linux x86-64. Names, versions and texts come from the packages themselves.
 * `third_party_deno.json` is what is linked into Deno, by the lock file of its crate; it changes with Deno's version alone and is
 * written with `--deno` (about 1 GB is fetched). With `--check` nothing is written: the first is compared, of the second the version.
 */
import { existsSync } from "node:fs";
import { dirname, join, relative } from "@std/path";
import { crateParts, output, type Part, readTexts, render, standard, standardPart } from "./licenses.ts";
import { ROOT } from "./setup.ts";

const OUT = join(ROOT, "src", "cli", "third_party.json");
const DENO_OUT = join(ROOT, "src", "cli", "third_party_deno.json");
const ENTRY = "bin/nanochat.ts";
/** Packages that the program does not import: copied by dev/build_sandbox.ts, bundled into the web page by dev/build_page.ts. */
const COPIED = ["pyodide", "marked", "dompurify"];
const MANIFESTS = ["ffi/Cargo.toml", "bin/launcher/Cargo.toml"];

/** What no package manager tells about: the runtime, and what Pyodide's one file was linked from. */
async function runtimes(): Promise<Part[]> {
  const pyodide = dirname(new URL(import.meta.resolve("pyodide")).pathname);
  const { info } = JSON.parse(await Deno.readTextFile(join(pyodide, "pyodide-lock.json")));
  const emscripten = String(info.platform).replace("emscripten_", "").replaceAll("_", ".");
  return [
    standardPart("runtime", "deno", ["MIT", "Copyright 2018-2026 the Deno authors", Deno.version.deno]),
    standardPart("runtime", "v8", [
      "BSD-3-Clause",
      "Copyright 2014, the V8 project authors. All rights reserved.",
      Deno.version.v8,
    ]),
    standardPart("runtime", "rust-std", ["MIT", "Copyright (c) The Rust Project Contributors"]),
    standardPart("runtime", "glibc", ["LGPL-2.1-or-later", ""]), // linked into the launcher; anybody can link it anew from our sources
    standardPart("python", "cpython", ["PSF-2.0", "", info.python]),
    standardPart("python", "emscripten", [
      "MIT",
      "Copyright (c) 2010-2014 Emscripten authors, see AUTHORS file.",
      emscripten,
    ]),
    standardPart("python", "musl", ["MIT", "Copyright (c) 2005-2020 Rich Felker, et al."]),
    standardPart("python", "expat", [
      "MIT",
      "Copyright (c) 1998-2000 Thai Open Source Software Center Ltd and Clark Cooper\nCopyright (c) 2001-2025 Expat maintainers",
    ]),
    standardPart("python", "libffi", ["MIT", "Copyright (c) 1996-2025 Anthony Green, Red Hat, Inc and others."]),
    standardPart("python", "libmpdec", ["BSD-2-Clause", "Copyright (c) 2008-2024 Stefan Krah. All rights reserved."]),
    standardPart("python", "hacl-star", ["MIT", "Copyright (c) 2016-2022 INRIA, CMU and Microsoft Corporation"]),
    standardPart("python", "zlib", ["Zlib", "Copyright (C) 1995-2024 Jean-loup Gailly and Mark Adler"]),
    standardPart("python", "bzip2", ["bzip2-1.0.6", "Copyright (C) 1996-2019 Julian R Seward. All rights reserved."]),
    standardPart("python", "liblzma", [
      "public-domain",
      "liblzma of XZ Utils, by Lasse Collin, Igor Pavlov and others.",
    ]),
    standardPart("python", "sqlite", ["public-domain", "SQLite, by D. Richard Hipp and others."]),
  ];
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
    const texts = found.length > 0 ? found : standard(license, `Copyright (c) the authors of ${name}`);
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

/** What Deno links: its crates, and what V8 brings with it, whose crate carries no licence files. */
async function denoParts(): Promise<Part[]> {
  const { deno, v8 } = Deno.version;
  await output("cargo", ["info", `deno@${deno}`]); // unpacks the crate, its lock file with it
  const home = Deno.env.get("CARGO_HOME") ?? join(Deno.env.get("HOME")!, ".cargo");
  const sources = join(home, "registry", "src");
  const manifest = [...Deno.readDirSync(sources)].map(({ name }) => join(sources, name, `deno-${deno}`, "Cargo.toml"))
    .find((path) => existsSync(path));
  if (manifest === undefined) throw new Error(`Cannot list the parts of Deno ${deno}: its crate is not in ${sources}`);
  const inV8 = (name: string, license: string, holders: string) =>
    standardPart("v8", name, [license, `Copyright (c) ${holders}`, v8]);
  return [
    ...await crateParts(manifest, { kind: "deno", standIn: true }),
    inV8("abseil-cpp", "Apache-2.0", "2017 The Abseil Authors"),
    inV8("dragonbox", "Apache-2.0 WITH LLVM-exception", "2020-2024 Junekey Jeon"),
    inV8("fast_float", "MIT", "2021 The fast_float authors"),
    inV8("fp16", "MIT", "2017 Facebook Inc., Georgia Institute of Technology, 2019 Google LLC"),
    inV8("highway", "BSD-3-Clause", "The Highway Project Authors. All rights reserved."),
    inV8("icu", "Unicode-3.0", "2016-2025 Unicode, Inc."),
    inV8("libc++", "Apache-2.0 WITH LLVM-exception", "2009-2019 by the contributors listed in CREDITS.TXT"),
    inV8("libc++abi", "Apache-2.0 WITH LLVM-exception", "2009-2019 by the contributors listed in CREDITS.TXT"),
    inV8("llvm-libc", "Apache-2.0 WITH LLVM-exception", "the LLVM Project"),
    inV8("partition_alloc", "BSD-3-Clause", "2015 The Chromium Authors. All rights reserved."),
    inV8("rapidhash", "BSD-2-Clause", "2024 Nicolas De Carlo"),
    inV8("simdutf", "MIT", "2021 The simdutf authors"),
    inV8("siphash", "MIT", "2012-2016 Jean-Philippe Aumasson, 2012-2014 Daniel J. Bernstein"),
  ];
}

const values = (json: string) => JSON.stringify(JSON.parse(json)); // the formatter chooses spaces and line breaks

if (import.meta.main) {
  const write = async (path: string, text: string) => {
    await Deno.writeTextFile(path, text);
    await output(Deno.execPath(), ["fmt", "--quiet", path]);
  };
  const stale = (path: string, task: string) => {
    console.error(`${relative(ROOT, path)} is not what the packages say; run: ${task}`);
    Deno.exit(1);
  };
  if (Deno.args.includes("--deno")) await write(DENO_OUT, render(await denoParts(), { deno: Deno.version.deno }));
  const crates = await Promise.all(MANIFESTS.map((path) => crateParts(path, { kind: "crate", standIn: false })));
  const text = render([...await runtimes(), ...await npmParts(), ...crates.flat()]);
  if (!Deno.args.includes("--check")) await write(OUT, text);
  else {
    if (values(await Deno.readTextFile(OUT)) !== values(text)) stale(OUT, "deno task gen:licenses");
    const { deno } = JSON.parse(await Deno.readTextFile(DENO_OUT));
    if (deno !== Deno.version.deno) stale(DENO_OUT, "deno task gen:licenses --deno");
  }
}
