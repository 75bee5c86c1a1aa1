/** Prints lines per folder and fails over a budget. Tests, generated files and page assets are not counted. `deno task size`. */
import { join } from "@std/path";

const ROOT = join(import.meta.dirname!, "..");
const GENERATED = new Set(["ffi/src/abi.rs", "kernels_cu/nanochat.h"]);
const SKIPPED = /_test(ing)?\.ts$|_(tests|cases)\.rs$|\/page\/|\/target\//;

/** Folders with one budget in lines; raising one takes an entry in dev/LOG.md. */
const BUDGETS: readonly [string, string[], number][] = [
  ["src + tasks", ["src", "tasks"], 40_000],
  ["ffi", ["ffi/src"], 13_000],
  ["kernels_cu", ["kernels_cu"], 8_000],
];

/** Counts the lines of a source file; in Rust the tests at the end of the file are left out. */
export function countLines(name: string, text: string): number {
  const code = name.endsWith(".rs") ? text.split(/^#\[cfg\(test\)\]\nmod /m)[0] : text;
  return code.split("\n").length - 1;
}

function* files(folder: string): Generator<string> {
  let entries: Deno.DirEntry[];
  try {
    entries = [...Deno.readDirSync(join(ROOT, folder))];
  } catch {
    return;
  }
  for (const entry of entries) {
    const name = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* files(name);
    else if (/\.(ts|rs|cu|cuh|h)$/.test(name) && !SKIPPED.test(name) && !GENERATED.has(name)) yield name;
  }
}

function report(): boolean {
  let within = true;
  for (const [title, folders, budget] of BUDGETS) {
    const perFolder = new Map<string, number>();
    let total = 0;
    for (const name of folders.flatMap((folder) => [...files(folder)])) {
      const lines = countLines(name, Deno.readTextFileSync(join(ROOT, name)));
      const folder = name.split("/").slice(0, -1).join("/");
      perFolder.set(folder, (perFolder.get(folder) ?? 0) + lines);
      total += lines;
    }
    console.log(
      `${title.padEnd(24)} ${String(total).padStart(6)} of ${budget}${total > budget ? "  OVER BUDGET" : ""}`,
    );
    for (const [folder, lines] of [...perFolder].sort()) {
      console.log(`  ${folder.padEnd(22)} ${String(lines).padStart(6)}`);
    }
    within &&= total <= budget;
  }
  return within;
}

if (import.meta.main) Deno.exit(report() ? 0 : 1);
