/**
 * Prepares a clone: checks the tools, fetches the npm packages of the lock file, makes the Python sandbox and the web page, builds the
 * Rust library. `deno task setup`.
 *
 * What is missing is named together with the command that installs it. Running it again only checks; it is done within a second.
 */
import { join } from "@std/path";
import { runChild } from "./process.ts";

/** Root of the checkout. */
export const ROOT = join(import.meta.dirname!, "..");

const MINUTES = 60_000;
const CARGO_NEEDED = [1, 89]; // edition 2024 and AVX-512 intrinsics
const INSTALL_RUST = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y";
const INSTALL_CC = Deno.build.os === "darwin" ? "xcode-select --install" : "apt-get install -y gcc libc6-dev";

async function output(command: string, args: string[]): Promise<string | undefined> {
  const { code, stdout } = await runChild({ command, args, deadlineMs: MINUTES });
  return code === 0 ? stdout.trim() : undefined;
}

async function checkCargo(): Promise<string | undefined> {
  const text = await output("cargo", ["--version"]);
  if (text === undefined) return `Rust (cargo) is missing or has no toolchain; install it with: ${INSTALL_RUST}`;
  const [major, minor] = (/(\d+)\.(\d+)/.exec(text) ?? []).slice(1).map(Number);
  if (major > CARGO_NEEDED[0] || (major === CARGO_NEEDED[0] && minor >= CARGO_NEEDED[1])) return undefined;
  return `${text} is too old, expected ${CARGO_NEEDED.join(".")} or newer; update it with: rustup update stable`;
}

async function checkCompiler(): Promise<string | undefined> {
  const own = Deno.env.get("CC");
  for (const name of own ? [own] : ["cc", "gcc", "clang"]) {
    if (await output(name, ["--version"]) !== undefined) return undefined;
  }
  return `A C compiler is missing (for linking and for zstd); install it with: ${INSTALL_CC}`;
}

/** Lists what this machine lacks, each with the command that installs it. */
export async function missingTools(): Promise<string[]> {
  const problems = await Promise.all([checkCargo(), checkCompiler()]);
  return problems.filter((problem) => problem !== undefined);
}

async function step(title: string, command: string, args: string[], print: (line: string) => void): Promise<void> {
  const { code, output, seconds } = await runChild({ command, args, cwd: ROOT, deadlineMs: 20 * MINUTES });
  if (code !== 0) {
    throw new Error(
      `Cannot finish the set-up: "${command} ${args.join(" ")}" ended with ${code}:\n${output.trimEnd()}`,
    );
  }
  print(`${title.padEnd(44)} ${seconds.toFixed(1)} s`);
}

/**
 * Checks tools, fetches packages, makes the Python sandbox and the web page, builds the CPU library, one printed line for each.
 *
 * @throws {Error} naming every missing tool with the command that installs it, or the step that failed with its output.
 */
export async function setup(print: (line: string) => void): Promise<void> {
  const missing = await missingTools();
  if (missing.length > 0) throw new Error(`Cannot set up nanochat:\n  ${missing.join("\n  ")}`);
  await step("npm packages", Deno.execPath(), ["install", "--lock=deno.lock", "--frozen"], print);
  const cargo = ["build", "--release", "--locked", "--manifest-path", "ffi/Cargo.toml"];
  await step("Python sandbox", Deno.execPath(), ["run", "-A", "--lock=deno.lock", "dev/build_sandbox.ts"], print);
  await step("web page", Deno.execPath(), ["run", "-A", "--lock=deno.lock", "dev/build_page.ts"], print);
  await step("CPU library (Rust; 1 to 2 minutes at first)", "cargo", cargo, print);
}

if (import.meta.main) {
  const start = performance.now();
  try {
    await setup(console.log);
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(1);
  }
  console.log(`Ready after ${((performance.now() - start) / 1000).toFixed(1)} s; next: bin/nanochat run tiny`);
}
