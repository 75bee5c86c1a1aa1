import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { describe } from "./doctor_command.ts";
import { examine, parseGpus } from "../bench/doctor.ts";

Deno.test("parseGpus() reads what nvidia-smi prints", () => {
  assertEquals(parseGpus("NVIDIA H100 80GB HBM3, 81559, 570.124.06\nNVIDIA T4, 15360, 570.124.06\n"), [
    { name: "NVIDIA H100 80GB HBM3", memoryBytes: 81559 * 2 ** 20, driver: "570.124.06" },
    { name: "NVIDIA T4", memoryBytes: 15360 * 2 ** 20, driver: "570.124.06" },
  ]);
  assertEquals(parseGpus(""), []);
  assertEquals(parseGpus("No devices were found\n"), []);
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
    env: () => undefined,
  });
  assertEquals(asked, ["nvidia-smi"]);
  assertEquals([...Deno.readDirSync(folder.path)], []);
  const { cpu, memory, disk, gpus, libraries, sandbox, uses } = found;
  assert(cpu.features.includes(cpu.isa!), `${cpu.isa} of ${cpu.features}`);
  assert(memory.freeBytes > 0 && memory.freeBytes <= memory.totalBytes, JSON.stringify(memory));
  assert(disk.freeBytes! > 0 && disk.folder === base, JSON.stringify(disk));
  assertEquals(gpus.map(({ name }) => name), ["NVIDIA T4"]);
  assertEquals(libraries.cpu.error, null);
  assert(Deno.statSync(libraries.cpu.path!).isFile);
  assertEquals(sandbox, { level: "process", guard: Deno.build.os === "linux" ? "kernel" : "resident", error: null });
  assert(uses!.threads >= 1 && uses!.threads <= cpu.hardwareThreads, JSON.stringify(uses));
  assert(uses!.why.includes("this version computes on the CPU alone"));
});

Deno.test("describe() names each finding and what to do", () => {
  const text = describe({
    cpu: { name: "A CPU", features: [], isa: null, hardwareThreads: 3 },
    memory: { totalBytes: 2 ** 31, freeBytes: 2 ** 30 },
    disk: { folder: "/base", freeBytes: null },
    gpus: [],
    libraries: { cpu: { path: null, error: 'run "a"' }, cuda: { path: "/l.so", error: 'run "b"' } },
    sandbox: { level: "refused", guard: null, error: "a fork was granted" },
    uses: null,
    advice: ['run "a"', 'run "b"'],
  });
  for (
    const line of [
      "CPU           A CPU",
      "cores         3 hardware threads",
      "memory        2 GiB, 1 GiB of it free",
      "disk          unknown space free for /base",
      "GPU           none found",
      "CPU library   not found",
      "CUDA library  /l.so, which cannot be used",
      "sandbox       REFUSED",
      "will be used  nothing",
      'to do         run "a"\nto do         run "b"',
    ]
  ) assertStringIncludes(text, line);
});
