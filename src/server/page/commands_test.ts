import { assertEquals, assertStringIncludes } from "@std/assert";
import { runCommand, suggestCommands } from "./commands.ts";
import { DEFAULT_SETTINGS, readSettings } from "./preferences.ts";

Deno.test("runCommand() sets, shows, and answers what it does not know", () => {
  const run = (text: string) => runCommand(text, DEFAULT_SETTINGS);
  assertEquals(run("/temperature"), { type: "say", text: "Temperature is 0.8." });
  assertEquals(run(" /Temperature 0.3 "), {
    type: "set",
    change: { temperature: 0.3 },
    text: "Temperature is 0.3 now.",
  });
  assertEquals(run("/topk 0"), { type: "set", change: { topK: 0 }, text: "Top-k is 0 now." });
  assertEquals([run("/clear"), run("/help")], [{ type: "clear" }, { type: "help" }]);
  for (const text of ["/temperature 2.1", "/temperature x", "/temperature 1 2", "/topk 1.5", "/topk -1", "/topk 201"]) {
    assertEquals(run(text)?.type, "say", text);
  }
  const unknown = run("/model d12");
  assertStringIncludes(unknown?.type === "say" ? unknown.text : "", "There is no command /model");
  for (const text of ["a /help", "/usr/bin is a folder", "1/2"]) assertEquals(run(text), undefined, text);
});

Deno.test("suggestCommands() completes the first word", () => {
  assertEquals(suggestCommands("/").length, 4);
  assertEquals(suggestCommands("/T").map(({ name }) => name), ["/temperature", "/topk"]);
  for (const text of ["", "/topk 5", "hello /", "/x"]) assertEquals(suggestCommands(text).length, 0, text);
});

Deno.test("readSettings() takes the default for each value that is wrong", () => {
  const good = { ...DEFAULT_SETTINGS, temperature: 0, topK: 0, seed: 5, maxTokens: null, theme: "dark", model: "d4" };
  assertEquals(readSettings(JSON.stringify(good)), good as typeof DEFAULT_SETTINGS);
  for (const text of [null, "", "{", "null", "[]", '"x"']) assertEquals(readSettings(text), DEFAULT_SETTINGS);
  const wrong = {
    temperature: null,
    topK: 1.5,
    topP: 0,
    seed: -1,
    maxTokens: "9",
    theme: "pink",
    systemPrompt: 5,
    x: 1,
  };
  assertEquals(readSettings(JSON.stringify(wrong)), DEFAULT_SETTINGS);
});
