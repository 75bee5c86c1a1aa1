import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { runChild } from "../../dev/process.ts";
import { temporaryFolder } from "../../dev/testing.ts";
import { RECIPES } from "../train/recipes.ts";
import { allFlags, type Command, command } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { completions } from "./completions.ts";
import { bool, oneOf, string, UsageError } from "./flags.ts";

const run = () => Promise.resolve();
const TABLE: readonly Command[] = [
  command({
    name: "train",
    summary: 'trains: "it\'s" $HOME [x]',
    flags: {
      dtype: oneOf(["", "fp32", "bf16"], { default: "", help: "a's [type]: `b`" }),
      "data-dir": string("", { help: "folder", aliases: ["shards"] }),
    },
    run,
  }),
  command({
    name: "data make",
    summary: "makes",
    positional: [{ name: "INPUTS", help: "files", many: true }],
    flags: { fast: bool(false, { help: "soon" }) },
    run,
  }),
  command({ name: "data stats", summary: "counts", positional: [], flags: {}, run }),
  command({
    name: "run",
    summary: "runs",
    positional: [{ name: "NAME", help: "recipe", words: ["tiny", "cpu"] }],
    flags: {},
    run,
  }),
];

/** What is typed, as bash takes it apart (it breaks words at "="), and what is to be offered. */
const CASES: readonly (readonly [words: readonly string[], offered: readonly string[]])[] = [
  [["t"], ["train"]],
  [["data", ""], ["make", "stats"]],
  [["data", "s"], ["stats"]],
  [["train", "--d"], ["--data-dir=", "--dtype="]],
  [["train", "--sh"], ["--shards="]],
  [["train", "--dtype", "=", ""], ["bf16", "fp32"]],
  [["train", "--dtype", "=", "b"], ["bf16"]],
  [["train", "--dtype", "f"], ["fp32"]],
  [["train", "--data-dir", "=", "m"], ["my texts"]],
  [["train", "--json", "m"], ["my texts"]],
  [["data", "make", "m"], ["my texts"]],
  [["data", "make", "--f"], ["--fast"]],
  [["data", "stats", "m"], []],
  [["run", ""], ["cpu", "tiny"]],
];

/** Runs a shell in a folder that holds "my texts", on a script that may load `completions`; gives its lines. */
async function ask(shell: string, script: string): Promise<string[]> {
  using folder = temporaryFolder();
  Deno.mkdirSync(join(folder.path, "files", "my texts"), { recursive: true });
  Deno.writeTextFileSync(join(folder.path, "completions"), completions(shell, TABLE));
  const cwd = join(folder.path, "files");
  const args = { bash: ["--norc"], zsh: ["-f"], fish: ["--no-config"] }[shell]!;
  const ended = await runChild({ command: shell, args: [...args, "-c", script], cwd, deadlineMs: 60_000 });
  assertEquals([ended.code, ended.stderr], [0, ""]);
  return ended.stdout.split("\n").slice(0, -1);
}

function lacks(shell: string): boolean {
  return !(Deno.env.get("PATH") ?? "").split(":").some((folder) => {
    try {
      return Deno.statSync(join(folder, shell)).isFile;
    } catch {
      return false;
    }
  });
}

Deno.test("completions() for bash offer commands, flags, values and files", async () => {
  const calls = CASES.map(([words]) =>
    `COMP_WORDS=(nanochat ${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length}; _nanochat\n` +
    'printf "%s|" "${COMPREPLY[@]}"; echo\n'
  );
  const lines = await ask("bash", `source ../completions\n${calls.join("")}`);
  const offered = lines.map((line) => line.split("|").filter((word) => word !== "").sort());
  assertEquals(offered, CASES.map(([_, expected]) => [...expected]));
});

Deno.test({
  name: "completions() for fish offer commands, flags, values and files",
  ignore: lacks("fish"),
  async fn() {
    const typed = CASES.map(([words]) => `nanochat ${words.join(" ").replace(" = ", "=")}`);
    const calls = typed.map((line) => `complete -C '${line}'; echo ---\n`);
    const answers = (await ask("fish", `source ../completions\n${calls.join("")}`)).join("\n").split("---\n");
    for (const [i, [_, expected]] of CASES.entries()) {
      const words = (answers[i] ?? "").replace(/---$/, "").split("\n").filter((line) => line !== "")
        .map((line) => line.split("\t")[0].replace(/^--[a-z-]+=(.)/, "$1").replace(/\/$/, "")).sort();
      assertEquals(words, expected.map((word) => word.replace(/=$/, "")), typed[i]);
    }
  },
});

Deno.test({
  name: "completions() for zsh can be read",
  ignore: lacks("zsh"),
  fn: async () => assertEquals(await ask("zsh", "zsh -n ../completions && echo read"), ["read"]),
});

Deno.test("completions() know every flag of every command in each shell", () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const text = completions(shell, COMMANDS);
    for (const row of COMMANDS) {
      for (const word of row.name.split(" ")) assert(text.includes(word), `${shell} lacks ${word}`);
      for (const name of Object.keys(allFlags(row))) {
        const spelled = shell === "fish" ? `nanochat_is ${row.name}' -l ${name} ` : `--${name}`;
        assert(text.includes(spelled), `${shell} lacks --${name} of ${row.name}`);
      }
    }
  }
  assertThrows(() => completions("csh", COMMANDS), UsageError, "expected bash, zsh or fish");
});

Deno.test("the words of nanochat run are the recipes", () => {
  assertEquals(COMMANDS.find(({ name }) => name === "run")!.positional![0].words, Object.keys(RECIPES));
});
