/**
 * Packs what a GPU box without network needs into the ignored folder `dist/gpu`: `deno task gpu:pack`. `dev/gpu_check.sh` runs it there;
 * it comes with the checkout.
 *
 *   deno.tar.xz          deno
 *   golden.tar.xz        dev/golden, without the upstream's checkpoint, which no kernel reads
 *   app.tar.xz           the program, the comparison with golden data and the conformance suite, bundled; the libraries for the CPU and
 *                        for sm_90a; the probe of ptx.cuh
 *   kernels_cu.tar.xz    the sources that the library was made of
 *   probe_expected.txt   what the probe prints on the emulation
 */
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { assetPath, ASSETS, WORKER_ENTRY } from "../src/native/installation.ts";

const PACK = join(ROOT, "dist", "gpu");
const STAGE = join(ROOT, "dist", "gpu_stage");
const APP = join(STAGE, "app");
const MAX_MEGABYTES = 45;
const MINUTES = 60_000;
const CONFORMANCE = ["ops", "ops_products", "ops_attention", "ops_inference", "ops_graph"];
const PROBE = "probe_nanochat_cuda";

async function run(command: string, args: readonly string[]): Promise<string> {
  const { code, output, stdout } = await runChild({ command, args, cwd: ROOT, deadlineMs: 30 * MINUTES });
  if (code !== 0) {
    throw new Error(`Cannot pack: "${command} ${args.join(" ")}" ended with ${code}:\n${output.trimEnd()}`);
  }
  return stdout;
}

/** Bundles the programs into one folder; what they share is in pieces beside the libraries. */
async function bundle(): Promise<void> {
  const tests = CONFORMANCE.map((name) => `src/tensor/${name}_test.ts`);
  const flags = ["bundle", "--quiet", "--platform=deno", "--lock=deno.lock", "--frozen", "--code-splitting"];
  await run(Deno.execPath(), [
    ...flags,
    `--outdir=${APP}`,
    ...["bin/nanochat.ts", WORKER_ENTRY, "dev/parity/main.ts"],
    ...tests,
  ]);
}

/** Copies a program or library without its debugging information. */
async function copyStripped(from: string, to: string): Promise<void> {
  if (!existsSync(from)) throw new Error(`Cannot pack: "${from}" is missing; run "deno task setup"`);
  await Deno.copyFile(from, to);
  await run("strip", ["--strip-unneeded", to]);
}

/** Packs a file or folder, with x86 jumps made absolute, which saves a tenth; deno takes a minute, so that its archive stays. */
async function archive(name: string, folder: string, member: string): Promise<void> {
  await run("python3", ["-c", ARCHIVE, join(PACK, `${name}.tar.xz`), folder, member, name]);
}

const ARCHIVE = `
import lzma, sys, tarfile
path, folder, member, name = sys.argv[1:]
left = ["/build", "__pycache__", "/upstream_checkpoint"]
keep = lambda info: None if any(part in info.name for part in left) else info
filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
with lzma.open(path, "w", filters=filters) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
    archive.add(f"{folder}/{member}", arcname=name, filter=keep)
`;

async function megabytes(folder: string): Promise<number> {
  let bytes = 0;
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    bytes += isDirectory ? await megabytes(path) * 1e6 : (await Deno.stat(path)).size;
  }
  return bytes / 1e6;
}

async function pack(): Promise<void> {
  const stamp = join(PACK, "deno.txt"), denoArchive = join(PACK, "deno.tar.xz");
  const isFresh = existsSync(denoArchive) && existsSync(stamp) && Deno.readTextFileSync(stamp) === Deno.version.deno;
  await Deno.mkdir(PACK, { recursive: true });
  for (const { name } of Deno.readDirSync(PACK)) {
    if (!(isFresh && /^deno\.(tar\.xz|txt)$/.test(name))) await Deno.remove(join(PACK, name), { recursive: true });
  }
  const build = ["run", "-A", "--lock=deno.lock", "dev/build_cuda.ts"];
  for (const what of [["cuda", "--arch=90a"], ["emu"]]) {
    await run(Deno.execPath(), [...build, ...what]);
    await run(Deno.execPath(), [...build, ...what, "--probe"]);
  }
  await Deno.remove(STAGE, { recursive: true }).catch(() => {});
  await bundle();
  for (const name of ["cpu", "cuda"] as const) await copyStripped(assetPath(name), join(APP, ASSETS[name].packed));
  await copyStripped(join(ROOT, "kernels_cu", "build", PROBE), join(APP, PROBE));
  await Deno.writeTextFile(
    join(PACK, "probe_expected.txt"),
    await run(join(ROOT, "kernels_cu", "build", `${PROBE}_emu`), []),
  );
  await archive("app", STAGE, "app");
  await Deno.remove(STAGE, { recursive: true });
  await archive("golden", join(ROOT, "dev"), "golden");
  await archive("kernels_cu", ROOT, "kernels_cu");
  if (!isFresh) {
    const deno = await Deno.realPath(Deno.execPath());
    await archive("deno", join(deno, ".."), deno.slice(deno.lastIndexOf("/") + 1));
    await Deno.writeTextFile(stamp, Deno.version.deno);
  }
  const size = await megabytes(PACK);
  console.log(`${PACK}: ${size.toFixed(1)} MB`);
  if (size > MAX_MEGABYTES) throw new Error(`Cannot accept ${size.toFixed(1)} MB, expected at most ${MAX_MEGABYTES}`);
}

try {
  await pack();
} catch (error) {
  console.error((error as Error).message);
  Deno.exitCode = 1;
}
