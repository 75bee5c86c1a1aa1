/** `nanochat doctor`, and what commands do where the sandbox grants what it must not: a copy of the program with a spoilt sandbox. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { runChild } from "../../dev/process.ts";
import { ROOT } from "../../dev/setup.ts";
import { temporaryFolder } from "../../dev/testing.ts";
import { examine } from "../bench/doctor.ts";
import { findLibrary } from "../native/load.ts";

Deno.test("nanochat doctor --json says what will be used", async () => {
  await withFolder(async (folder) => {
    const { code, stdout, stderr } = await nanochat(["doctor", "--json", `--base-dir=${folder}`]);
    assertEquals([code, stderr], [0, ""]);
    const found = JSON.parse(stdout);
    const keys = "version cpu memory disk gpus cuda libraries mpi nccl sandbox uses advice";
    assertEquals(Object.keys(found), keys.split(" "));
    assertEquals([found.sandbox.level, found.uses.device], ["process", "cpu"]);
    for (const library of [found.mpi, found.nccl]) assertEquals(Object.keys(library), ["names", "path", "install"]);
  });
});

Deno.test("examine() finds what is there, makes nothing and says why", async () => {
  using folder = temporaryFolder();
  const base = join(folder.path, "not", "yet");
  const asked: string[] = [];
  const found = await examine(base, {
    run: (program) => {
      asked.push(program);
      return Promise.resolve("NVIDIA T4, 15360, 570.124.06\n");
    },
    env: (name) => name === "NANOCHAT_NCCL" ? base : undefined,
  });
  assertEquals(asked, ["nvidia-smi", "ldconfig"]);
  assertEquals([...Deno.readDirSync(folder.path)], []);
  const { cpu, memory, disk, gpus, libraries, sandbox, uses, advice } = found;
  assert(cpu.features.includes(cpu.isa!), `${cpu.isa} of ${cpu.features}`);
  if (Deno.build.os === "linux" && Deno.build.arch === "x86_64") {
    const hasVnni = /\b(avx512_vnni|avx_vnni)\b/.test(Deno.readTextFileSync("/proc/cpuinfo"));
    assertEquals(cpu.features.includes("vnni"), hasVnni, cpu.features.join());
  }
  assert(!uses!.why.join().includes("vnni"), "it is no instruction set to choose");
  assert(memory.freeBytes > 0 && memory.freeBytes <= memory.totalBytes, JSON.stringify(memory));
  assert(disk.freeBytes! > 0 && disk.folder === base, JSON.stringify(disk));
  assertEquals(gpus.map(({ name }) => name), ["NVIDIA T4"]);
  assertEquals(libraries.cpu.error, null);
  assertStringIncludes(advice.join("\n"), `NANOCHAT_NCCL names "${base}", which is not there`);
  assert(Deno.statSync(libraries.cpu.path!).isFile);
  assertEquals(sandbox, { level: "process", guard: Deno.build.os === "linux" ? "kernel" : "resident", error: null });
  assert(uses!.threads >= 1 && uses!.threads <= cpu.hardwareThreads, JSON.stringify(uses));
  assertStringIncludes(uses!.why.join(), "the GPU cannot be used: ");
  assert(advice.includes(libraries.cuda.error!), advice.join());
});

/** A driver that knows its version and nothing else. */
const OLD_DRIVER = `
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int* version) { *version = 12040; return 0; }
int cuGetProcAddress(const char* name, void** function, int version, unsigned long flags) { *function = 0; return 500; }
`;

Deno.test({
  name: "a driver that is too old is named with its version and the one that is needed",
  ignore: Deno.build.os !== "linux" || findLibrary("cuda") === undefined, // deno task build:cuda makes the library
  async fn() {
    await withFolder(async (folder) => {
      const source = join(folder, "driver.c");
      await Deno.writeTextFile(source, OLD_DRIVER);
      const args = ["-shared", "-fPIC", source, "-o", join(folder, "libcuda.so.1")];
      const { code, output } = await runChild({ command: "cc", args, deadlineMs: 60_000 });
      assertEquals(code, 0, output);
      const ended = await nanochat(["selftest", "--device-type=cuda"], { env: { LD_LIBRARY_PATH: folder } });
      assertEquals([ended.code, ended.stderr.trim()], [
        1,
        "Cannot open a CUDA device: the driver is for CUDA 12.4, expected 13.0 or newer",
      ]);
    });
  },
});

async function copyTree(from: string, to: string): Promise<void> {
  await Deno.mkdir(to);
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    const [source, target] = [join(from, name), join(to, name)];
    if (isDirectory) await copyTree(source, target);
    else await Deno.copyFile(source, target);
  }
}

/** Changes of child.js that open something, the command that must refuse, and what it must name. */
const OPENED: [from: string, to: string, args: string[], named: string][] = [
  [`await Deno.permissions.revoke({ name: "read" });`, "", ["eval", "chat", "-a", "HumanEval"], "granted: read"],
  [`!remove(root, name)`, `name !== "Worker" && !remove(root, name)`, ["doctor"], "granted: the global object"],
  [`import _sandbox; _sandbox.seal(); del _sandbox`, "", ["doctor"], "the module js was granted"],
];

Deno.test("nanochat doctor and eval chat refuse to go on where the sandbox grants anything", async () => {
  await withFolder(async (folder) => {
    for (const name of ["bin", "src", "tasks", "links"]) await copyTree(join(ROOT, name), join(folder, name));
    for (const name of ["deno.json", "deno.lock", "import_map.json"]) {
      await Deno.copyFile(join(ROOT, name), join(folder, name));
    }
    for (const name of ["ffi", "dist"]) await Deno.symlink(join(ROOT, name), join(folder, name));
    const script = join(folder, "bin", "nanochat");
    const child = join(folder, "src", "engine", "sandbox", "child.js");
    const good = await Deno.readTextFile(child);
    for (const [from, to, args, named] of OPENED) {
      assertStringIncludes(good, from);
      await Deno.writeTextFile(child, good.replace(from, to));
      const { code, stdout, stderr } = await nanochat([...args, `--base-dir=${folder}`], { script });
      assertStringIncludes(stdout + stderr, named);
      assertMatch(stderr, /^Cannot (run Python|start the Python sandbox|vouch for the sandbox): /);
      assertEquals(code, 3, named);
    }
  });
});
