/**
 * `deno task demo`: from a fresh clone to a chat with a model that was trained before one's eyes. Sets up, runs `nanochat run tiny`,
 * then opens `nanochat chat` on a terminal, or answers three prompts where the output is piped. What is done already is not repeated.
 */
import { join } from "@std/path";
import { foldersOf, resolveBaseDir } from "../src/data/base_dir.ts";
import { ROOT, setup } from "./setup.ts";

/** What the demo needs of the machine. */
export interface DemoMachine {
  setup(print: (line: string) => void): Promise<void>;
  /** Runs `nanochat ARGS` with the terminal of this process; returns its exit code. */
  nanochat(args: readonly string[]): Promise<number>;
  print(line: string): void;
  /** Whether a person can type. */
  readonly isTerminal: boolean;
  /** Base folder. */
  readonly base: string;
}

/** Prompts that show what a model of the small world has learned. */
export const DEMO_PROMPTS = ["One sunny morning in spring,", "The word lantern is spelled", "A heron is a"];

/** Runs the demo; returns the exit code. */
export async function demo({ setup, nanochat, print, isTerminal, base }: DemoMachine): Promise<number> {
  const { root } = foldersOf(base, "tiny");
  print("nanochat demo: builds the native library (1 to 2 minutes, 1 GB of disk), then trains a small language model");
  print(
    `(3 to 6 minutes on two cores, 200 MB in "${root}"), then you talk to it. A second demo begins with the chat.`,
  );
  await setup(print);
  const code = await nanochat(["run", "tiny"]);
  if (code !== 0) return code;
  const chat = ["chat", `--base-dir=${root}`];
  if (isTerminal) return await nanochat(chat);
  for (const prompt of DEMO_PROMPTS) {
    print(`\n> ${prompt}`);
    const answered = await nanochat([...chat, "--quiet", "--max-tokens=40", `--prompt=${prompt}`]);
    if (answered !== 0) return answered;
  }
  return 0;
}

if (import.meta.main) {
  // Ctrl-C is for the child: training saves and ends, the chat stops its answer.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => {});
  try {
    const code = await demo({
      setup,
      async nanochat(args) {
        const script = join(ROOT, "bin", "nanochat.ts");
        const locked = ["--config", join(ROOT, "deno.json"), "--lock", join(ROOT, "deno.lock"), "--frozen"];
        const command = new Deno.Command(Deno.execPath(), { args: ["run", "-q", "-A", ...locked, script, ...args] });
        return (await command.spawn().status).code;
      },
      print: console.log,
      isTerminal: Deno.stdin.isTerminal() && Deno.stdout.isTerminal(),
      base: resolveBaseDir(),
    });
    Deno.exit(code);
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(1);
  }
}
