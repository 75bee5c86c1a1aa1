/**
 * `deno task demo`: from a fresh clone to a chat with a model that was trained before one's eyes. Sets up, runs `nanochat run tiny`,
 * then opens `nanochat chat` on a terminal, or asks three questions where the output is piped. What is done already is not repeated.
 * `--fast` stops after base training, and the model continues texts.
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
  /** Whether base training is enough. */
  readonly isFast: boolean;
  /** Base folder. */
  readonly base: string;
}

/** Texts that show what a base model of the small world has learned. */
export const DEMO_TEXTS = ["One sunny morning in spring,", "The word lantern is spelled", "A heron is a"];

/** Questions that show what a chat model of the small world has learned. */
export const DEMO_QUESTIONS = ["Hello! Who are you?", "Where does Daphne Yardley live?", "What is 12 + 34?"];

/** Runs the demo; returns the exit code. */
export async function demo({ setup, nanochat, print, isTerminal, isFast, base }: DemoMachine): Promise<number> {
  const { root } = foldersOf(base, "tiny");
  const time = isFast ? "3 to 6 minutes on two cores, 200 MB" : "8 to 12 minutes on two cores, 300 MB";
  print("nanochat demo: builds the native library (1 to 2 minutes, 1 GB of disk), then trains a small language model");
  print(`(${time} in "${root}"), then you talk to it. A second demo begins with the chat.`);
  await setup(print);
  const code = await nanochat(["run", "tiny", ...isFast ? ["--until=base-eval"] : []]);
  if (code !== 0) return code;
  const chat = ["chat", `--base-dir=${root}`, ...isFast ? ["--source=base"] : []];
  if (isTerminal) return await nanochat(chat);
  for (const prompt of isFast ? DEMO_TEXTS : DEMO_QUESTIONS) {
    print(`\n> ${prompt}`);
    const length = isFast ? ["--max-tokens=40"] : [];
    const answered = await nanochat([...chat, "--quiet", "--temperature=0", ...length, `--prompt=${prompt}`]);
    if (answered !== 0) return answered;
  }
  return 0;
}

if (import.meta.main) {
  const unknown = Deno.args.filter((arg) => arg !== "--fast");
  if (unknown.length > 0) {
    console.error(`Cannot run the demo with ${JSON.stringify(unknown[0])}: expected nothing, or --fast`);
    Deno.exit(2);
  }
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
      isFast: Deno.args.includes("--fast"),
      base: resolveBaseDir(),
    });
    Deno.exit(code);
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(1);
  }
}
