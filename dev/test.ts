/**
 * Runs tiers of tests, one behind the other: `deno run -A dev/test.ts TIER...`, each ok, test, page, binary, cuda-emu, slow, data,
 * parity, peers or peers quick.
 *
 * Builds what the tier needs (not counted against its budget), runs every step even after a failing one, prints each with its
 * seconds, and ends with the line `N passed, N failed, N skipped`. A static check counts as one test, a step that crashes as a failure.
 * The kind of a test is in its file name: `*_test.ts` unit, `*_cli_test.ts` command line, `*_page_test.ts` the web page in a browser,
 * `*_binary_test.ts` the single file, `*_emu_test.ts` the emulated CUDA library, `*_slow_test.ts`, `*_data_test.ts` and
 * `*_peers_test.ts` their tiers (`*_full_peers_test.ts` need PyTorch);
 * `src/tensor/ops*_test.ts` is the conformance suite of the backends.
 */
import { join, relative } from "@std/path";
import { findBrowser, INSTALL_BROWSER } from "./browser.ts";
import { installPeers, type PeerSet } from "./peers.ts";
import { type Ended, runChild } from "./process.ts";
import { ROOT, setup } from "./setup.ts";
import { assetPath } from "../src/native/installation.ts";
import { emulation } from "./build_cuda.ts";

/** Results of a step or of a whole tier. */
export interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

/** Reads the results of one kind of test program from what it printed; undefined where it printed none. */
export type Reader = (output: string) => Count | undefined;

/** One program of a tier. */
export interface Step {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Absent for a check, which passes or fails as a whole. */
  readonly read?: Reader;
  /** Prints all output and not only that of a failure. */
  readonly show?: boolean;
  /** Variables of the step beside those of the tier. */
  readonly env?: Record<string, string>;
  /** Says what this machine lacks for the step, after the build: it counts as skipped, with this line. */
  readonly lacks?: () => Promise<string | undefined>;
}

type Kind = "unit" | "cli" | "page" | "binary" | "emu" | "slow" | "data" | "peers" | "full_peers" | "conformance";

const DENO = Deno.execPath();
const CARGO_AT = ["--manifest-path", "ffi/Cargo.toml"];
const LAUNCHER_AT = ["--manifest-path", "bin/launcher/Cargo.toml", "--target-dir", "ffi/target/launcher"];
const LINT_LAUNCHER = ["clippy", "--release", "--all-targets", "--locked", "--quiet", ...LAUNCHER_AT];
const TEST_LAUNCHER = ["test", "--release", "--locked", ...LAUNCHER_AT];
/** The lock file is no part of deno.json: with it there, `deno task` itself would fetch packages before any set-up can help. */
const LOCK = "--lock=deno.lock";
const SOURCES = ["bin", "dev", "links", "src", "tasks"];
const BUDGET_MINUTES: Record<string, number> = {
  ok: 4,
  test: 15,
  page: 2,
  binary: 2,
  "cuda-emu": 10,
  slow: 45,
  data: 15,
  parity: 15,
  peers: 15,
  "peers quick": 15,
};

const sum = (matches: Iterable<RegExpMatchArray>): Count | undefined => {
  let total: Count | undefined;
  for (const [_, passed, failed, skipped] of matches) {
    total ??= { passed: 0, failed: 0, skipped: 0 };
    total.passed += Number(passed);
    total.failed += Number(failed);
    total.skipped += Number(skipped ?? 0);
  }
  return total;
};

/** Reads `deno test`: `ok | 3 passed (2 steps) | 0 failed | 1 ignored (12ms)`. */
export function readDeno(output: string): Count | undefined {
  return sum(
    output.matchAll(
      /^(?:ok|FAILED) \| (\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed(?: \(\d+ steps?\))?(?: \| (\d+) ignored)?/gm,
    ),
  );
}

/** Reads `cargo test`, which prints one result for each test binary. */
export function readCargo(output: string): Count | undefined {
  return sum(output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm));
}

/** Reads our own programs, which end with `N passed, N failed, N skipped`. */
export function readOwn(output: string): Count | undefined {
  return sum([...output.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm)].slice(-1));
}

/** Turns a step's end into a count: a crash, a silent end or a failing exit without a counted failure is one failure. */
export function countStep({ code, output }: Pick<Ended, "code" | "output">, read?: Reader): Count {
  if (read === undefined) return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
  const count = read(output) ?? { passed: 0, failed: code === 0 ? 1 : 0, skipped: 0 };
  return code !== 0 && count.failed === 0 ? { ...count, failed: 1 } : count;
}

