import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { demo, DEMO_PROMPTS } from "./demo.ts";

/** Runs the demo on a machine that only takes notes. */
async function noted(options: { isTerminal: boolean; codes?: number[] }) {
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

Deno.test("demo() answers three prompts when it is piped", async () => {
  const { notes } = await noted({ isTerminal: false });
  const shown = notes.filter((note) => note.startsWith("\n> "));
  assertEquals(shown, DEMO_PROMPTS.map((prompt) => `\n> ${prompt}`));
  assertEquals(notes.filter((note) => note.startsWith("chat ")).length, 3);
});

Deno.test("demo() ends with the code of a stage that was stopped", async () => {
  const { notes, code } = await noted({ isTerminal: true, codes: [75] });
  assertEquals(code, 75);
  assertEquals(notes.at(-1), "run tiny");
});
