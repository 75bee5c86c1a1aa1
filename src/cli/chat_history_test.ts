import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { SILENT } from "../data/log.ts";
import { ChatHistory } from "./chat_history.ts";

Deno.test("ChatHistory keeps lines in a file that its owner alone can read", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "new", "chat_history.jsonl");
  const [first, second] = [new ChatHistory(path, SILENT), new ChatHistory(path, SILENT)];
  assertEquals(first.entries, []);
  first.add("one");
  second.add('two ␤ "lines" 😀');
  first.add("three");
  first.add("x".repeat(20_000));
  assertEquals(new ChatHistory(path, SILENT).entries, ["three", 'two ␤ "lines" 😀', "one"]);
  assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
});

Deno.test("ChatHistory passes over what it did not write, and cuts a long file to the newest lines", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "chat_history.jsonl");
  Deno.writeTextFileSync(path, 'no json\n5\n""\n"kept"\n{"a":1}\n"cut');
  assertEquals(new ChatHistory(path, SILENT).entries, ["kept"]);
  Deno.writeTextFileSync(path, Array.from({ length: 2500 }, (_, i) => `"${i}"\n`).join(""));
  const { entries } = new ChatHistory(path, SILENT);
  assertEquals([entries.length, entries[0], entries.at(-1)], [1000, "2499", "1500"]);
  assertEquals(Deno.readTextFileSync(path).trim().split("\n").length, 1000);
  assertEquals([...Deno.readDirSync(folder.path)].length, 1);
});

Deno.test("ChatHistory says once that it cannot keep lines, and goes on", () => {
  using folder = temporaryFolder();
  const warnings: string[] = [];
  const log = { ...SILENT, warn: (message: string) => void warnings.push(message) };
  const history = new ChatHistory(folder.path, log);
  history.add("one");
  history.add("two");
  assertEquals(warnings.length, 1);
  assertStringIncludes(warnings[0], "are not kept");
});