/** Tells which tier's test a file is, from its name; undefined for other files. */
export function kindOf(file: string): Kind | undefined {
  if (!file.endsWith("_test.ts")) return undefined;
  if (/^src\/tensor\/ops(_\w+)?_test\.ts$/.test(file)) return "conformance";
  const kind = /_(cli|page|binary|emu|slow|data|full_peers|peers)_test\.ts$/.exec(file)?.[1];
  return (kind as Kind | undefined) ?? "unit";
}

function* walk(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    if (entry.name === "node_modules" || entry.name === "golden") continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* walk(path);
    else yield relative(ROOT, path);
  }
}

const present = (paths: string[]) => paths.filter((path) => exists(join(ROOT, path)));

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Lists the test files of one kind, by path from the root. */
export function testFiles(kind: Kind): string[] {
  return present(SOURCES).flatMap((folder) => [...walk(join(ROOT, folder))]).filter((file) => kindOf(file) === kind)
    .sort();
}

/** Tests of the command line that the single file must pass too: from text to an answer, a resumed training, programs of a model. */
const BINARY_TOO = ["cli/usage", "cli/train", "cli/chat", "cli/serve", "cli/eval", "engine/execution"].map((name) =>
  `src/${name}_cli_test.ts`
);

/** Words in front of a command that leave it no network but its own loopback; none where the system does not let us. */
function withoutNetwork(): string[] {
  const ways = ["-n", "-rn"].map((flag) => ["unshare", flag, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]);
  const works = ([program, ...args]: string[]) => {
    try {
      return new Deno.Command(program, { args: [...args, "true"], stdout: "null", stderr: "null" }).outputSync()
        .success;
    } catch {
      return false; // there is no such program
    }
  };
  return ways.find(works) ?? [];
}

/** The single file in an empty environment: `dev/cli.ts` starts it instead of the checkout, and so does the sandbox. */
function binaryTest(): Step {
  const [command, ...args] = [...withoutNetwork(), DENO, "test", "-A", "--no-check", LOCK];
  const env = { NANOCHAT_EXE: join(ROOT, "dist", "nanochat"), NANOCHAT_CACHE: join(ROOT, "dist", "home", ".cache") };
  return { name: "single file", command, args: [...args, ...testFiles("binary"), ...BINARY_TOO], env, read: readDeno };
}

function check(name: string, command: string, args: string[]): Step {
  return { name, command, args };
}

/** Runs test files. */
function deno(name: string, files: readonly string[]): Step {
  return { name, command: DENO, args: ["test", "-A", "--no-check", LOCK, ...files], read: readDeno };
}

/** Runs the test files of one kind. */
export function denoTest(kind: Kind, name: string): Step {
  const files = testFiles(kind);
  if (files.length > 0) return deno(name, files);
  // Without a file `deno test` would run every test of the tree; a tier that lost its tests must not pass.
  return { name, command: DENO, args: ["eval", `throw "no *_${kind}_test.ts found"`], read: readDeno };
}

/** The web page in a browser, which is no part of the set-up: where it is missing the tests are skipped, and fail in CI. */
function pageTest(): Step {
  const lacks = () => {
    const isSkipped = findBrowser() === undefined && Deno.env.get("CI") === undefined;
    return Promise.resolve(isSkipped ? `no Chromium; install it with: ${INSTALL_BROWSER}` : undefined);
  };
  return { ...denoTest("page", "web page"), lacks };
}

function staticSteps(): Step[] {
  return [
    check("deno fmt", DENO, ["fmt", "--check"]),
    check("deno lint", DENO, ["lint", "--quiet"]),
    check("deno check", DENO, ["check", "--quiet", LOCK, ...present(["mod.ts", ...SOURCES])]),
    check("public docs", DENO, ["doc", "--lint", "mod.ts"]),
    check("public examples", DENO, ["test", "-A", "--doc", LOCK, "mod.ts"]),
    check("layers", DENO, ["run", "--allow-read", "dev/check_layers.ts"]),
    check("generated files", DENO, ["run", "-A", "dev/gen_abi.ts", "--check"]),
    check("licences", DENO, ["run", "-A", LOCK, "dev/gen_licenses.ts", "--check"]),
    check("README", DENO, ["run", "-A", "dev/gen_readme.ts", "--check"]),
    check("size", DENO, ["run", "--allow-read", "dev/size.ts"]),
    check("cargo fmt", "cargo", ["fmt", "--check", ...CARGO_AT]),
    check("cargo fmt, launcher", "cargo", ["fmt", "--check", ...LAUNCHER_AT.slice(0, 2)]),
    check("cargo clippy", "cargo", [
      "clippy",
      "--release",
      "--all-targets",
      "--locked",
      "--quiet",
      ...CARGO_AT,
      "--",
      "-D",
      "warnings",
    ]),
    check("cargo clippy, launcher", "cargo", [...LINT_LAUNCHER, "--", "-D", "warnings"]),
  ];
}

