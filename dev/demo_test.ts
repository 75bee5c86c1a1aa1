import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { demo, DEMO_QUESTIONS, DEMO_TEXTS } from "./demo.ts";

/** Runs the demo on a machine that only takes notes. */
async function noted(options: { isTerminal: boolean; isFast?: boolean; codes?: number[] }) {
  const notes: string[] = [];
  const codes = [...options.codes ?? []];
  const code = await demo({
    setup: () => Promise.resolve(void notes.push("setup")),
    nanochat: (args) => {
      notes.push(args.join(" "));
      return Promise.resolve(codes.shift() ?? 0);
    },
    print: (line) => void notes.push(line),
    isTerminal: options.isTerminal,
    isFast: options.isFast ?? false,
    base: "/base",
  });
  return { notes, code };
}

Deno.test("demo() says time and disk first, sets up, trains and opens the chat on a terminal", async () => {
  const { notes, code } = await noted({ isTerminal: true });
  assertEquals(code, 0);
  assert(/minutes.*disk/.test(notes[0]), notes[0]);
  assertStringIncludes(notes[1], "/base/runs/tiny");
  assertEquals(notes.slice(2), ["setup", "run tiny", "chat --base-dir=/base/runs/tiny"]);
});

Deno.test("demo() asks three questions when it is piped", async () => {
  const { notes } = await noted({ isTerminal: false });
  const shown = notes.filter((note) => note.startsWith("\n> "));
  assertEquals(shown, DEMO_QUESTIONS.map((prompt) => `\n> ${prompt}`));
  assertEquals(notes.filter((note) => note.startsWith("chat ")).length, 3);
});

Deno.test("demo() stops after base training with --fast, and the base model continues texts", async () => {
  const { notes } = await noted({ isTerminal: false, isFast: true });
  assertEquals(notes.filter((note) => note.startsWith("run ")), ["run tiny --until=base-eval"]);
  assertEquals(notes.filter((note) => note.startsWith("\n> ")), DEMO_TEXTS.map((prompt) => `\n> ${prompt}`));
  assert(notes.filter((note) => note.startsWith("chat ")).every((note) => note.includes("--source=base")));
});

Deno.test("demo() ends with the code of a stage that was stopped", async () => {
  const { notes, code } = await noted({ isTerminal: true, codes: [75] });
  assertEquals(code, 75);
  assertEquals(notes.at(-1), "run tiny");
});
