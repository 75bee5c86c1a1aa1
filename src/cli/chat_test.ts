import { assertEquals, assertStringIncludes } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { answerOnce, chatLoop } from "./chat.ts";
import { CHAT_COMMANDS, completeCommand } from "./chat_commands.ts";
import { Interrupted } from "./chat_input.ts";
import { ChatError } from "./chat_partner.ts";
import { localPartner, openModel, scriptedChat, ScriptedPartner, type Step } from "./chat_testing.ts";

setColorEnabled(false);

const chatOf = (lines: readonly (string | Interrupted)[], scripts: readonly (readonly Step[])[], options = {}) =>
  scriptedChat(lines, new ScriptedPartner(scripts), options);

Deno.test("chatLoop() answers until quit and ignores empty lines", async () => {
  const { options, seen, conversation } = chatOf(["Hello", "", "  ", "Bye", "quit", "more"], [["H", "i."], ["Bye."]]);
  assertEquals(await chatLoop(options), 0);
  assertEquals(seen().out, "Hi.\nBye.\n");
  assertEquals(conversation.messages.length, 4);
  for (const word of ["exit", "/quit", "/exit", "quit"]) assertEquals(await chatLoop(chatOf([word], []).options), 0);
  assertEquals(await chatLoop(chatOf([], []).options), 0);
});

Deno.test("chatLoop() shows control characters of an answer and of a server's error as symbols", async () => {
  const { options, seen } = chatOf(["?", "?"], [["a\x1b[2Jb\u0007", "\rc\td\u202e"], [new ChatError("no\x1b[2J")]]);
  await chatLoop(options);
  assertEquals(seen().out, "a␛[2Jb␇␍c\td<U+202E>\n");
  assertStringIncludes(seen().err, "no␛[2J");
});

Deno.test("chatLoop() shows a tool call with its result, and parts it from the word behind it", async () => {
  for (const [behind, shown] of [[".", "So [6*7 = 42].\n"], ["42", "So [6*7 = 42] 42\n"]]) {
    const answer: Step[] = ["So ", { kind: "python", text: "6*7" }, { kind: "python_output", text: "42" }, behind];
    const { options, seen } = chatOf(["?"], [answer]);
    await chatLoop(options);
    assertEquals(seen().out, shown);
  }
});

Deno.test("chatLoop() goes on after a Ctrl-C and leaves at the second one in a row", async () => {
  const once = chatOf([new Interrupted(), "quit"], []);
  assertEquals(await chatLoop(once.options), 0);
  assertStringIncludes(once.seen().err, "Ctrl-C again");
  assertEquals(await chatLoop(chatOf([new Interrupted(), new Interrupted()], []).options), 130);
});

Deno.test("chatLoop() stops an answer at Ctrl-C, keeps it and goes on", async () => {
  const chat = chatOf(["first", "second"], [["ab", "c", "d"], ["ok"]]);
  const write = chat.options.terminal.raw.bind(chat.options.terminal);
  chat.options.terminal.raw = (text) => {
    write(text);
    if (text === "c") chat.abort();
  };
  assertEquals(await chatLoop(chat.options), 0);
  assertEquals(chat.seen().out, "abc\nok\n");
  assertStringIncludes(chat.seen().err, "Stopped; what was answered stays");
  assertEquals(chat.conversation.messages[1].content, "abc");
});

Deno.test("chatLoop() says that an answer failed, keeps the question and asks it again at /retry", async () => {
  const failure = new ChatError("Cannot reach it");
  const lines = ["Hello", "/retry", "/stats"];
  const { options, seen, conversation } = chatOf(lines, [["Hal", failure], ["Hi."]]);
  assertEquals(await chatLoop(options), 0, "a person has read it");
  assertEquals(seen().out, "Hal\nHi.\n");
  assertStringIncludes(seen().err, "Cannot reach it\n(your question is kept; /retry asks again)");
  assertEquals(conversation.messages.map(({ content }) => content), ["Hello", "Hi."]);
  const piped = chatOf(["Hello", "More"], [[failure], ["Hi."]], { isTerminal: false });
  assertEquals([await chatLoop(piped.options), piped.seen().out], [1, "Hi.\n"]);
  const kept = chatOf(["Hello", "/retry"], [["Hi."], [failure]]);
  await chatLoop(kept.options);
  assertStringIncludes(kept.seen().err, "the answer before stays");
});

