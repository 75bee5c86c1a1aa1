/**
 * Looks at the machine: what it offers, what of it the program will use and why, and what to do about what is missing.
 *
 * Nothing is guessed: the native library is opened, the sandbox runs its self-test, the disk is asked. What is absent is a finding, not
 * an error.
 */
import { dirname } from "@std/path";
import { PythonPool } from "../engine/execution.ts";
import { SandboxError } from "../engine/sandbox/denials.ts";
import { freeDiskBytes } from "../native/files.ts";
import { findLibrary, type LibraryKind } from "../native/load.ts";
import { cpuName } from "../report/environment.ts";
import { chooseComputeType, Device, type DeviceInfo, type MemoryInfo } from "../tensor/device.ts";
import type { ComputeType } from "../tensor/dtype.ts";
import { findRankLibraries, type RankLibrary, type RankLibraryName, wrongVariables } from "./rank_libraries.ts";

/** A native library: where it lies, and why it cannot be used; neither where it is absent. */
export interface LibraryFinding {
  readonly path: string | null;
  readonly error: string | null;
}

/** A graphics processor of NVIDIA. */
export interface Gpu {
  readonly name: string;
  readonly memoryBytes: number;
  readonly driver: string;
}

/** How programs of a model are run: not at all, not because the self-test failed, or in processes without permissions. */
export type SandboxLevel = "none" | "refused" | "process";

/** What was found. */
export interface Examination {
  readonly cpu: {
    readonly name: string;
    /** Instruction sets with code of their own that the CPU has, "vnni" (products of bytes) behind them; [] without the library. */
    readonly features: readonly string[];
    /** The one in use; null without the library. */
    readonly isa: string | null;
    /** Hardware threads that the process may use. */
    readonly hardwareThreads: number;
  };
  readonly memory: { readonly totalBytes: number; readonly freeBytes: number };
  /** The file system of the base folder; free space is null without the library. */
  readonly disk: { readonly folder: string; readonly freeBytes: number | null };
  readonly gpus: readonly Gpu[];
  /** The CUDA device that commands would use, with its abilities; null where none can be used. */
  readonly cuda: { readonly name: string; readonly features: readonly string[] } | null;
  readonly libraries: Readonly<Record<"cpu" | "cuda", LibraryFinding>>;
  /** What several ranks would use; this version has one. */
  readonly ranks: Readonly<Record<RankLibraryName, RankLibrary>>;
  /** `guard`: what limits memory; null where nothing runs. */
  readonly sandbox: {
    readonly level: SandboxLevel;
    readonly guard: "kernel" | "resident" | null;
    readonly error: string | null;
  };
  /** What commands compute on without further flags; null where nothing can compute. */
  readonly uses: { device: "cpu" | "cuda"; dtype: ComputeType; threads: number; why: readonly string[] } | null;
  /** What to do about what is missing, one sentence each. */
  readonly advice: readonly string[];
}

/** What the examination asks of the system; tests give other answers. */
export interface System {
  /** Runs a program and returns what it prints; undefined where it is absent or fails. */
  run(program: string, args: readonly string[]): Promise<string | undefined>;
  /** Reads an environment variable. */
  env(name: string): string | undefined;
}

const SYSTEM: System = {
  async run(program, args) {
    try {
      const { success, stdout } = await new Deno.Command(program, { args: [...args], stderr: "null" }).output();
      return success ? new TextDecoder().decode(stdout) : undefined;
    } catch {
      return undefined; // it is not installed
    }
  },
  env: (name) => Deno.env.get(name),
};

/** What a message "Cannot do this: what is" says after the colon. */
export function reason(message: string): string {
  return message.replace(/^Cannot [^:]*: /, "");
}

const LITTLE_DISK = 1e9; // a small run takes 0.2 GB, its checkpoints are written beside the old ones

