/**
 * `deno task coverage`: which lines of `src/` the unit, conformance, parity and command-line tests run, child processes included.
 *
 * Every deno that is started inherits `DENO_COVERAGE_DIR` and leaves its counts there, also behind the wrapper script; one killed by
 * SIGKILL leaves none. A file that no test loads counts as not covered. Less than 85 % of all lines, or 60 % of one file, is a failure.
 */
import { join, relative } from "@std/path";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { denoTest, parity, type Step } from "./test.ts";

/** Lines of a file that can run, and those that ran. */
export interface Lines {
  readonly file: string;
  readonly found: number;
  readonly hit: number;
}

const LEAST_PERCENT = { all: 85, file: 60 };
const LOWEST = 12;
const MINUTES = 60_000;
const NOT_COUNTED = /_test\.ts$|_testing\.ts$|\/page\//;

/** Reads the records of an lcov report; `root` is taken off the file names. */
export function readLcov(text: string, root: string): Lines[] {
  return text.split("end_of_record").flatMap((record) => {
    const file = /^SF:(.*)$/m.exec(record)?.[1];
    if (file === undefined) return [];
    const counts = [...record.matchAll(/^DA:\d+,(\d+)/gm)];
    return [{
      file: relative(root, file),
      found: counts.length,
      hit: counts.filter(([_, count]) => count !== "0").length,
    }];
  });
}

/** Tells lines covered in percent; a folder without lines is covered. */
export function percent(lines: readonly Lines[]): number {
  const found = lines.reduce((sum, { found }) => sum + found, 0);
  return found === 0 ? 100 : 100 * lines.reduce((sum, { hit }) => sum + hit, 0) / found;
}

/** Lists what is below the bounds, one line each. */
export function shortfalls(files: readonly Lines[]): string[] {
  const low = files.filter((lines) => percent([lines]) < LEAST_PERCENT.file)
    .map((lines) => `${lines.file} has ${percent([lines]).toFixed(1)} %, expected at least ${LEAST_PERCENT.file} %`);
  if (percent(files) >= LEAST_PERCENT.all) return low;
  return [...low, `src has ${percent(files).toFixed(1)} %, expected at least ${LEAST_PERCENT.all} %`];
}

function* sources(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(join(ROOT, folder))) {
    const name = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* sources(name);
    else if (name.endsWith(".ts") && !NOT_COUNTED.test(name)) yield name;
  }
}

/** Adds the files that no process loaded; those with types alone have nothing to run. */
function withUnloaded(loaded: readonly Lines[]): Lines[] {
  const known = new Set(loaded.map(({ file }) => file));
  const unloaded = [...sources("src")].filter((file) => !known.has(file)).map((file) => {
    const text = Deno.readTextFileSync(join(ROOT, file));
    const runs = /^(?:export )?(?:async )?(?:function|class|const|let) /m.test(text);
    return { file, found: runs ? text.split("\n").length - 1 : 0, hit: 0 };
  });
  return [...loaded, ...unloaded];
}

async function runSteps(steps: readonly Step[], folder: string): Promise<boolean> {
  let allPassed = true;
  for (const { name, command, args } of steps) {
    const env = { NO_COLOR: "1", DENO_COVERAGE_DIR: folder };
    const { code, output, seconds } = await runChild({ command, args, cwd: ROOT, env, deadlineMs: 30 * MINUTES });
    console.log(`${code === 0 ? "" : "FAILED "}${name.padEnd(24)} ${seconds.toFixed(1).padStart(7)} s`);
    if (code !== 0) console.log(output.trimEnd());
    allPassed &&= code === 0;
  }
  return allPassed;
}

async function measure(folder: string): Promise<Lines[]> {
  const args = ["coverage", "--lcov", "--include=/src/", folder];
  const { code, stdout, stderr } = await runChild({
    command: Deno.execPath(),
    args,
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    deadlineMs: 10 * MINUTES,
  });
  if (code !== 0) throw new Error(`Cannot read the coverage: "deno ${args.join(" ")}" ended with ${code}:\n${stderr}`);
  return withUnloaded(readLcov(stdout, ROOT).filter(({ file }) => file.startsWith("src/") && !NOT_COUNTED.test(file)));
}

function report(files: readonly Lines[]): void {
  const line = (name: string, lines: readonly Lines[]) =>
    console.log(`${percent(lines).toFixed(1).padStart(7)} %  ${name}`);
  const folders = Map.groupBy(files, ({ file }) => file.split("/").slice(0, 2).join("/"));
  for (const [folder, lines] of [...folders].sort()) line(folder, lines);
  console.log("Lowest files");
  const lowest = files.toSorted((a, b) => percent([a]) - percent([b])).slice(0, LOWEST);
  for (const lines of lowest) line(lines.file, [lines]);
  line(`src, ${files.reduce((sum, { found }) => sum + found, 0)} lines`, files);
}

async function main(): Promise<boolean> {
  const folder = await Deno.makeTempDir({ prefix: "nanochat_coverage_" });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const steps = [
    denoTest("unit", "unit tests"),
    denoTest("conformance", "conformance"),
    parity(),
    denoTest("cli", "command line"),
  ];
  const passed = await runSteps(steps, folder);
  const files = await measure(folder);
  report(files);
  const low = shortfalls(files);
  for (const line of low) console.log(`FAILED: ${line}`);
  return passed && low.length === 0;
}

if (import.meta.main) {
  let isGood = false;
  try {
    isGood = await main();
  } catch (error) {
    console.error((error as Error).message);
  }
  Deno.exit(isGood ? 0 : 1); // an exit, unlike an error that nothing catches, runs the listener that removes the counts
}
