/**
 * Packs the whole program into one file, `dist/nanochat`: `deno task build`, after `deno task setup`.
 *
 * A staging folder gets the bundled program, what the table of `src/native/installation.ts` lists, and deno. The last step alone has
 * two forms: `deno compile` where Deno's runtime for it (denort) is at hand, in DENORT_BIN or beside deno; otherwise the launcher of
 * `bin/launcher/` with a zstd frame for every 8 MiB behind it, whose index `bin/launcher/src/pack.rs` describes.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { constants, zstdCompress } from "node:zlib";
import { basename, dirname, join, relative } from "@std/path";
import { runChild } from "../dev/process.ts";
import { ROOT } from "../dev/setup.ts";
import {
  assetPath,
  ASSETS,
  COMMIT_FILE,
  SANDBOX_WORD,
  sandboxArguments,
  WORKER_ENTRY,
} from "../src/native/installation.ts";
import { readCommit } from "../src/report/environment.ts";

/** The file that is made. */
export const SINGLE_FILE = join(ROOT, "dist", "nanochat");

const MAX_MEGABYTES = 60; // without CUDA
const GLIBC_MINOR = 34; // what the launcher asks for at least
const FRAME_BYTES = 8 << 20;
const LEVEL = 10; // 50 MB; 3 gives 55 MB in a quarter of the time, 19 gives 45 MB in ten times as long
const FOOTER_BYTES = 32;
const MINUTES = 60_000;

const RUN = ["run", "--quiet", "--no-prompt", "--no-config", "--no-lock", "--no-remote", "--no-npm", "--allow-all"];
/** How the launcher starts deno, by the first argument. */
const STARTS: [string, string[]][] = [
  ["", [...RUN, "{folder}/nanochat.js"]],
  [SANDBOX_WORD, sandboxArguments(`{folder}/${ASSETS.sandboxProgram.packed}`, `{folder}/${ASSETS.sandbox.packed}`)],
];
/** Entry of `deno compile`: a sandbox process has a program of its own. */
const COMPILED_ENTRY = `await import(Deno.args[0] === "${SANDBOX_WORD}" ? "./child.js" : "./nanochat.js");\n`;

const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest();

async function command(program: string, args: string[], env?: Record<string, string>): Promise<string> {
  const { code, output, stdout } = await runChild({ command: program, args, env, cwd: ROOT, deadlineMs: 20 * MINUTES });
  if (code !== 0) {
    throw new Error(`Cannot build: "${program} ${args.join(" ")}" ended with ${code}:\n${output.trimEnd()}`);
  }
  return stdout;
}

/** Fills the staging folder with all that the program needs. */
async function stage(folder: string): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await Deno.mkdir(folder, { recursive: true });
  // In pieces, so that a start reads what its command needs: the others bring Node's modules in, which take 20 ms.
  const bundle = ["bundle", "--quiet", "--platform=deno", "--lock=deno.lock", "--frozen", "--code-splitting"];
  await command(Deno.execPath(), [...bundle, `--outdir=${folder}`, "bin/nanochat.ts", WORKER_ENTRY]);
  const commit = readCommit(ROOT);
  if (commit !== null) await Deno.writeTextFile(join(folder, COMMIT_FILE), commit);
  for (const [name, asset] of Object.entries(ASSETS)) {
    if ("left" in asset && asset.left === "always") continue;
    const from = assetPath(name as keyof typeof ASSETS);
    if (!existsSync(from)) {
      if ("left" in asset) continue;
      throw new Error(`Cannot build: "${from}" is missing; run "deno task setup"`);
    }
    await copy(from, join(folder, asset.packed));
    // Without its debugging information the CPU library is a seventh of the size; where there is no strip it stays large.
    const isLibrary = /\.(so|dylib)$/.test(asset.packed);
    const how = Deno.build.os === "darwin" ? "-x" : "--strip-unneeded";
    if (isLibrary) await runChild({ command: "strip", args: [how, join(folder, asset.packed)], deadlineMs: MINUTES });
  }
}

async function copy(from: string, to: string): Promise<void> {
  if (!(await Deno.stat(from)).isDirectory) return await Deno.copyFile(from, to);
  await Deno.mkdir(to);
  for await (const { name } of Deno.readDir(from)) await copy(join(from, name), join(to, name));
}

async function* walk(folder: string): AsyncGenerator<string> {
  for (const entry of (await Array.fromAsync(Deno.readDir(folder))).sort((a, b) => a.name < b.name ? -1 : 1)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* walk(path);
    else yield path;
  }
}

/** The newest version of the GNU C library, 2.N, whose symbols a program or library asks for. */
export function neededGlibc(bytes: Uint8Array): number {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  return Math.max(0, ...Array.from(text.matchAll(/\0GLIBC_2\.(\d+)(?=[\0.])/g), ([_, minor]) => Number(minor)));
}

async function buildLauncher(): Promise<Uint8Array> {
  const target = Deno.build.target;
  const folder = join(ROOT, "ffi", "target", "launcher");
  const args = ["build", "--release", "--locked", "--manifest-path=bin/launcher/Cargo.toml"];
  const env: Record<string, string> = Deno.build.os === "linux" ? { RUSTFLAGS: "-Ctarget-feature=+crt-static" } : {};
  await command("cargo", [...args, `--target=${target}`, `--target-dir=${folder}`], env);
  return await Deno.readFile(join(folder, target, "release", "launcher"));
}

