/**
 * `deno task mutate`: checks the tests by small errors. Seeded one-operator changes in five files that everything stands on are each
 * written into a copy of the tree; the unit tests that import the file and its parity folders must notice.
 *
 * A mutant that hangs or does not type-check counts as caught. Every other one that all tests accept is printed; fewer than 38 of 40
 * caught is a failure. `--seed=N` draws other changes, `--each=N` more or fewer for each file, names choose among the files.
 */
import { join } from "@std/path";
import { parseArgs } from "@std/cli/parse-args";
import { Random } from "../src/data/random.ts";
import { applyMutant, findMutants, type Mutant } from "./mutants.ts";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { testFiles } from "./test.ts";

interface Target {
  readonly file: string;
  /** Unit tests that reach the file through others, beside those that import it. */
  readonly tests: readonly string[];
  /** Folders of golden data that depend on it. */
  readonly parity: readonly string[];
}

interface Job {
  readonly target: Target;
  readonly mutant: Mutant;
  readonly source: string;
}

type Verdict = "caught" | "hung" | "no types" | "survived";

const TARGETS: readonly Target[] = [
  {
    file: "src/model/gpt.ts",
    tests: ["src/train/trainer_test.ts"],
    parity: ["gpt_tiny", "gpt_mqa", "optim", "train_run", "kv_cache"],
  },
  { file: "src/optim/muon.ts", tests: ["src/train/trainer_test.ts"], parity: ["optim", "train_run"] },
  { file: "src/data/dataloader.ts", tests: [], parity: ["dataloader"] },
  { file: "src/model/checkpoint.ts", tests: [], parity: [] },
  { file: "src/engine/sample.ts", tests: [], parity: ["kv_cache"] },
];
const COPIED = ["bin", "dev", "links", "src", "tasks", "mod.ts", "deno.json", "deno.lock", "import_map.json"];
const LINKED = ["dev/golden", "ffi/target"];
const WORKERS = 2;
const EACH = 8;
const CAUGHT_AT_LEAST = 0.95; // 38 of 40
const FLAGS = ["-A", "--no-check", "--lock=deno.lock"];

/** Copies the tree without what is built or large, which is linked. */
async function copyTree(to: string): Promise<void> {
  const copy = async (name: string): Promise<void> => {
    if (LINKED.includes(name)) return;
    if (!(await Deno.stat(join(ROOT, name))).isDirectory) return await Deno.copyFile(join(ROOT, name), join(to, name));
    await Deno.mkdir(join(to, name), { recursive: true });
    for await (const entry of Deno.readDir(join(ROOT, name))) await copy(`${name}/${entry.name}`);
  };
  for (const name of COPIED) await copy(name);
  await Deno.mkdir(join(to, "ffi"));
  for (const name of LINKED) await Deno.symlink(join(ROOT, name), join(to, name));
}

/** Adds the unit tests that name the file in an import to those listed. */
function withTests(target: Target): Target {
  const { file, tests } = target;
  const name = `/${file.split("/").at(-1)}"`;
  const importing = testFiles("unit").filter((test) => {
    if (!test.startsWith("src/")) return false;
    return Deno.readTextFileSync(join(ROOT, test)).split("\n").some((line) =>
      line.includes("from ") && line.includes(name)
    );
  });
  return { ...target, tests: [...new Set([...importing, ...tests])] };
}

/** A copy of the tree with a folder for the temporary files of its tests. */
class Worker {
  readonly #tree: string;
  readonly #temporary: string;

