/**
 * The shell lines of README.md and `docs/` as tests: extracts the ```sh blocks of a page and runs each line as it is typed, with
 * `nanochat` of this checkout, in a folder of its own that holds `my_texts`.
 *
 * A line whose first word is not `nanochat` must stand in {@link ELSEWHERE} with the reason why it is not run and the check that is
 * made instead. A line that trains for minutes is stopped by Ctrl-C after its first steps, except where a whole run is asked for.
 */
import { basename, join } from "@std/path";
import { COMMANDS } from "../src/cli/commands.ts";
import { allFlags } from "../src/cli/command.ts";
import { worldDocuments } from "../tasks/world.ts";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";

/** Lines that no test of a page runs, by what they begin with. */
export const ELSEWHERE: readonly { begins: string; reason: string }[] = [
  {
    begins: "npx -y deno@2.9.6 task demo",
    reason: "dev/demo_test.ts runs the demo, src/cli/run_slow_test.ts its recipe",
  },
  { begins: "npx -y deno@2.9.6 task test", reason: ".ci/run is this line" },
  { begins: "npx -y deno@2.9.6 task build", reason: "part of the tiers test and binary of dev/test.ts" },
  { begins: "npx -y deno@2.9.6 task setup", reason: "the first step of every tier of dev/test.ts" },
  { begins: "npx -y deno@2.9.6 task test:peers", reason: "a tier of dev/test.ts" },
  {
    begins: ".peers/bin/python dev/bench/peer_torch.py",
    reason: "needs PyTorch: dev/bench/peer_torch_full_peers_test.ts",
  },
  { begins: "nanochat serve", reason: "runs until it is stopped: src/cli/serve_cli_test.ts" },
  { begins: "nanochat chat --", reason: "needs a trained model or a server: src/cli/chat_cli_test.ts" },
  { begins: "nanochat chat -p - ", reason: "needs a trained model: src/cli/chat_cli_test.ts" },
  { begins: "curl -sS", reason: "dev/clients_test.ts runs the lines of docs/clients.md" },
  { begins: "nanochat run ", reason: "a whole recipe: src/cli/run_slow_test.ts" },
];

/** Commands that are stopped after their first steps. */
const TRAINS = /^nanochat (train|mid|sft|rl)\b/;
const FIRST_STEP = /\b\d+\/\d+ \(\d+ %\) {2}loss /;
const STOPPED = 75;
const DOCUMENTS = 4000;

/** Lists the pages that users read, as paths from the root. */
export function pages(): string[] {
  const docs = [...Deno.readDirSync(join(ROOT, "docs"))].map(({ name }) => name).filter((name) => name.endsWith(".md"));
  return ["README.md", ...docs.sort().map((name) => `docs/${name}`)];
}

/** Reads a page. */
export function readPage(page: string): string {
  return Deno.readTextFileSync(join(ROOT, page));
}

/** Extracts the lines of the ```sh blocks; a backslash at the end joins a line to the next one, comments are left out. */
export function shellLines(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([_, block]) => block);
  return blocks.join("").replace(/\\\n\s*/g, "").split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

/** Extracts the calls of the program that a page mentions within its sentences and tables. */
export function mentionedCalls(markdown: string): string[] {
  const prose = markdown.replace(/^```[\s\S]*?^```$/gm, "");
  return [...prose.matchAll(/`(nanochat [^`]+)`/g)].map(([_, call]) => call.replace(/\s+/g, " "));
}

/** Says what is wrong with a call: its command or one of its flags is none of the program's; undefined where all is right. */
export function unknownPart(call: string): string | undefined {
  const words = call.split(" ").slice(1);
  if (words[0].startsWith("-") || words[0] === "COMMAND") return undefined;
  const row = COMMANDS.find(({ name }) => name === words.slice(0, 2).join(" ")) ??
    COMMANDS.find(({ name }) => name === words[0]);
  if (row === undefined) return `no command "${words[0]}"`;
  const flags = allFlags(row);
  const names = new Set(Object.entries(flags).flatMap(([name, flag]) => [name, `no-${name}`, ...(flag.aliases ?? [])]));
  const flag = words.find((word) => word.startsWith("--") && !names.has(word.slice(2).split("=")[0]));
  return flag === undefined ? undefined : `"nanochat ${row.name}" has no flag ${flag}`;
}

/** Whether a line calls the program. */
export function isCall(line: string): boolean {
  return /^nanochat( |$)/.test(line);
}

/**
 * Lists the messages that a page quotes, cut into the parts between "…" (where the program puts values).
 * A quoted message begins with "Cannot" or stands in front of a colon.
 */
export function quotedMessages(markdown: string): string[][] {
  const quotes = [...markdown.matchAll(/`(Cannot [^`]+)`|^`([A-Z][^`]+ [^`]+)`/gm)].map(([_, a, b]) => a ?? b);
  return quotes.map((quote) => quote.replace(/\s+/g, " ").split("…").filter((part) => part.trim() !== ""));
}

