import { assertEquals, assertStringIncludes } from "@std/assert";
import { describe } from "./doctor_command.ts";
import { parseGpus } from "../bench/doctor.ts";

Deno.test("parseGpus() reads what nvidia-smi prints", () => {
  assertEquals(parseGpus("NVIDIA H100 80GB HBM3, 81559, 570.124.06\nNVIDIA T4, 15360, 570.124.06\n"), [
    { name: "NVIDIA H100 80GB HBM3", memoryBytes: 81559 * 2 ** 20, driver: "570.124.06" },
    { name: "NVIDIA T4", memoryBytes: 15360 * 2 ** 20, driver: "570.124.06" },
  ]);
  assertEquals(parseGpus(""), []);
  assertEquals(parseGpus("No devices were found\n"), []);
});

Deno.test("describe() names each finding and what to do", () => {
  const text = describe({
    cpu: { name: "A CPU", features: [], isa: null, hardwareThreads: 3 },
    memory: { totalBytes: 2 ** 31, freeBytes: 2 ** 30 },
    disk: { folder: "/base", freeBytes: null },
    gpus: [],
    cuda: null,
    libraries: {
      cpu: { path: null, error: 'Cannot open the library "cpu": not found at /c.so; run "a"' },
      cuda: { path: "/l.so", error: "Cannot open a CUDA device: the driver is for CUDA 12.4, expected 13.0 or newer" },
    },
    ranks: {
      mpi: { names: ["libmpi.so.12"], path: "/lib/libmpi.so.12", install: "a" },
      nccl: { names: ["libnccl.so.2", "b"], path: null, install: "pip install c" },
    },
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
      'CPU library   not found at /c.so; run "a"',
      "CUDA library  /l.so, which cannot be used: the driver is for CUDA 12.4, expected 13.0 or newer",
      "MPI           /lib/libmpi.so.12; several ranks",
      'NCCL          not found (looked for libnccl.so.2, b); "pip install c" installs it; several GPUs',
      "sandbox       REFUSED",
      "will be used  nothing",
      'to do         run "a"\nto do         run "b"',
    ]
  ) assertStringIncludes(text, line);
});
