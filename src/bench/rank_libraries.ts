/**
 * Where the libraries of several ranks lie: MPI between CPUs, NCCL between GPUs. They are looked for where the system's loader and the
 * packages of Python keep them, and not opened.
 */
import { dirname, join } from "@std/path";
import { entries } from "../data/base_dir.ts";
import type { System } from "./doctor.ts";

/** A library of other people's that is opened at run time. */
export interface RankLibrary {
  /** File names that would do, the first one first. */
  readonly names: readonly string[];
  /** Where one lies; null where none was found. */
  readonly path: string | null;
  /** Command that installs it. */
  readonly install: string;
}

/** What is looked for. */
const WANTED = {
  // The interface of MPICH, which Intel's and Cray's MPI share, that of MPI 5, and Open MPI.
  mpi: {
    names: ["libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1", "libmpi.so.40"],
    install: "apt-get install mpich",
  },
  nccl: { names: ["libnccl.so.2"], install: "pip install nvidia-nccl-cu13" },
} as const;

/** Names of the libraries. */
export type RankLibraryName = keyof typeof WANTED;

/** Looks for both. */
export async function findRankLibraries(system: System): Promise<Readonly<Record<RankLibraryName, RankLibrary>>> {
  const { env } = system;
  const cache = await system.run("ldconfig", ["-p"]) ?? await system.run("/sbin/ldconfig", ["-p"]) ?? "";
  const folders = (env("LD_LIBRARY_PATH") ?? "").split(":").filter((folder) => folder !== "");
  const environment = env("VIRTUAL_ENV");
  const python = environment === undefined
    ? []
    : entries(join(environment, "lib")).map(({ name }) => join(environment, "lib", name, "site-packages", "nvidia"));
  const launcher = launcherPath(env);
  const own = {
    mpi: launcher === undefined ? [] : [join(dirname(launcher), "..", "lib")],
    nccl: [...python.map((folder) => join(folder, "nccl", "lib")), ...toolkit(env("CUDA_HOME"))],
  };
  const find = (name: RankLibraryName, given?: string): RankLibrary => {
    const { names, install } = WANTED[name];
    const candidates = [...folders, ...own[name]].flatMap((folder) => names.map((file) => join(folder, file)));
    const path = [...(given ? [given] : []), ...candidates].find(isFile) ?? inCache(cache, names);
    return { names, path: path ?? null, install };
  };
  return { mpi: find("mpi"), nccl: find("nccl", env("NANOCHAT_NCCL")) };
}

/** Says which variables name a file that is not there: something else is taken in its place. */
export function wrongVariables({ env }: Pick<System, "env">): string[] {
  return ["NANOCHAT_NCCL", "NANOCHAT_MPIEXEC"].filter((name) => env(name) && !isFile(env(name)!))
    .map((name) => `${name} names "${env(name)}", which is not there; set it to the path of a file, or not at all`);
}

const toolkit = (home: string | undefined) => home ? [join(home, "lib64"), join(home, "lib")] : [];

/** The `mpiexec` that would start ranks, links followed. */
function launcherPath(env: System["env"]): string | undefined {
  const given = env("NANOCHAT_MPIEXEC");
  const folders = (env("PATH") ?? "").split(":").filter((folder) => folder !== "");
  const found = given || folders.map((folder) => join(folder, "mpiexec")).find(isFile);
  try {
    return found && Deno.realPathSync(found);
  } catch {
    return undefined; // NANOCHAT_MPIEXEC names nothing
  }
}

/** Reads the loader's list, `\tlibmpi.so.12 (libc6,x86-64) => /usr/lib/libmpi.so.12`. */
function inCache(cache: string, names: readonly string[]): string | undefined {
  const rows = [...cache.matchAll(/^\s*(\S+) \(.*\) => (\S+)$/gm)];
  return names.flatMap((name) => rows.filter((row) => row[1] === name).map((row) => row[2])).at(0);
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