const cargoTest = (name: string, extra: string[]): Step => ({
  name,
  command: "cargo",
  args: ["test", "--release", "--locked", ...CARGO_AT, ...extra],
  read: readCargo,
});

/** Compares with golden data: all folders, or only some. */
export const parity = (folders: string[] = []): Step => ({
  name: "parity",
  command: DENO,
  args: ["run", "-A", "--no-check", LOCK, "dev/parity/main.ts", ...folders],
  read: readOwn,
  show: true,
});

/** Folders of golden data that the emulated CUDA library is compared with; the training run takes minutes, so only in its own tier. */
const EMULATED_FOLDERS = ["gpt_tiny", "gpt_mqa", "kv_cache", "optim"];

/** Tests of the model and of decoding that run there as well. */
const EMULATED_TESTS = ["src/model/gpt_test.ts", "src/engine/decode_test.ts", "src/engine/sampler_test.ts"];

/** The CUDA sources on the processor: every operation in three orders of threads, the models and the commands in plain order. */
function emulationSteps({ whole }: { whole: boolean }): Step[] {
  const env = { NC_TEST_BACKEND: "cuda_emu" };
  return [
    ...["reverse", "warps", "shuffle:1"].map((order) => ({
      ...denoTest("conformance", `CUDA emulated, ${order}`),
      env: { ...env, EMU_ORDER: order },
    })),
    {
      ...parity(whole ? [...EMULATED_FOLDERS, "train_run"] : EMULATED_FOLDERS),
      ...{ name: "CUDA emulated, parity", show: false, env },
    },
    { ...deno("CUDA emulated, models", EMULATED_TESTS), env },
    denoTest("emu", "CUDA emulated, commands"),
  ];
}

const SANITIZERS = ["thread", "address,undefined"];
const SANITIZER_OPTIONS = {
  TSAN_OPTIONS: "halt_on_error=1",
  // Stacks of emulated threads are nothing that it searches, so what they point to would count as lost.
  ASAN_OPTIONS: "detect_leaks=0:detect_stack_use_after_return=0",
};

/** Every op of the CUDA sources under sanitizers of races, memory and undefined behaviour, in three orders of blocks and threads. */
function sanitizerSteps(): Step[] {
  return SANITIZERS.flatMap((sanitizers) =>
    ["forward", "reverse", "shuffle:1"].map((order) => ({
      ...check(`CUDA emulated, ${sanitizers}, ${order}`, emulation(sanitizers).output, []),
      env: { ...SANITIZER_OPTIONS, EMU_ORDER: order },
    }))
  );
}

/** Instruction sets of `ffi/src/cpu/isa.rs`; those above the CPU's best one are skipped by name. */
const ISAS = ["portable", "avx2", "avx512", "avx512bf16"];

/** The best code and every lower one: Rust tests, conformance, and the parity of a model and of a training run. */
function isaSteps(): Step[] {
  return ISAS.flatMap((isa) => {
    const env = { NANOCHAT_CPU_ISA: isa };
    const lacks = async () => {
      const { Device } = await import("../src/tensor/device.ts");
      using device = Device.open("cpu");
      return device.info().features.includes(isa) ? undefined : `this CPU has no ${isa}`;
    };
    return [
      { ...cargoTest(`Rust, ${isa}`, ["--", "--include-ignored"]), env, lacks },
      { ...denoTest("conformance", `conformance, ${isa}`), env, lacks },
      { ...parity(["gpt_tiny", "train_run"]), name: `parity, ${isa}`, show: false, env, lacks },
    ];
  });
}

/** `cargo test` under AddressSanitizer, optimised, with checked arithmetic; RUSTC_BOOTSTRAP lets a stable compiler take the flag. */
const ASAN = {
  args: ["test", "--release", "--locked", ...CARGO_AT, "--lib", "--tests"].concat([
    ...["--target", Deno.build.target],
    ...["--target-dir", "ffi/target/asan"],
  ]),
  env: {
    RUSTC_BOOTSTRAP: "1",
    RUSTFLAGS: "-Zsanitizer=address",
    CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS: "true",
    CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS: "true",
    // The library answers "out of memory" where the system refuses a block; the sanitizer would end the process instead.
    ASAN_OPTIONS: "allocator_may_return_null=1:detect_leaks=1",
  },
};

