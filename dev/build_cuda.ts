/**
 * Builds the libraries of `kernels_cu/`: `deno run -A dev/build_cuda.ts emu` the emulation, which g++ compiles for this processor, and
 * `cuda` the real one, for which the tool chain is fetched from PyPI into `.cuda/`. Only what changed is compiled again.
 *
 * `cuda` compiles for sm_80 and sm_90a and adds PTX; with `--all` for every architecture that is supported, with `--arch=90a` for one.
 * `emu --sanitize=thread` (or `address,undefined`) builds a program beside it that calls every op of the emulation under sanitizers.
 * `--probe` builds, in place of the library, the program of `kernels_cu/probe/`, which dev/gpu_check.sh runs.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { basename, join } from "@std/path";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { assetPath } from "../src/native/installation.ts";

const SOURCES = join(ROOT, "kernels_cu");
const BUILD = join(SOURCES, "build");
/** Exact versions, as PyTorch 2.11 has them: one environment serves both. */
const TOOL_CHAIN = ["cuda-toolkit[nvcc,crt,nvvm,cccl,cudart,cublas]==13.0.2", "nvidia-nccl-cu13==2.28.9"];
const ENVIRONMENT = join(ROOT, ".cuda");
const ARCHITECTURES = ["80", "86", "89", "90a", "100a", "120a"];
const USUAL = ["80", "90a"];
/** The oldest one: a driver compiles it for every later architecture, as it cannot that of a newer or a special one. */
const PTX = "80";
const MINUTES = 60_000;
const DRIVER = "driver.cpp";

export interface Compiler {
  /** Part of the names of object files. */
  readonly name: string;
  readonly command: string;
  readonly flags: readonly string[];
  /** More flags, by file name. */
  readonly flagsOf?: Readonly<Record<string, readonly string[]>>;
  readonly link: readonly string[];
  readonly sources: readonly string[];
  readonly output: string;
}

async function run(command: string, args: readonly string[]): Promise<string> {
  const { code, output } = await runChild({ command, args, cwd: SOURCES, deadlineMs: 30 * MINUTES });
  if (code !== 0) {
    throw new Error(`Cannot build: "${command} ${args.join(" ")}" ended with ${code}:\n${output.trimEnd()}`);
  }
  return output;
}

function listed(folder: string, pattern: RegExp): string[] {
  return [...Deno.readDirSync(join(SOURCES, folder))].map(({ name }) => join(folder, name)).filter((name) =>
    pattern.test(name)
  ).sort();
}

/** Compiles what changed, two files at a time, and links; tells whether there was anything to do. */
async function build({ name, command, flags: common, flagsOf, link, sources, output }: Compiler): Promise<boolean> {
  await Deno.mkdir(BUILD, { recursive: true });
  const headers = ["", "emu"].flatMap((folder) => listed(folder, /\.(h|cuh)$/));
  const texts = headers.map((file) => Deno.readTextFileSync(join(SOURCES, file)));
  const objects = sources.map((source) => {
    const text = Deno.readTextFileSync(join(SOURCES, source));
    const flags = [...common, ...flagsOf?.[basename(source)] ?? []];
    const hash = createHash("sha256").update(JSON.stringify([command, flags, texts, text])).digest("hex").slice(0, 16);
    return { source, flags, object: join(BUILD, `${basename(source)}.${name}.${hash}.o`) };
  });
  const missing = objects.filter(({ object }) => !existsSync(object));
  const worker = async () => {
    for (let next = missing.shift(); next; next = missing.shift()) {
      await run(command, [...next.flags, "-c", next.source, "-o", `${next.object}.tmp`]);
      await Deno.rename(`${next.object}.tmp`, next.object);
    }
  };
  // What the file was linked from: objects of another choice of architectures may all be there too.
  const stamp = `${output}.objects`, linked = objects.map(({ object }) => basename(object)).join("\n");
  const changed = !existsSync(output) || !existsSync(stamp) || Deno.readTextFileSync(stamp) !== linked;
  await Promise.all(Array.from({ length: navigator.hardwareConcurrency }, worker));
  if (!changed) return false;
  await Deno.remove(stamp).catch(() => {});
  await run(command, [
    ...link,
    ...objects.map(({ object }) => object),
    "-o",
    `${output}.tmp`,
    "-ldl",
    "-lpthread",
    "-lrt",
  ]);
  await Deno.rename(`${output}.tmp`, output);
  await Deno.writeTextFile(stamp, linked);
  const current = new Set(objects.map(({ object }) => object));
  for (const { name: file } of Deno.readDirSync(BUILD)) {
    const path = join(BUILD, file);
    if (file.includes(`.${name}.`) && file.endsWith(".o") && !current.has(path)) Deno.removeSync(path);
  }
  return true;
}

const WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"];

/** The emulation, or with sanitizers ("thread", or "address,undefined") a program that calls every op of it. */
export function emulation(sanitizers?: string): Compiler {
  const name = sanitizers ? `emu_${sanitizers.replaceAll(",", "_")}` : "emu";
  const sanitize = sanitizers ? [`-fsanitize=${sanitizers}`, "-fno-sanitize-recover=all", "-g1", "-O1"] : ["-O2"];
  const flags = ["-std=c++17", ...sanitize, "-march=x86-64-v3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"];
  const cpp = listed("emu", /\.cpp$/).filter((file) => sanitizers || basename(file) !== DRIVER);
  return {
    ...{ name, command: "g++", flags: [...flags, ...WARNINGS, "-x", "c++"] },
    // The scheduler of CUDA's threads tells the sanitizer of races what orders them; what it does itself must not.
    flagsOf: { "cuda_emu_block.cpp": sanitizers === "thread" ? ["-fno-sanitize=thread", "-DEMU_TSAN"] : [] },
    link: sanitizers ? sanitize : ["-shared", ...sanitize],
    sources: [...listed("", /\.cu$/), ...cpp],
    output: sanitizers ? join(BUILD, `driver_${name}`) : assetPath("cuda_emu"),
  };
}

/** The library for cards; its tool chain is fetched where it is missing. */
export async function forCards(architectures: readonly string[]): Promise<Compiler> {
  const stamp = join(ENVIRONMENT, "installed.txt");
  const wanted = TOOL_CHAIN.join("\n");
  if (!existsSync(stamp) || Deno.readTextFileSync(stamp) !== wanted) {
    await run("python3", ["-m", "venv", ENVIRONMENT]);
    await run(join(ENVIRONMENT, "bin", "pip"), ["install", "--quiet", ...TOOL_CHAIN]);
    await Deno.writeTextFile(stamp, wanted);
  }
  const packages = join(ENVIRONMENT, "lib", [...Deno.readDirSync(join(ENVIRONMENT, "lib"))][0].name, "site-packages");
  const home = join(packages, "nvidia", "cu13");
  const targets = architectures.flatMap((each) => ["-gencode", `arch=compute_${each},code=sm_${each}`]);
  const ptx = ["-gencode", `arch=compute_${PTX},code=compute_${PTX}`];
  const host = "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unknown-pragmas";
  const include = ["-I", join(packages, "nvidia", "nccl", "include")];
  return {
    ...{ name: `sm_${architectures.join("_")}`, command: join(home, "bin", "nvcc") },
    flags: [
      "-std=c++17",
      "-O3",
      "-Werror",
      "all-warnings",
      "-Xfatbin=-compress-all",
      "-Xcompiler",
      host,
      ...targets,
      ...ptx,
      ...include,
    ],
    link: [
      "-shared",
      "-cudart",
      "static",
      "-Xcompiler",
      "-static-libstdc++,-static-libgcc",
      "-L",
      join(home, "lib"),
      ...targets,
      ...ptx,
    ],
    sources: listed("", /\.cu$/),
    output: assetPath("cuda"),
  };
}

/** The program that prints what the wrappers of ptx.cuh give, linked from the objects of a library. */
export function probe({ link, sources, output, ...compiler }: Compiler): Compiler {
  return {
    ...compiler,
    link: link.filter((flag) => flag !== "-shared"),
    sources: [...sources, "probe/probe.cu"],
    output: output.replace(/lib(nanochat_cuda\w*)\.so$/, "probe_$1"),
  };
}

if (import.meta.main) {
  const start = performance.now();
  const [what, ...options] = Deno.args;
  const option = (name: string) => options.find((each) => each.startsWith(`--${name}=`))?.slice(name.length + 3);
  const arch = option("arch");
  const compiler = what === "emu"
    ? emulation(option("sanitize"))
    : await forCards(arch ? [arch] : options.includes("--all") ? ARCHITECTURES : USUAL);
  const wanted = options.includes("--probe") ? probe(compiler) : compiler;
  const built = await build(wanted);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${built ? "Built" : "Fresh:"} ${wanted.output} (${seconds} s)`);
}