Deno.test("chatLoop() tells of answers that were cut and of messages that the model no longer sees, once", async () => {
  const full = (droppedMessages: number, isCut: boolean): Step[] => [
    "a",
    { kind: "figures", figures: { droppedMessages, isCut, answerTokens: 7 } },
  ];
  const { options, seen } = chatOf(["1", "2", "3"], [full(0, true), full(2, false), full(2, false)]);
  await chatLoop(options);
  assertStringIncludes(seen().err, "cut at 7 tokens");
  assertEquals(seen().err.match(/oldest 2 messages/g)?.length, 1);
});

Deno.test("chatLoop() answers unknown and wrong commands with the nearest known one, and asks the rest", async () => {
  const wrong: [string, string][] = [
    ["/hlep", 'did you mean "/help"?'],
    ["/temp 1", 'did you mean "/temperature"?'],
    ["/nonsense x", 'Cannot run "/nonsense": there is no such command; /help lists them'],
    ["/", "there is no such command; /help lists them"],
    ["/clear all", 'Cannot run /clear: "all" follows it, expected nothing'],
    ["/temperature warm", 'Cannot read /temperature: "warm", expected a number'],
    ["/temperature -1", "expected at least 0"],
    ["/topk 1.5", "expected a whole number"],
    ["/topp 2", "expected from 0.01 to 1"],
    ["/seed x", "expected a whole number"],
    ["/undo", "nothing was said"],
    ["/retry", "nothing was asked"],
    ["/save", "nothing was said"],
    ["/load /no/such/file", 'Cannot load "/no/such/file": no such file'],
  ];
  for (const [line, said] of wrong) {
    const { options, seen } = chatOf([line], [], { isTerminal: false });
    assertEquals(await chatLoop(options), 1, line);
    assertStringIncludes(seen().err, said);
  }
  const paths = chatOf(["/etc/hosts?", '"""/help"""', "clear up"], [["a"], ["b"], ["c"]]);
  await chatLoop(paths.options);
  assertEquals(paths.seen().out, "a\nb\nc\n");
});

Deno.test("/help lists every command", async () => {
  const { options, seen } = chatOf(["/help"], []);
  await chatLoop(options);
  const text = seen().err.replace(/\s+/g, " ");
  for (const { name, help } of CHAT_COMMANDS) assertStringIncludes(text, help, name);
  assertEquals(seen().err.split("\n").every((line) => line.length <= 100), true);
  assertEquals(completeCommand("/te"), ["/temperature"]);
  assertEquals([completeCommand("/").length, completeCommand("te")], [CHAT_COMMANDS.length, []]);
});

Deno.test("the commands of the settings change the next answers, and show what is set", async () => {
  const lines = ["/temperature 0.5", "/topk 7", "/topp .9", "/seed 3", "a", "/seed", "/temperature", "b", "/topk"];
  const partner = new ScriptedPartner([["x"], ["y"]]);
  const { options, seen } = scriptedChat(lines, partner);
  await chatLoop(options);
  const drawn = partner.asked.map(({ messages: _, ...settings }) => settings);
  const first = { maxTokens: 40, temperature: 0.5, topK: 7, topP: 0.9, seed: 3 };
  const { seed: _, ...second } = first;
  assertEquals(drawn, [first, second]);
  assertStringIncludes(seen().err, "every answer draws anew\ntemperature 0.5\ntopk 7\n");
  const untouched = chatOf(["/temperature"], []);
  await chatLoop(untouched.options);
  assertStringIncludes(untouched.seen().err, "temperature as the server has it");
});

Deno.test("/system, /undo, /retry and /clear change what is asked", async () => {
  const lines = [
    "/system Be brief.",
    "a",
    "b",
    "/undo",
    "c",
    "/retry",
    "/seed 1",
    "/retry",
    "/retry",
    "/clear",
    "d",
    "/system",
    "e",
  ];
  const partner = new ScriptedPartner("123456789".split("").map((digit) => [digit]));
  const { options, seen } = scriptedChat(lines, partner);
  await chatLoop(options);
  const asked = partner.asked.map(({ messages }) => messages.map(({ content }) => content).join("|"));
  const [brief, c] = ["Be brief.", "Be brief.|a|1|c"];
  assertEquals(asked, [`${brief}|a`, `${brief}|a|1|b`, c, c, c, c, `${brief}|d`, "d|7|e"]);
  assertStringIncludes(seen().err, "Forgotten: b");
  assertEquals(seen().err.match(/The answer will be the same: \/seed is 1/g)?.length, 1);
});

