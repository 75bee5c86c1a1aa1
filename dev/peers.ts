/**
 * Other programs as judges: a Python environment in `.peers/` (ignored by git) and the small programs of `dev/peers/` that run in it.
 *
 * A set is a list of exact versions, `dev/peers/<set>.txt`, with `constraints.txt` for what those need in turn. `quick` installs in
 * seconds; `full` adds PyTorch and transformers to it. Where a set cannot be installed, its tests fail in CI and are skipped elsewhere.
 */
import { join, resolve } from "@std/path";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";

/** Name of a list of packages. */
export type PeerSet = "quick" | "full";

const FOLDER = join(ROOT, ".peers");
const LISTS = join(ROOT, "dev", "peers");
const PYTHON = join(FOLDER, "bin", "python");
const MINUTES = 60_000;
const INSTALL_PYTHON = "apt-get install -y python3 python3-venv";

/** Everything that decides what a set installs. */
function listOf(set: PeerSet): string {
  const names = set === "quick" ? ["quick", "constraints"] : ["quick", "full", "constraints"];
  return names.map((name) => Deno.readTextFileSync(join(LISTS, `${name}.txt`))).join("\n");
}

const markerOf = (set: PeerSet) => join(FOLDER, `${set}.installed`);

/** Whether `.peers/` holds a set in the versions of its list. */
export function hasPeers(set: PeerSet): boolean {
  try {
    return Deno.statSync(PYTHON).isFile && Deno.readTextFileSync(markerOf(set)) === listOf(set);
  } catch {
    return false;
  }
}

/**
 * Installs a set of packages into `.peers/`, which is made where it does not exist; done within a second where it is there.
 *
 * @throws {Error} with the output of the step that failed and the command that installs what is missing.
 */
export async function installPeers(set: PeerSet): Promise<void> {
  const works = (await runChild({ command: PYTHON, args: ["-m", "pip", "--version"], deadlineMs: MINUTES })).code === 0;
  if (works && hasPeers(set)) return;
  const step = async (command: string, args: string[], repair: string) => {
    const { code, output } = await runChild({ command, args, cwd: ROOT, deadlineMs: 15 * MINUTES });
    if (code === 0) return;
    const call = `"${command} ${args.join(" ")}" ended with ${code}`;
    throw new Error(`Cannot install the ${set} set of peers: ${call}; ${repair}\n${output.trimEnd()}`);
  };
  if (!works) await step("python3", ["-m", "venv", "--clear", FOLDER], `install Python with: ${INSTALL_PYTHON}`);
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"];
  await step(PYTHON, [...pip, "-r", join(LISTS, `${set}.txt`)], "expected PyPI or a mirror of it within reach");
  await Deno.writeTextFile(markerOf(set), listOf(set));
  if (set === "full") await Deno.writeTextFile(markerOf("quick"), listOf("quick"));
}

/**
 * Runs a Python program in `.peers/`, named by its path from the root or whole; returns what it printed.
 *
 * @throws {Error} with its output where it fails.
 */
export async function runPython(
  program: string,
  { args = [], stdin, deadlineMs = 5 * MINUTES }: { args?: readonly string[]; stdin?: string; deadlineMs?: number } =
    {},
): Promise<string> {
  const env = { PYTHONDONTWRITEBYTECODE: "1", PYTHONUTF8: "1", TOKENIZERS_PARALLELISM: "false", HF_HUB_OFFLINE: "1" };
  const { code, stdout, output } = await runChild({
    command: PYTHON,
    args: [resolve(ROOT, program), ...args],
    stdin,
    deadlineMs,
    env,
  });
  if (code !== 0) throw new Error(`Cannot run ${program}: it ended with ${code}\n${output.trimEnd()}`);
  return stdout;
}

/** Gives a program of `dev/peers/` one JSON value and returns the one that it prints. */
export async function askPeer<Answer>(program: string, question: unknown): Promise<Answer> {
  return JSON.parse(await runPython(`dev/peers/${program}`, { stdin: JSON.stringify(question) }));
}

/** Registers a test that needs a set of peers; without it the test fails in CI and is skipped elsewhere. */
export function peerTest(set: PeerSet, name: string, body: () => Promise<void>): void {
  const present = hasPeers(set);
  Deno.test({
    name,
    ignore: !present && Deno.env.get("CI") === undefined,
    fn: async () => {
      if (!present) {
        throw new Error(
          `Cannot ask the ${set} set of peers: it is not installed in .peers/; run "deno task test:peers"`,
        );
      }
      await body();
    },
  });
}
