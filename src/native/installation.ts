/**
 * Where the program's own files lie, and how it starts itself again: in a checkout, where each file's build puts it; in the single file
 * that `deno task build` makes, beside the unpacked program.
 *
 * `bin/build.ts` packs the rows of the table, so that the two cannot differ.
 */
import { basename, join, toFileUrl } from "@std/path";

/** Whether this is the bundled program: then the code is JavaScript. */
const isBundled = !import.meta.url.endsWith(".ts");
const here = import.meta.dirname ?? ".";

/** Root of the checkout; undefined in the single file. */
export const CHECKOUT = isBundled ? undefined : join(here, "..", "..");

/** File name of a native library on this operating system. */
function library(name: string): string {
  return Deno.build.os === "darwin" ? `libnanochat_${name}.dylib` : `libnanochat_${name}.so`;
}

/** A file or folder of the program: where it lies in a checkout, from its root, and in the unpacked folder. */
interface Asset {
  readonly checkout: string;
  readonly packed: string;
  /** The single file is made without it: where it was not built, or in any case. */
  readonly left?: "unbuilt" | "always";
}

/** What the program has beside its code. */
export const ASSETS = {
  cpu: { checkout: `ffi/target/release/${library("cpu")}`, packed: library("cpu") },
  cuda: { checkout: `kernels_cu/build/${library("cuda")}`, packed: library("cuda"), left: "unbuilt" },
  cuda_emu: { checkout: `kernels_cu/build/${library("cuda_emu")}`, packed: library("cuda_emu"), left: "always" },
  sandbox: { checkout: "dist/sandbox", packed: "sandbox" },
  page: { checkout: "dist/page/index.html", packed: "page.html" },
  logo: { checkout: "src/server/page/logo.svg", packed: "logo.svg" },
  sandboxProgram: { checkout: "src/engine/sandbox/child.js", packed: "child.js" },
} as const satisfies Record<string, Asset>;

/** Gives the path at which an asset lies, or would lie. */
export function assetPath(name: keyof typeof ASSETS): string {
  return CHECKOUT === undefined ? join(here, ASSETS[name].packed) : join(CHECKOUT, ASSETS[name].checkout);
}

/** Program of the thread that runs a model; the bundle has it as a second entry. */
export const WORKER_ENTRY = "bin/model_worker.ts";

/** Gives the address of that program. */
export function workerUrl(): URL {
  if (CHECKOUT !== undefined) return toFileUrl(join(CHECKOUT, WORKER_ENTRY));
  return toFileUrl(join(here, basename(WORKER_ENTRY).replace(/\.ts$/, ".js")));
}

/** File beside the unpacked program: the commit that it was built from. */
export const COMMIT_FILE = "commit.txt";

/** Reads it; null where the sources had none. */
export function packedCommit(): string | null {
  try {
    return Deno.readTextFileSync(join(here, COMMIT_FILE));
  } catch {
    return null;
  }
}

/** Path of the single file that runs; undefined in a checkout. Its launcher sets the variable. */
function singleFile(): string | undefined {
  return Deno.env.get("NANOCHAT_EXE") || (Deno.build.standalone ? Deno.execPath() : undefined);
}

/** Gives the file that starts the program as a user would. */
export function programFile(): string {
  return singleFile() ?? join(CHECKOUT ?? here, "bin", "nanochat");
}

/** Arguments of deno for a process that runs a program which nobody has read; it may read the folder and nothing else. */
export function sandboxArguments(program: string, folder: string): string[] {
  const flags = ["--quiet", "--no-prompt", "--no-remote", "--no-npm", "--no-config", "--no-lock"];
  return ["run", ...flags, `--allow-read=${folder}`, program, folder];
}

/** First argument with which the single file starts that process. */
export const SANDBOX_WORD = "--python-sandbox";
/** What the launcher needs of the environment to find its cache, which may have been emptied meanwhile. */
const CACHE_VARIABLES = ["NANOCHAT_CACHE", "XDG_CACHE_HOME", "HOME", "TMPDIR", "NANOCHAT_BASE_DIR"];

/** A process to start: program, arguments, environment. */
export interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/**
 * Says how a sandbox process is started.
 *
 * @throws {Error} where its files are missing, with the command that makes them.
 */
export function sandboxLaunch({ v8Flags, outputBytes }: { v8Flags: string[]; outputBytes: number }): Launch {
  const env: Record<string, string> = { DENO_V8_FLAGS: v8Flags.join(",") };
  const command = singleFile();
  if (command !== undefined) {
    for (const name of CACHE_VARIABLES) {
      const value = Deno.env.get(name);
      if (value !== undefined) env[name] = value;
    }
    const folder = Deno.build.standalone ? [assetPath("sandbox")] : []; // the launcher knows it
    return { command, args: [SANDBOX_WORD, ...folder, String(outputBytes)], env };
  }
  const [program, folder] = [assetPath("sandboxProgram"), realFolder(assetPath("sandbox"))];
  if (folder === undefined) {
    throw new Error(`Cannot run Python: its files are not at ${assetPath("sandbox")}; run "deno task build:sandbox"`);
  }
  if (folder.includes(",")) { // Deno would read it as two folders
    throw new Error(`Cannot run Python: its files are at "${folder}", expected a path without a comma`);
  }
  return { command: Deno.execPath(), args: [...sandboxArguments(program, folder), String(outputBytes)], env };
}

function realFolder(path: string): string | undefined {
  try {
    return Deno.realPathSync(path);
  } catch {
    return undefined;
  }
}