  constructor(folder: string) {
    this.#tree = join(folder, "tree");
    this.#temporary = join(folder, "temporary");
    Deno.mkdirSync(this.#tree, { recursive: true });
    Deno.mkdirSync(this.#temporary);
  }

  async prepare(): Promise<void> {
    await copyTree(this.#tree);
  }

  #deno(args: string[], deadlineMs: number) {
    const env = { NO_COLOR: "1", TMPDIR: this.#temporary };
    return runChild({ command: Deno.execPath(), args, cwd: this.#tree, env, deadlineMs });
  }

  /** Runs the tests of a target, the quick end first: 0, or the exit status and output of the first failing program. */
  async test(target: Target, deadlineMs: number): Promise<{ code: number; output: string; seconds: number }> {
    let seconds = 0;
    const programs = [["test", ...FLAGS, "--fail-fast", ...target.tests]];
    if (target.parity.length > 0) programs.push(["run", ...FLAGS, "dev/parity/main.ts", ...target.parity]);
    for (const args of programs) {
      const ended = await this.#deno(args, deadlineMs);
      seconds += ended.seconds;
      if (ended.code !== 0) return { ...ended, seconds };
    }
    return { code: 0, output: "", seconds };
  }

  async judge({ target, mutant, source }: Job, deadlineMs: number): Promise<Verdict> {
    const path = join(this.#tree, target.file);
    await Deno.writeTextFile(path, applyMutant(source, mutant));
    try {
      const { code } = await this.test(target, deadlineMs);
      if (code !== 0) return code === 124 ? "hung" : "caught";
      const checked = await this.#deno(["check", "--quiet", "--lock=deno.lock", target.file], 120_000);
      return checked.code === 0 ? "survived" : "no types";
    } finally {
      await Deno.writeTextFile(path, source);
    }
  }
}

function draw(targets: readonly Target[], { seed, each }: { seed: number; each: number }): Job[] {
  const random = new Random(seed);
  return targets.flatMap((target) => {
    const source = Deno.readTextFileSync(join(ROOT, target.file));
    const mutants = findMutants(source);
    return random.sample(mutants, Math.min(each, mutants.length)).sort((a, b) => a.start - b.start)
      .map((mutant) => ({ target, mutant, source }));
  });
}

async function main(args: string[]): Promise<boolean> {
  const { seed, each, _: names } = parseArgs(args, {
    string: ["seed", "each"],
    default: { seed: "1", each: `${EACH}` },
  });
  const targets = TARGETS.filter(({ file }) => names.length === 0 || names.some((name) => file.includes(`${name}`)))
    .map(withTests);
  const jobs = draw(targets, { seed: Number(seed), each: Number(each) });
  const folder = await Deno.makeTempDir({ prefix: "nanochat_mutate_" });
  // Also where a signal ends this program.
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const workers = Array.from({ length: WORKERS }, (_, i) => new Worker(join(folder, `${i}`)));
  await Promise.all(workers.map((worker) => worker.prepare()));
  const deadlines = new Map<Target, number>();
  for (const target of targets) {
    const { code, output, seconds } = await workers[0].test(target, 300_000);
    if (code !== 0) {
      throw new Error(`Cannot judge mutants of ${target.file}: its tests fail without a change:\n${output}`);
    }
    deadlines.set(target, 4000 * seconds + 20_000);
    console.log(`${target.file.padEnd(28)} tests take ${seconds.toFixed(1)} s without a change`);
  }
  let caught = 0;
  const waiting = [...jobs];
  await Promise.all(workers.map(async (worker) => {
    for (let job = waiting.shift(); job; job = waiting.shift()) {
      const verdict = await worker.judge(job, deadlines.get(job.target)!);
      if (verdict !== "survived") caught++;
      console.log(`${verdict.padEnd(8)} ${job.target.file}:${job.mutant.line} ${job.mutant.change}`);
    }
  }));
  const needed = Math.ceil(CAUGHT_AT_LEAST * jobs.length);
  console.log(`caught ${caught} of ${jobs.length} changes (seed ${seed}), expected at least ${needed}`);
  return caught >= needed;
}

if (import.meta.main) {
  let isGood = false;
  try {
    isGood = await main(Deno.args);
  } catch (error) {
    console.error((error as Error).message);
  }
  Deno.exit(isGood ? 0 : 1); // an exit, unlike an error that nothing catches, runs the listener that removes the copies
}