/** The random tests, ten times as long as in `ok` and from another seed each time (`NANOCHAT_TEST_SEED` repeats one). */
function randomSteps(): Step[] {
  const seed = Deno.env.get("NANOCHAT_TEST_SEED") ?? String(crypto.getRandomValues(new Uint16Array(1))[0]);
  const files = testFiles("unit").filter((file) =>
    /testRuns|checkMutations/.test(Deno.readTextFileSync(join(ROOT, file)))
  );
  return [
    {
      name: `random tests, seed ${seed}`,
      command: DENO,
      args: ["test", "-A", "--no-check", LOCK, ...files],
      read: readDeno,
      env: { NANOCHAT_TEST_FACTOR: "10", NANOCHAT_TEST_SEED: seed },
    },
    { ...cargoTest("Rust random tests", ["bpe::"]), env: { PROPTEST_CASES: "20000" } },
    {
      ...cargoTest("Rust damaged files", ["--test", "parquet", "damaged"]),
      env: { NANOCHAT_TEST_SEED: seed },
    },
  ];
}

/** The sandbox's tests with processes that start with every permission, as those of `deno compile` do. */
function compiledSandboxTest(): Step {
  const file = join(ROOT, "dist", "compiled");
  Deno.mkdirSync(join(ROOT, "dist"), { recursive: true }); // of a fresh clone
  const [child, folder] = [assetPath("sandboxProgram"), assetPath("sandbox")];
  const flags = "run -A --no-prompt --no-remote --no-npm --no-config --no-lock";
  const script = `#!/bin/sh\nexec '${DENO}' ${flags} '${child}' "$1" '${folder}' "$2"\n`;
  Deno.writeTextFileSync(file, script, { mode: 0o755 });
  const args = ["test", "-A", "--no-check", LOCK, "src/engine/execution_cli_test.ts"];
  return { name: "sandbox, compiled", command: DENO, args, env: { NANOCHAT_EXE: file }, read: readDeno };
}

function slowSteps(): Step[] {
  const asan: Step = {
    name: "Rust, AddressSanitizer",
    command: "cargo",
    args: ASAN.args,
    env: ASAN.env,
    read: readCargo,
  };
  return [
    denoTest("slow", "slow tests"),
    compiledSandboxTest(),
    ...randomSteps(),
    ...isaSteps(),
    asan,
    ...sanitizerSteps(),
  ];
}

function stepsOf(tier: string): Step[] {
  const launcher = { name: "launcher", command: "cargo", args: TEST_LAUNCHER, read: readCargo };
  const unit = () => [...staticSteps(), cargoTest("Rust unit tests", []), launcher, denoTest("unit", "unit tests")];
  switch (tier) {
    case "ok":
      return unit();
    case "test":
      return [
        ...unit(),
        denoTest("conformance", "conformance"),
        parity(),
        ...emulationSteps({ whole: false }),
        denoTest("cli", "command line"),
        pageTest(),
        binaryTest(),
      ];
    case "page":
      return [pageTest()];
    case "binary":
      return [binaryTest()];
    case "cuda-emu":
      return emulationSteps({ whole: true });
    case "parity":
      return [parity()];
    case "slow":
      return [
        ...slowSteps(),
        { ...check("coverage", DENO, ["run", "-A", LOCK, "dev/coverage.ts"]), show: true },
        { ...check("mutants", DENO, ["run", "-A", LOCK, "dev/mutate.ts"]), show: true },
      ];
    case "data":
      return [denoTest("data", "tests with large data")];
    case "peers quick":
      return [denoTest("peers", "other programs")];
    case "peers":
      return [denoTest("peers", "other programs"), denoTest("full_peers", "PyTorch, transformers")];
    default:
      throw new Error(`Cannot run the tests: no tier ${JSON.stringify(tier)}, expected ${Object.keys(BUDGET_MINUTES)}`);
  }
}

