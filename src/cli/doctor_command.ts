/** `nanochat doctor`: what this machine offers, what will be used and why, and what to do about what is missing. */
import { format as formatBytes } from "@std/fmt/bytes";
import { type Examination, examine, reason } from "../bench/doctor.ts";
import { resolveBaseDir } from "../data/base_dir.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";
import { VERSION } from "./version.ts";

/** Examines and shows; returns 0, 1 where nothing can compute, 3 where the sandbox grants what it must not. */
export async function doctor(
  { baseDir, terminal }: { readonly baseDir?: string; readonly terminal: Terminal },
): Promise<number> {
  const found = await examine(resolveBaseDir(baseDir));
  terminal.result(describe(found), jsonOf(found));
  if (found.sandbox.level === "refused") {
    terminal.error("Cannot vouch for the sandbox: it grants what it must not, expected that all is refused");
    return EXIT.REFUSED;
  }
  return found.uses === null ? EXIT.FAILED : EXIT.DONE;
}

const TYPES = { f32: "fp32", bf16: "bf16" };
const GUARDS = { kernel: "the kernel", resident: "reading its size every 20 ms" };

/** Writes the examination as lines of a topic and what was found. */
export function describe(
  { cpu, memory, disk, gpus, cuda, libraries, ranks, sandbox, uses, advice }: Examination,
): string {
  const size = (bytes: number) => formatBytes(bytes, { binary: true });
  const library = (kind: "cpu" | "cuda") => {
    const { path, error } = libraries[kind];
    return error === null ? path! : path === null ? reason(error) : `${path}, which cannot be used: ${reason(error)}`;
  };
  const rankLibrary = (kind: keyof typeof ranks) => {
    const { names, path, install } = ranks[kind];
    return path ?? `not found (looked for ${names.join(", ")}); "${install}" installs it`;
  };
  const sandboxes = {
    none: "none: programs that a model writes are not run",
    refused: "REFUSED: the self-test was granted what it must not be",
    process: `each program in a process of its own without permissions, its memory limited by ${
      sandbox.guard && GUARDS[sandbox.guard]
    }; the self-test was refused everything`,
  };
  const rows: [string, string][] = [
    ["program", VERSION],
    ["CPU", [cpu.name, ...cpu.features].join(", ")],
    ["cores", `${cpu.hardwareThreads} hardware threads that this process may use`],
    ["memory", `${size(memory.totalBytes)}, ${size(memory.freeBytes)} of it free`],
    ["disk", `${disk.freeBytes === null ? "unknown space" : size(disk.freeBytes)} free for ${disk.folder}`],
    [
      "GPU",
      gpus.map((gpu) => `${gpu.name}, ${size(gpu.memoryBytes)}, driver ${gpu.driver}`).join("; ") || "none found",
    ],
    ["CPU library", library("cpu")],
    ["CUDA library", library("cuda")],
    ...cuda ? [["CUDA device", [cuda.name, ...cuda.features].join(", ")] as [string, string]] : [],
    ["MPI", `${rankLibrary("mpi")}; several ranks on CPUs would use it, this version has one`],
    ["NCCL", `${rankLibrary("nccl")}; several GPUs would use it, this version uses none`],
    ["sandbox", sandboxes[sandbox.level]],
    [
      "will be used",
      uses === null
        ? "nothing: without the CPU library there is nothing to compute with"
        : `${uses.device}, ${cuda?.name ?? cpu.isa}, ${TYPES[uses.dtype]}, ${uses.threads} ${
          uses.threads === 1 ? "thread" : "threads"
        }: ${uses.why.join("; ")}`,
    ],
    ...advice.map((text): [string, string] => ["to do", text]),
  ];
  return rows.map(([topic, text]) => `${topic.padEnd(13)} ${text}`).join("\n");
}

/** The same for programs, with the names of `--json`. */
function jsonOf({ cpu, memory, disk, gpus, cuda, libraries, ranks, sandbox, uses, advice }: Examination): unknown {
  return {
    version: VERSION,
    cpu: { name: cpu.name, features: cpu.features, isa: cpu.isa, hardware_threads: cpu.hardwareThreads },
    memory: { total_bytes: memory.totalBytes, free_bytes: memory.freeBytes },
    disk: { folder: disk.folder, free_bytes: disk.freeBytes },
    gpus: gpus.map(({ name, memoryBytes, driver }) => ({ name, memory_bytes: memoryBytes, driver })),
    cuda,
    libraries,
    mpi: ranks.mpi,
    nccl: ranks.nccl,
    sandbox,
    uses: uses && { ...uses, dtype: TYPES[uses.dtype] },
    advice,
  };
}