/** Reads all messages that the program can print: its source with strings joined that were broken over lines. */
export function messageSource(): string {
  const launcher = ["cache", "machine", "main", "pack"].map((name) =>
    readPage(`bin/launcher/src/${name}.rs`).replaceAll('\\"', '"')
  );
  const texts = [readPage("bin/nanochat"), readPage("dev/setup.ts"), ...launcher];
  const read = (folder: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(join(ROOT, folder))) {
      if (isDirectory) read(`${folder}/${name}`);
      else if (/\.(ts|cu)$/.test(name) && !name.endsWith("_test.ts")) texts.push(readPage(`${folder}/${name}`));
    }
  };
  read("src");
  read("kernels_cu");
  return texts.join("\n").replace(/["`] \+\n\s*["`]/g, "");
}

/** The entry that excuses a line from being run. */
export function elsewhere(line: string): (typeof ELSEWHERE)[number] | undefined {
  return ELSEWHERE.findLast(({ begins }) => line.startsWith(begins));
}

/**
 * Checks a line that is not run: the task exists and the version of deno is this one, or the program exists and knows the flags.
 *
 * @throws {Error} naming what is missing.
 */
export function checkUnrun(line: string): void {
  const missing = (what: string) => new Error(`Cannot believe the line ${JSON.stringify(line)}: ${what}`);
  const [_, version, task] = /^npx -y deno@(\S+) task (\S+)$/.exec(line) ?? [];
  if (task !== undefined) {
    const { tasks } = JSON.parse(readPage("deno.json"));
    if (!(task in tasks)) throw missing(`deno.json has no task ${task}`);
    if (!readPage(".ci/run").includes(`deno@${version} `)) throw missing(`.ci/run uses another deno than ${version}`);
  } else if (line.startsWith(".peers/bin/python ")) {
    const [program, ...args] = line.split(" ").slice(1);
    const text = readPage(program);
    const unknown = args.find((arg) => arg.startsWith("--") && !text.includes(`"${arg}"`));
    if (unknown !== undefined) throw missing(`${program} has no flag ${unknown}`);
  } else if (isCall(line)) {
    const unknown = unknownPart(line);
    if (unknown !== undefined) throw missing(unknown);
  }
}

/** Makes the folder in which a page's lines are typed: `my_texts` with some stories in files of three kinds. */
function makeTexts(folder: string): void {
  const texts = join(folder, "my_texts");
  Deno.mkdirSync(texts);
  const documents = [...worldDocuments({ seed: 3, count: DOCUMENTS, split: "train" })];
  const third = Math.ceil(documents.length / 3);
  Deno.writeTextFileSync(join(texts, "stories.txt"), documents.slice(0, third).join("\n\n"));
  Deno.writeTextFileSync(join(texts, "notes.md"), documents.slice(third, 2 * third).join("\n\n"));
  const rows = documents.slice(2 * third).map((body) => JSON.stringify({ text: body, body }) + "\n");
  Deno.writeTextFileSync(join(texts, "posts.jsonl"), rows.join(""));
}

/**
 * Runs the lines of a page, one behind the other.
 *
 * @param options.whole lets trainings run to their end instead of stopping them after the first steps
 * @throws {Error} with the line and what it printed, where a line fails.
 */
export async function runPage(page: string, { whole }: { whole: boolean }): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "nanochat docs " });
  try {
    makeTexts(folder);
    for (const line of shellLines(readPage(page))) {
      if (elsewhere(line) === undefined) await runLine(line, { folder, whole });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function runLine(line: string, { folder, whole }: { folder: string; whole: boolean }): Promise<void> {
  if (!isCall(line)) {
    throw new Error(`Cannot run ${JSON.stringify(line)}: expected "nanochat" in front, or an entry in dev/docs.ts`);
  }
  const stops = !whole && TRAINS.test(line);
  // The deno that runs this test is the one that the wrapper script finds.
  const PATH = [join(ROOT, "bin"), join(Deno.execPath(), ".."), Deno.env.get("PATH")].join(":");
  let sent = false;
  const { code, output } = await runChild({
    command: "sh",
    // `exec`, so that the signal reaches the program and not the shell.
    args: ["-c", stops ? `exec ${line}` : line],
    cwd: folder,
    env: { PATH, NO_COLOR: "1", NANOCHAT_BASE_DIR: join(folder, "base") },
    deadlineMs: (whole ? 30 : 5) * 60_000,
    onOutput(text, send) {
      if (!stops || sent || !FIRST_STEP.test(text)) return;
      sent = true;
      send("SIGINT");
    },
  });
  if (code !== (sent ? STOPPED : 0)) {
    throw new Error(`Cannot run ${JSON.stringify(line)} in ${basename(folder)}: it ended with ${code}\n${output}`);
  }
}
