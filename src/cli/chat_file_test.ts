import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { checkMutations, temporaryFolder } from "../../dev/testing.ts";
import { conversationFile, expandHome, loadConversation } from "./chat_file.ts";
import { ChatError } from "./chat_partner.ts";

const TALK = [
  { role: "system", content: "S" },
  { role: "user", content: "漢字 \u2028 😀 \u0000" },
  { role: "assistant", content: [{ type: "python", text: "1+1" }, { type: "python_output", text: "2" }] },
  { role: "user", content: "" },
] as const;

Deno.test("loadConversation() reads what conversationFile() writes, byte for byte", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "talk.jsonl");
  const text = conversationFile(path, TALK);
  Deno.writeTextFileSync(path, text);
  assertEquals(loadConversation(path), [...TALK]);
  assertEquals(conversationFile(path, loadConversation(path)), text);
});

Deno.test("loadConversation() refuses everything else with a sentence", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "talk.jsonl");
  const user = '{"role": "user", "content": "a"}';
  const answer = '{"role": "assistant", "content": "b"}';
  const wrong: [string | Uint8Array, string][] = [
    ["", "0 lines"],
    [`[${user}]\n[${user}]\n`, "2 lines"],
    ["> Hello\n", "no JSON"],
    ["{}", "no list"],
    ["[]", "no question"],
    ['[{"role": "system", "content": "a"}]', "no question"],
    ["[null]", 'message 0 is from nobody, expected "user"'],
    [`[${answer}]`, 'message 0 is from "assistant", expected "user"'],
    [`[${user}, ${user}]`, 'message 1 is from "user", expected "assistant"'],
    ['[{"role": "user", "content": [{"type": "text", "text": "a"}]}]', "message 0 is no text"],
    [`[${user}, {"role": "assistant", "content": [{"type": "image", "text": "a"}]}]`, "no list of its parts"],
    ['[{"role": "user", "content": "\\ud800"}]', "message 0 is no text"],
    [Uint8Array.of(0xff, 0xfe), "no UTF-8"],
  ];
  for (const [content, said] of wrong) {
    if (typeof content === "string") Deno.writeTextFileSync(path, content);
    else Deno.writeFileSync(path, content);
    assertThrows(() => loadConversation(path), ChatError, said);
  }
  assertThrows(() => loadConversation(folder.path), ChatError, "it is no file");
  assertThrows(() => loadConversation("/dev/zero"), ChatError, "it is no file");
  Deno.truncateSync(path, 17 * 1024 * 1024);
  assertThrows(() => loadConversation(path), ChatError, "expected at most");
});

Deno.test("loadConversation() gives a conversation or one clear error for a damaged file", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "talk.jsonl");
  const read = (bytes: Uint8Array) => {
    Deno.writeFileSync(path, bytes);
    const messages = loadConversation(path);
    assert(messages.some(({ role }) => role === "user"));
    conversationFile(path, messages);
  };
  const files = [new TextEncoder().encode(conversationFile(path, TALK))];
  await checkMutations({ files, read, errors: [ChatError], refused: 0.5, runs: 500 });
});

Deno.test("expandHome() puts the home folder in the place of a leading ~ alone", () => {
  const home = Deno.env.get("HOME")!;
  assertEquals(["~", "~/a", "~a", "b/~", "a"].map(expandHome), [home, join(home, "a"), "~a", "b/~", "a"]);
});
