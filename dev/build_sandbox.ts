/**
 * Makes the assets of the Python sandbox: Pyodide's files from npm and a memory snapshot of an interpreter that has started and loaded
 * the usual modules. `deno task build:sandbox`; `deno task setup` runs it. Done within milliseconds where nothing changed.
 */
import { createHash } from "node:crypto";
import { dirname, fromFileUrl, join, toFileUrl } from "@std/path";
import { INTERPRETER_BYTES } from "../src/engine/sandbox/process.ts";
import { assetPath } from "../src/native/installation.ts";

const ROOT = join(import.meta.dirname!, "..");
/** Folder that git ignores. */
const ASSETS = assetPath("sandbox");
const PRELUDE = join(ROOT, "src", "engine", "sandbox", "prelude.py");
const COPIED = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"];
const STAMP = "stamp.txt";

interface Pyodide {
  runPython(code: string, options?: { filename?: string }): unknown;
  makeMemorySnapshot(): Uint8Array;
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function build(): Promise<boolean> {
  const from = dirname(fromFileUrl(import.meta.resolve("pyodide")));
  const { version } = JSON.parse(await Deno.readTextFile(join(from, "package.json")));
  const prelude = await Deno.readTextFile(PRELUDE);
  const maker = await Deno.readTextFile(join(ROOT, "dev", "build_sandbox.ts"));
  const stamp = createHash("sha256").update(JSON.stringify([version, prelude, maker])).digest("hex");
  if (await readIfThere(join(ASSETS, STAMP)) === stamp) return false;

  // A folder beside the final one, renamed at the end: a build that was interrupted leaves nothing that looks finished.
  await Deno.mkdir(dirname(ASSETS), { recursive: true });
  const folder = await Deno.makeTempDir({ dir: dirname(ASSETS), prefix: "sandbox.tmp" });
  try {
    for (const name of COPIED) await Deno.copyFile(join(from, name), join(folder, name));
    // The packages that Pyodide could load are none; what remains is what it compares at start.
    const { info } = JSON.parse(await Deno.readTextFile(join(from, "pyodide-lock.json")));
    await Deno.writeTextFile(join(folder, "lock.json"), JSON.stringify({ info, packages: {} }));
    const { loadPyodide } = await import(toFileUrl(join(folder, "pyodide.mjs")).href);
    const python: Pyodide = await loadPyodide({
      indexURL: `${folder}/`,
      _makeSnapshot: true,
      jsglobals: Object.freeze(Object.create(null)),
      lockFileContents: await Deno.readTextFile(join(folder, "lock.json")),
      _sysExecutable: "python",
      // The hash seed is equal in every process, so that a verdict can be repeated.
      env: {
        HOME: "/home/program",
        USER: "program",
        LOGNAME: "program",
        LANG: "C.UTF-8",
        PYTHONHASHSEED: "0",
        _: "python",
      },
    });
    python.runPython(prelude, { filename: "prelude.py" });
    const snapshot = python.makeMemorySnapshot();
    if (snapshot.length > INTERPRETER_BYTES) {
      throw new Error(`the snapshot has ${snapshot.length} bytes, expected at most ${INTERPRETER_BYTES}`);
    }
    await Deno.writeFile(join(folder, "snapshot.bin"), snapshot);
    await Deno.writeTextFile(join(folder, STAMP), stamp);
    await Deno.chmod(folder, 0o755);
    await Deno.remove(ASSETS, { recursive: true }).catch(() => {});
    await Deno.rename(folder, ASSETS);
  } catch (error) {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
    throw error;
  }
  return true;
}

if (import.meta.main) {
  const built = await build();
  console.log(built ? `Made ${ASSETS}` : `${ASSETS} is up to date`);
}
