/**
 * Holds the list of layers, lowest first, and fails on an import that points upwards, on `Deno.dlopen` outside `src/native/`, and on
 * argv, printing or exiting outside `src/cli/` and `bin/`.
 */
import { existsSync } from "node:fs";
import { dirname, join, relative } from "@std/path";

const ROOT = join(import.meta.dirname!, "..");
const LAYERS = [
  "src/native",
  "src/tensor",
  "src/data",
  "src/model",
  "src/interop",
  "src/optim",
  "src/engine",
  "tasks",
  "src/report",
  "src/eval",
  "src/train",
  "src/bench",
  "src/server",
  "src/cli",
];

function layerOf(path: string): number {
  return LAYERS.findIndex((layer) => path.startsWith(`${layer}/`));
}

function* sources(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* sources(path);
    else if (entry.name.endsWith(".ts") && !entry.name.endsWith("_test.ts")) yield path;
  }
}

const problems: string[] = [];
const folders = new Set(LAYERS.map((layer) => layer.split("/")[0]));
for (const folder of [...folders].filter((name) => existsSync(join(ROOT, name)))) {
  for (const file of sources(join(ROOT, folder))) {
    const name = relative(ROOT, file);
    const layer = layerOf(name);
    const text = Deno.readTextFileSync(file);
    if (layer < 0) problems.push(`${name} lies in no layer; add its folder to dev/check_layers.ts`);
    for (const [_, target] of text.matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)) {
      const imported = relative(ROOT, join(dirname(file), target));
      const other = layerOf(imported);
      if (other > layer) problems.push(`${name} imports ${imported}, which is a higher layer`);
    }
    const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
    if (code.includes("Deno.dlopen") && !name.startsWith("src/native/")) {
      problems.push(`${name} calls Deno.dlopen; only src/native/ may`);
    }
    if (!name.startsWith("src/cli/") && /\bconsole\.|Deno\.exit\(|Deno\.args\b|Deno\.stdout/.test(code)) {
      problems.push(`${name} reads argv, prints or exits; only src/cli/ and bin/ may`);
    }
  }
}
for (const problem of problems) console.error(problem);
Deno.exit(problems.length === 0 ? 0 : 1);
