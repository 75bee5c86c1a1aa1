import { assertEquals, assertStringIncludes } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { join } from "@std/path";
import { Engine } from "../engine/engine.ts";
import { answerOnce, type ChatInput, chatLoop, Interrupted } from "./chat.ts";
import { Conversation } from "./conversation.ts";
import { byteTokenizer, ScriptedModel } from "../engine/engine_testing.ts";
import { Terminal } from "./progress.ts";

setColorEnabled(false);
const bytes = byteTokenizer.encode;
const END = byteTokenizer.encodeSpecial("<|assistant_end|>");

/** A chat with scripted answers and lines; an Error among the lines is Ctrl-C, a number stops the answer after so many draws. */
function scriptedChat(lines: (string | Interrupted)[], answers: number[][], options: { json?: boolean } = {}) {
  let out = "";
  let err = "";
  const prompts: string[] = [];
  const sink = (write: (text: string) => void) => ({ write, isTerminal: () => false, columns: () => 80 });
  const terminal = new Terminal({
    json: options.json ?? false,
    quiet: false,
    verbose: false,
    out: sink((text) => void (out += text)),
    err: sink((text) => void (err += text)),
  });
  const rest = [...lines];
  let answering: AbortController | undefined;
  const input: ChatInput = {
    readLine(prompt) {
      prompts.push(prompt);
      const line = rest.shift();
      return line instanceof Interrupted ? Promise.reject(line) : Promise.resolve(line ?? null);
    },
    interruptible() {
      answering = new AbortController();
      return { signal: answering.signal, [Symbol.dispose]() {} };
    },
  };
  const model = new ScriptedModel(answers, { contextLen: 200 });
  const conversation = new Conversation(new Engine(model, byteTokenizer), byteTokenizer, {
    maxTokens: 40,
    completes: false,
  });
  const seen = () => ({ out, err, prompts });
  return { options: { conversation, terminal, input }, conversation, seen, abort: () => answering?.abort() };
}

Deno.test("chatLoop() answers until quit and ignores empty lines", async () => {
  const { options, seen, conversation } = scriptedChat(["Hello", "", "  ", "Bye", "quit", "more"], [
    [...bytes("Hi."), END],
    [...bytes("Bye."), END],
  ]);
  assertEquals(await chatLoop(options), 0);
  assertEquals(seen().out, "Hi.\nBye.\n");
  assertEquals(conversation.messages.length, 4);
  for (const word of ["exit", "/quit"]) assertEquals(await chatLoop(scriptedChat([word], []).options), 0);
  assertEquals(await chatLoop(scriptedChat([], []).options), 0);
});

Deno.test("chatLoop() shows control characters of an answer as symbols", async () => {
  const { options, seen } = scriptedChat(["?"], [[...bytes("a\x1b[2Jb\u0007\rc\td"), END]]);
  await chatLoop(options);
  assertEquals(seen().out, "a␛[2Jb␇␍c\td\n");
});

Deno.test("chatLoop() shows a tool call with its result, and parts it from the word behind it", async () => {
  const [start, end] = ["python_start", "python_end"].map((name) => byteTokenizer.encodeSpecial(`<|${name}|>`));
  for (const [behind, shown] of [[".", "So [6*7 = 42].\n"], ["42", "So [6*7 = 42] 42\n"]]) {
    const answer = [...bytes("So "), start, ...bytes("6*7"), end, 0, 0, 0, 0, ...bytes(behind), END]; // the zeros give way to the result
    const { options, seen } = scriptedChat(["?"], [answer]);
    await chatLoop(options);
    assertEquals(seen().out, shown);
  }
});

Deno.test("chatLoop() goes on after a Ctrl-C and leaves at the second one in a row", async () => {
  const once = scriptedChat([new Interrupted(), "quit"], []);
  assertEquals(await chatLoop(once.options), 0);
  assertStringIncludes(once.seen().err, "Ctrl-C again");
  assertEquals(await chatLoop(scriptedChat([new Interrupted(), new Interrupted()], []).options), 130);
});

Deno.test("chatLoop() stops an answer at Ctrl-C, keeps it and goes on", async () => {
  const chat = scriptedChat(["first", "second"], [bytes("abcdefgh"), [...bytes("ok"), END]]);
  const write = chat.options.terminal.raw.bind(chat.options.terminal);
  chat.options.terminal.raw = (text) => {
    write(text);
    if (text === "c") chat.abort();
  };
  assertEquals(await chatLoop(chat.options), 0);
  assertEquals(chat.seen().out, "abc\nok\n");
  assertStringIncludes(chat.seen().err, "Stopped");
  assertEquals(chat.conversation.messages[1].content, "abc");
});

Deno.test("chatLoop() knows its commands and names unknown ones", async () => {
  const { options, seen, conversation } = scriptedChat([
    "/help",
    "Hello",
    "/stats",
    "/nonsense x",
    "clear",
    "/stats",
    "/clear",
  ], [
    [...bytes("Hi."), END],
  ]);
  await chatLoop(options);
  const { err } = seen();
  for (const text of ["/save", "1 turn,", "3 tokens", 'no command "/nonsense x"', "Forgotten", "0 turns"]) {
    assertStringIncludes(err, text);
  }
  assertEquals(conversation.messages, []);
});

Deno.test("chatLoop() says that a text is too long and goes on", async () => {
  const { options, seen } = scriptedChat(["x".repeat(300), "Hello"], [[...bytes("Hi."), END]]);
  await chatLoop(options);
  assertStringIncludes(seen().err, "expected at most");
  assertEquals(seen().out, "Hi.\n");
});

Deno.test("chatLoop() saves a conversation and asks before it replaces a file", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "talk.jsonl");
    const text = join(folder, "talk.txt");
    const script = [`/save ${path}`, "Hello", `/save ${path}`, "Again", `/save ${path}`, "n", `/save ${text}`];
    const { options, seen } = scriptedChat(script, [[...bytes("Hi."), END], [...bytes("Yes."), END]]);
    await chatLoop(options);
    assertStringIncludes(seen().err, "Nothing was said yet");
    assertStringIncludes(seen().err, "Not saved");
    assertEquals(seen().prompts.filter((prompt) => prompt.includes("Replace it?")).length, 1);
    assertEquals(JSON.parse(await Deno.readTextFile(path)), [
      { role: "user", content: "Hello" },
      { role: "assistant", content: "Hi." },
    ]);
    assertEquals(await Deno.readTextFile(text), "> Hello\n\nHi.\n\n> Again\n\nYes.\n");
    const replaced = scriptedChat(["Hello", `/save ${path}`, "y", "/save /no/such/folder/x"], [[
      ...bytes("New."),
      END,
    ]]);
    await chatLoop(replaced.options);
    assertStringIncludes(await Deno.readTextFile(path), "New.");
    assertStringIncludes(replaced.seen().err, "Cannot save");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("answerOnce() prints the answer alone", async () => {
  const { options, seen } = scriptedChat([], [[...bytes("Hi.\x1b"), END]]);
  assertEquals(await answerOnce("Hello", options), 0);
  assertEquals(seen(), { out: "Hi.␛\n", err: "", prompts: [] });
  const json = scriptedChat([], [[...bytes("Hi."), END]], { json: true });
  await answerOnce("Hello", json.options);
  assertEquals(JSON.parse(json.seen().out), { answer: "Hi.", content: "Hi." });
});