/** Builds in advance what the steps would build, so that no budget pays for a compiler. */
async function build(tier: string): Promise<void> {
  await setup((line) => console.log(line));
  if (tier === "test" || tier === "binary") await buildSingleFile();
  if (tier === "test" || tier === "cuda-emu") await runBuild(["dev/build_cuda.ts", "emu"]);
  for (const sanitizers of tier === "slow" ? SANITIZERS : []) {
    await runBuild(["dev/build_cuda.ts", "emu", `--sanitize=${sanitizers}`]);
  }
  if (tier.startsWith("peers")) await preparePeers(tier === "peers" ? "full" : "quick");
  const lint = { args: ["clippy", "--release", "--all-targets", "--locked", "--quiet", ...CARGO_AT] };
  const tests = { args: ["test", "--release", "--locked", "--no-run", ...CARGO_AT] };
  const asan = { args: [...ASAN.args, "--no-run"], env: ASAN.env };
  const builds: Record<string, { args: string[]; env?: Record<string, string> }[]> = {
    ok: [lint, tests, { args: LINT_LAUNCHER }, { args: [...TEST_LAUNCHER, "--no-run"] }],
    test: [lint, tests, { args: LINT_LAUNCHER }, { args: [...TEST_LAUNCHER, "--no-run"] }],
    slow: [tests, asan],
  };
  for (const { args, env } of builds[tier] ?? []) {
    // A failure here comes again, with its output, in the step that it belongs to.
    const { seconds } = await runChild({ command: "cargo", args, env, cwd: ROOT, deadlineMs: 40 * 60_000 });
    console.log(`${`cargo ${args[0]}${env ? ", AddressSanitizer" : ""}`.padEnd(44)} ${seconds.toFixed(1)} s`);
  }
}

/** Makes the single file, and its home folder an empty one; a failure comes again in its tests, which find none. */
async function buildSingleFile(): Promise<void> {
  await Deno.remove(join(ROOT, "dist", "home"), { recursive: true }).catch(() => {});
  await runBuild(["bin/build.ts"]);
}

/** Runs a program that builds something. */
async function runBuild(program: string[]): Promise<void> {
  const args = ["run", "-A", LOCK, ...program];
  const { output } = await runChild({ command: DENO, args, cwd: ROOT, deadlineMs: 20 * 60_000 });
  console.log(output.trimEnd());
}

/** Installs the judges; without them their tests are skipped, and fail in CI. */
async function preparePeers(set: PeerSet): Promise<void> {
  const start = performance.now();
  try {
    await installPeers(set);
    console.log(
      `${`Python packages in .peers (${set})`.padEnd(44)} ${((performance.now() - start) / 1000).toFixed(1)} s`,
    );
  } catch (error) {
    console.log((error as Error).message);
  }
}

/** Joins the words of the command line to tiers: `test peers quick` is "test" and "peers quick". */
export function tiersOf(args: readonly string[]): string[] {
  return args.join(" ").split(/ (?!quick(?: |$))/);
}

async function runTier(tier: string): Promise<Count> {
  const steps = stepsOf(tier);
  const budget = BUDGET_MINUTES[tier] * 60;
  const total: Count = { passed: 0, failed: 0, skipped: 0 };
  console.log("Build (not counted)");
  await build(tier);
  console.log(`\nTests of "${tier}"`);
  let seconds = 0;
  for (const { name, command, args, read, show, lacks, env: own } of steps) {
    const lacking = await lacks?.();
    if (lacking !== undefined) {
      total.skipped++;
      console.log(`skipped: ${name}, ${lacking}`);
      continue;
    }
    const env = { NO_COLOR: "1", CARGO_TERM_COLOR: "never", ...own };
    const ended = await runChild({ command, args, cwd: ROOT, env, deadlineMs: 2 * budget * 1000 });
    const count = countStep(ended, read);
    seconds += ended.seconds;
    total.passed += count.passed;
    total.failed += count.failed;
    total.skipped += count.skipped;
    const result = `${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`;
    if (show || count.failed > 0) console.log(ended.output.trimEnd());
    console.log(
      `${count.failed > 0 ? "FAILED " : ""}${name.padEnd(24)} ${ended.seconds.toFixed(1).padStart(7)} s  ${result}`,
    );
    if (!show) {
      for (const [_, skipped] of ended.output.matchAll(/^(.*) \.\.\. ignored.*$/gm)) {
        console.log(`  skipped: ${skipped}`);
      }
    }
  }
  console.log(`\n${seconds.toFixed(0)} s of a budget of ${budget / 60} minutes`);
  if (seconds > 2 * budget) {
    console.log("FAILED: more than twice the budget");
    total.failed++;
  } else if (seconds > budget) {
    console.log("WARNING: over the budget");
  }
  return total;
}

if (import.meta.main) {
  const total: Count = { passed: 0, failed: 0, skipped: 0 };
  for (const tier of tiersOf(Deno.args)) {
    try {
      const count = await runTier(tier);
      total.passed += count.passed;
      total.failed += count.failed;
      total.skipped += count.skipped;
    } catch (error) {
      console.error((error as Error).message);
      total.failed++;
    }
    console.log();
  }
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  Deno.exit(total.failed === 0 ? 0 : 1);
}