/** Examines the machine for a base folder, which need not exist. */
export async function examine(base: string, system: System = SYSTEM): Promise<Examination> {
  const libraries = { cpu: tryLibrary("cpu"), cuda: tryLibrary("cuda") };
  using device = libraries.cpu.error === null ? Device.open("cpu") : undefined;
  using card = libraries.cuda.error === null ? Device.open("cuda") : undefined;
  const info = device?.info(), cuda = card?.info();
  const { total, available } = Deno.systemMemoryInfo();
  const memory: Pick<MemoryInfo, "total" | "free"> = device?.memory() ?? { total, free: available };
  const disk = { folder: base, freeBytes: device ? freeDiskBytes(device, existing(base)) : null };
  const gpus = await findGpus(system);
  const sandbox = device ? await trySandbox() : { level: "none" as const, guard: null, error: libraries.cpu.error };
  const dtype = device && chooseComputeType(device);
  const wanted = system.env("NANOCHAT_CPU_ISA");
  const why = info && dtype ? reasons(info, { dtype, gpus, cudaError: libraries.cuda.error, wanted }) : [];
  const threads = info?.threads ?? 1; // a GPU has the same beside it, for files and text
  const uses: Examination["uses"] = card && device
    ? { device: "cuda", dtype: chooseComputeType(card), threads, why: ["a CUDA device is here"] }
    : dtype
    ? { device: "cpu", dtype, threads, why }
    : null;
  const advice = [libraries.cpu.error, device ? sandbox.error : null, gpus.length > 0 ? libraries.cuda.error : null]
    .filter((text) => text !== null);
  advice.push(...wrongVariables(system));
  if (disk.freeBytes !== null && disk.freeBytes < LITTLE_DISK) {
    advice.push(`Little disk space is left at "${base}"; free some, or choose another folder with --base-dir`);
  }
  return {
    cpu: {
      name: cpuName(),
      features: info?.features ?? [],
      isa: info?.isa ?? null,
      hardwareThreads: navigator.hardwareConcurrency,
    },
    memory: { totalBytes: memory.total, freeBytes: memory.free },
    disk,
    gpus,
    cuda: cuda ? { name: cuda.name, features: cuda.features } : null,
    libraries,
    ranks: await findRankLibraries(system),
    sandbox,
    uses,
    advice,
  };
}

/** Reads the lines of nvidia-smi: name, MiB, driver. */
export function parseGpus(lines: string): Gpu[] {
  return lines.split("\n").map((line) => line.split(", ")).filter((cells) => cells.length === 3)
    .map(([name, mib, driver]) => ({ name, memoryBytes: Number(mib) * 2 ** 20, driver: driver.trim() }));
}

async function findGpus({ run }: System): Promise<Gpu[]> {
  const query = "--query-gpu=name,memory.total,driver_version";
  return parseGpus(await run("nvidia-smi", [query, "--format=csv,noheader,nounits"]) ?? "");
}

/** Opens a library, as a command would. */
function tryLibrary(kind: LibraryKind): LibraryFinding {
  const path = findLibrary(kind) ?? null;
  try {
    using _device = Device.open(kind);
    return { path, error: null };
  } catch (error) {
    return { path, error: (error as Error).message };
  }
}

/** Opens a pool, which runs the self-test. */
async function trySandbox(): Promise<Examination["sandbox"]> {
  try {
    await using pool = await PythonPool.open({ size: 1 });
    return { level: "process", guard: pool.guard, error: null };
  } catch (error) {
    const level = error instanceof SandboxError ? "refused" : "none";
    return { level, guard: null, error: (error as Error).message };
  }
}

/** The nearest folder above that exists. */
function existing(path: string): string {
  for (let folder = path;; folder = dirname(folder)) {
    try {
      if (Deno.statSync(folder).isDirectory || folder === dirname(folder)) return folder;
    } catch {
      if (folder === dirname(folder)) return folder;
    }
  }
}

/** Says why device, element type and instruction set are what they are. */
function reasons(
  { isa, features }: DeviceInfo,
  { dtype, gpus, cudaError, wanted }: {
    dtype: ComputeType;
    gpus: readonly Gpu[];
    cudaError: string | null;
    wanted?: string;
  },
): string[] {
  const best = features.findLast((name) => name !== "vnni");
  return [
    gpus.length === 0 ? "no NVIDIA GPU is here" : `the GPU cannot be used: ${reason(cudaError ?? "")}`,
    dtype === "bf16" ? "the CPU multiplies bf16 faster than fp32" : "the CPU multiplies fp32 at least as fast as bf16",
    ...isa === best
      ? []
      : [wanted === isa ? `NANOCHAT_CPU_ISA asks for ${isa}` : `${isa} is faster on this CPU than ${best}`],
  ];
}