Deno.test("/model lists the models and lets another one go on with the conversation", async () => {
  const partner = new ScriptedPartner([["1"], ["2"]]);
  const { options, seen } = scriptedChat(["a", "/model", "/model second", "/model", "b"], partner);
  await chatLoop(options);
  assertStringIncludes(seen().err, "* first\n  second\n");
  assertStringIncludes(seen().err, "second goes on from here\n  first\n* second\n");
  assertEquals(partner.asked[1].messages.length, 3);
  const base = localPartner(openModel("base", { completes: true }));
  const refused = scriptedChat(["/system x", "/model nope"], base);
  await chatLoop(refused.options);
  assertStringIncludes(refused.seen().err, "a base model continues text and knows none");
  assertStringIncludes(refused.seen().err, 'Cannot find model "nope"');
});

Deno.test("/stats tells of the context, the cache and the speed, as far as they are known", async () => {
  const figures = { promptTokens: 30, cachedTokens: 20, answerTokens: 5, contextLen: 64, droppedMessages: 2 };
  const known = chatOf(["/system You are a bear", "a", "/stats"], [["x", { kind: "figures", figures }]]);
  await chatLoop(known.options);
  for (
    const text of [
      "first, 1 question, system message: You are a bear",
      "context: 35 of 64 tokens, 30 of them prompt (20 from the cache); the oldest 2 messages left out",
      "last answer: 5 tokens, the first after",
    ]
  ) assertStringIncludes(known.seen().err, text);
  const quiet = chatOf(["/stats"], [], { quiet: true });
  await chatLoop(quiet.options);
  assertStringIncludes(quiet.seen().err, "first, 0 questions\n");
  const unknown = chatOf(["/stats", "a", "/stats"], [["x"]]);
  await chatLoop(unknown.options);
  assertEquals(unknown.seen().err.includes("undefined"), false);
  assertStringIncludes(unknown.seen().err, "the rest as the server has it, every answer draws anew\n");
  assertStringIncludes(unknown.seen().err, "first, 0 questions\n");
});

Deno.test("/save and /load go through a file byte for byte, and ask before one is replaced", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "talk.jsonl");
  const again = join(folder.path, "again.jsonl");
  const text = join(folder.path, "talk.txt");
  const lines = [
    "/system S",
    "Hello",
    `/save ${path}`,
    "More 漢字😀",
    `/save ${path}`,
    "n",
    `/save ${path}`,
    "y",
    `/save ${text}`,
  ];
  const answer: Step[] = ["So ", { kind: "python", text: "1+1" }, { kind: "python_output", text: "2" }];
  const { options, seen, conversation } = chatOf(lines, [["Hi."], answer]);
  await chatLoop(options);
  assertEquals(seen().forgotten, ["n", "y"], "answers to the program are no history");
  assertStringIncludes(seen().err, "Not saved");
  const saved = await Deno.readTextFile(path);
  assertEquals(JSON.parse(saved), conversation.messages);
  assertEquals(await Deno.readTextFile(text), "# S\n\n> Hello\n\nHi.\n\n> More 漢字😀\n\nSo 1+12\n");
  const loaded = chatOf([`/load ${path}`, `/save ${again}`, "Third"], [["ok"]]);
  await chatLoop(loaded.options);
  assertStringIncludes(loaded.seen().err, "2 questions, the last one: More 漢字😀");
  assertEquals(await Deno.readTextFile(again), saved);
  assertEquals(loaded.conversation.messages.length, 7);
  const failing = chatOf(["Hello", "/save /no/such/folder/x"], [["Hi."]]);
  await chatLoop(failing.options);
  assertStringIncludes(failing.seen().err, 'Cannot save "/no/such/folder/x": no such file');
});

Deno.test("answerOnce() prints the answer alone, as one object with --json", async () => {
  const once = chatOf([], [["Hi.\x1b"]]);
  assertEquals(await answerOnce("Hello", once.options), 0);
  assertEquals([once.seen().out, once.seen().err], ["Hi.␛\n", ""]);
  const json = chatOf([], [["H", "i."]], { json: true });
  await answerOnce("Hello", json.options);
  assertEquals(JSON.parse(json.seen().out), { answer: "Hi.", content: "Hi." });
  const stopped = chatOf([], [["a", "b"]]);
  stopped.options.terminal.raw = () => stopped.abort();
  assertEquals(await answerOnce("Hello", stopped.options), 130);
  const loop = chatOf(["a", "b"], [["1"], ["2"]], { json: true });
  await chatLoop(loop.options);
  assertEquals(loop.seen().out.trim().split("\n").map((line) => JSON.parse(line).answer), ["1", "2"]);
});