/** Writes the launcher with the staged files behind it; leaves a file that has this content already. */
async function packWithLauncher(folder: string): Promise<void> {
  await Deno.copyFile(Deno.execPath(), join(folder, "deno"));
  const launcher = await buildLauncher();
  const files = await Promise.all(
    (await Array.fromAsync(walk(folder))).map(async (path) => {
      const mode = ((await Deno.stat(path)).mode ?? 0) & 0o100 ? "755" : "644";
      return { path: relative(folder, path), mode, bytes: await Deno.readFile(path) };
    }),
  );
  const glibc = Math.max(...files.filter(({ bytes }) => bytes[0] === 0x7f).map(({ bytes }) => neededGlibc(bytes)));
  if (glibc > GLIBC_MINOR) {
    console.log(`It needs glibc 2.${glibc}, as it is built on a newer system than 2.${GLIBC_MINOR}`);
  }
  const identity = [
    LEVEL,
    sha256(launcher),
    ...files.map((file) => [file.path, file.mode, sha256(file.bytes)]),
    STARTS,
  ];
  const hash = sha256(JSON.stringify(identity)).subarray(0, 8);
  if (await isPacked(SINGLE_FILE, hash)) return;

  const compress = promisify(zstdCompress);
  const params = { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 };
  const rows = [
    `nanochat-bin 1`,
    `glibc\t${glibc}`,
    ...STARTS.map(([word, args]) => ["start", word, ...args].join("\t")),
  ];
  const parts: Uint8Array[] = [launcher];
  let at = launcher.length;
  const frames = files.map(({ bytes }) =>
    Array.from({ length: Math.ceil(bytes.length / FRAME_BYTES) }, (_, i) => {
      const piece = bytes.subarray(i * FRAME_BYTES, (i + 1) * FRAME_BYTES);
      return { size: piece.length, packed: compress(piece, { params }) };
    })
  );
  for (const [i, { path, mode, bytes }] of files.entries()) {
    rows.push(["file", mode, bytes.length, path].join("\t"));
    for (const { size, packed } of frames[i]) {
      const frame = await packed;
      rows.push(["frame", at, frame.length, size].join("\t"));
      parts.push(frame);
      at += frame.length;
    }
  }
  const index = new TextEncoder().encode(rows.join("\n"));
  const footer = Buffer.alloc(FOOTER_BYTES);
  footer.writeBigUInt64LE(BigInt(at), 0);
  footer.writeBigUInt64LE(BigInt(index.length), 8);
  footer.set(hash, 16);
  footer.write("NANOCHAT", 24);
  await writePacked(SINGLE_FILE, Buffer.concat([...parts, index, footer]));
}

/** Writes the single file, and beside it its checksum, which `sha256sum --check` reads too. */
export async function writePacked(path: string, bytes: Uint8Array): Promise<void> {
  await Deno.writeFile(`${path}.tmp`, bytes, { mode: 0o755 });
  await Deno.rename(`${path}.tmp`, path); // one that runs keeps its file
  await Deno.writeTextFile(`${path}.sha256`, `${sha256(bytes).toString("hex")}  ${basename(path)}\n`);
}

/** Whether a single file has the content of this hash, and every byte of it as it was written. */
export async function isPacked(path: string, hash: Uint8Array): Promise<boolean> {
  if (!existsSync(path) || !existsSync(`${path}.sha256`)) return false;
  const bytes = await Deno.readFile(path);
  const [sum] = (await Deno.readTextFile(`${path}.sha256`)).split(" ");
  return Buffer.compare(bytes.subarray(-16, -8), hash) === 0 && sha256(bytes).toString("hex") === sum;
}

async function packWithCompile(folder: string, denort: string): Promise<void> {
  await Deno.writeTextFile(join(folder, "start.js"), COMPILED_ENTRY);
  const flags = ["--quiet", "--no-config", "--no-lock", "--no-remote", "--no-npm", "--allow-all", "--no-prompt"];
  const args = ["compile", ...flags, "--self-extracting", `--include=${folder}`, `--output=${SINGLE_FILE}`];
  await command(Deno.execPath(), [...args, join(folder, "start.js")], { DENORT_BIN: denort });
}

if (import.meta.main) {
  const start = performance.now();
  const folder = join(ROOT, "dist", "stage");
  try {
    await stage(folder);
    const denort = Deno.env.get("DENORT_BIN") ?? join(dirname(Deno.execPath()), "denort");
    const compiles = existsSync(denort);
    await (compiles ? packWithCompile(folder, denort) : packWithLauncher(folder));
    const megabytes = (await Deno.stat(SINGLE_FILE)).size / 1e6;
    const seconds = (performance.now() - start) / 1000;
    const builder = compiles ? "deno compile" : "launcher and zstd";
    console.log(`${SINGLE_FILE}: ${megabytes.toFixed(1)} MB, made by ${builder} in ${seconds.toFixed(1)} s`);
    if (megabytes > MAX_MEGABYTES && !existsSync(assetPath("cuda"))) {
      throw new Error(`Cannot accept ${megabytes.toFixed(1)} MB, expected at most ${MAX_MEGABYTES}`);
    }
  } catch (error) {
    console.error((error as Error).message);
    Deno.exitCode = 1; // the staging folder goes all the same
  } finally {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
  }
}
