import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../dev/testing.ts";
import { openTaskRows, rowsOf } from "../src/data/task_data.ts";
import { arcTask, loadArc } from "./arc.ts";
import { loadCustomJson } from "./customjson.ts";
import { extractAnswer, gsm8kTask, loadGsm8k, splitToolCalls } from "./gsm8k.ts";
import { humanEvalTask, loadHumanEval, programOf } from "./humaneval.ts";
import { loadMmlu, mmluTask, unwrap } from "./mmlu.ts";
import { smolTalkTask } from "./smoltalk.ts";
import { readWords, simpleSpelling, spellingBee, TEMPLATES } from "./spellingbee.ts";

Deno.test("arcTask() shows the choices with the letters of the row, and judges only those", async () => {
  const choices = { text: ["ice", "steam"], label: ["1", "2"] };
  const task = arcTask(rowsOf([{ question: "Hot?", choices, answerKey: "2" }]));
  const conversation = task.conversation(0);
  const content =
    "Multiple Choice question: Hot?\n- ice=1\n- steam=2\n\nRespond only with the letter of the correct answer.";
  assertEquals(conversation.messages, [{ role: "user", content }, { role: "assistant", content: "2" }]);
  assertEquals([await task.evaluate!(conversation, "2"), await task.evaluate!(conversation, "1")], [true, false]);
  assertThrows(() => task.evaluate!(conversation, "A"), RangeError, 'the answer "A": expected one of 1, 2');
  const wrong = arcTask(rowsOf([{ question: "Hot?", choices, answerKey: "C" }], "arc.jsonl"));
  assertThrows(() => wrong.conversation(0), SyntaxError, 'arc.jsonl, row 0: "answerKey" is "C", expected one of 1, 2');
  assertThrows(() => task.conversation(1), RangeError, "0 to 0");
});

Deno.test("mmluTask() keeps the subject; unwrap() takes rows out of a column", () => {
  const row = { question: "q", choices: ["a", "b", "c", "d"], answer: 3, subject: "law" };
  const { messages, ...rest } = mmluTask(unwrap(rowsOf([{ train: row }]), "train")).conversation(0);
  assertEquals(messages[1].content, "D");
  assertEquals(rest, { subject: "law", letters: ["A", "B", "C", "D"] } as typeof rest);
  assertThrows(() => mmluTask(rowsOf([{ ...row, answer: 4 }])).conversation(0), SyntaxError, "expected 0, 1, 2 or 3");
  assertThrows(() => mmluTask(unwrap(rowsOf([row]), "train")).conversation(0), SyntaxError, '"train" is missing');
});

Deno.test("gsm8kTask() turns <<3*4=12>> into a tool call and compares answers as texts", () => {
  assertEquals(splitToolCalls("is <<3*4=12>><<x>>12"), [
    { type: "text", text: "is " },
    { type: "python", text: "3*4" },
    { type: "python_output", text: "12" },
    { type: "text", text: "" },
    { type: "python", text: "x" },
    { type: "python_output", text: "" },
    { type: "text", text: "12" },
  ]);
  assertEquals([extractAnswer("#### 1,234."), extractAnswer("####5")], ["1234.", undefined]);
  const task = gsm8kTask(rowsOf([{ question: "q", answer: "so\n#### 10" }]));
  const rewards = ["#### 10", "#### 10.", "10"].map((answer) => task.reward!(task.conversation(0), answer));
  assertEquals(rewards, [1, 0, 0]);
  const broken = gsm8kTask(rowsOf([{ question: "q", answer: 5 }], "rows"));
  assertThrows(() => broken.conversation(0), SyntaxError, 'rows, row 0: "answer" is 5, expected a text');
});

Deno.test("humanEvalTask() gives the executor imports, code, tests and call", async () => {
  const row = { prompt: "import os\ndef f():\n", canonical_solution: " return 1", entry_point: "f", test: "T" };
  const programs: string[] = [];
  const run = (program: string) => Promise.resolve(programs.push(program) === 1);
  const task = humanEvalTask(rowsOf([row]), run);
  const conversation = task.conversation(0);
  assertEquals(conversation.messages[1].content, "import os\ndef f():\n\n return 1");
  assertEquals(await task.evaluate!(conversation, "Here:\n```python\nx = 1\n```"), true);
  assertEquals(await task.evaluate!(conversation, " y "), false);
  assertEquals(programs, ["import os\n\nx = 1\n\nT\ncheck(f)", "import os\n\ny\n\nT\ncheck(f)"]);
  assertThrows(() => programOf({ messages: conversation.messages }, ""), TypeError, "no entry_point");
});

Deno.test("smolTalkTask() names the message that is out of turn", () => {
  const messages = [{ role: "system", content: "s" }, { role: "user", content: "u" }, { role: "user", content: "v" }];
  const task = smolTalkTask(rowsOf([{ messages }], "talk"));
  assertThrows(() => task.conversation(0), SyntaxError, 'talk, row 0: message 2 is from "user", expected "assistant"');
});

Deno.test("spelling tasks draw from the word list, train and test apart", () => {
  const words = ["strawberry", "go"];
  assertEquals(TEMPLATES.length, 51);
  const task = spellingBee(words, { size: 40, split: "train" });
  for (let i = 0; i < task.length; i++) {
    const { messages: [question, answer] } = task.conversation(i);
    const parts = answer.content as { type: string; text: string }[];
    const [_, word, letter] = /^'(.*)'\.count\('(.)'\)$/.exec(parts[2].text)!;
    assertEquals(words.includes(word) && (question.content as string).includes(word), true);
    assertEquals(parts[3].text, String(word.split(letter).length - 1));
    assertEquals(task.reward!(task.conversation(i), `#### ${parts[3].text}`), 1);
  }
  const spell = (split: "train" | "test") =>
    Array.from({ length: 9 }, (_, i) => simpleSpelling(words, { split }).conversation(i).messages[1].content);
  assertEquals(new Set(spell("train")), new Set(["go:g,o", "strawberry:s,t,r,a,w,b,e,r,r,y"]));
  assertEquals(spell("train").join() === spell("test").join(), false);
});

Deno.test("readWords() strips the lines and names one that is empty", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "words.txt");
  await assertRejects(() => readWords(path), Error, 'run "nanochat data fetch words"');
  Deno.writeTextFileSync(path, "one\r\n two\n");
  assertEquals(await readWords(path), ["one", "two"]);
  Deno.writeTextFileSync(path, "one\n\ntwo\n");
  await assertRejects(() => readWords(path), SyntaxError, "line 2: it is empty");
});

Deno.test("loadCustomJson() names the line of what is no conversation", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "identity_conversations.jsonl");
  await assertRejects(() => loadCustomJson(path), Error, 'run "nanochat data fetch identity"');
  const good = '[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]';
  const long = JSON.stringify([{ role: "user", content: "Hi" }, {
    role: "assistant",
    content: "word ".repeat(400_000),
  }]);
  for (const text of [`${good}\n \n${good}`, `\ufeff\r\n${good}\r\n\r\n${good}\r\n`, `${good}\n${long}\n`]) {
    Deno.writeTextFileSync(path, text);
    assertEquals((await loadCustomJson(path)).length, 2);
  }
  const turn = (role: string, content: unknown) => ({ role, content });
  const [user, assistant] = [turn("user", "Hi"), turn("assistant", "Hello")];
  const wrong: [line: unknown, message: string][] = [
    [{ a: 1 }, '{"a":1}, expected a list of messages [{"role": "user", "content": "..."}'],
    [[user], "1 messages of user and assistant, expected at least two"],
    [[user, user, assistant], 'message 1 is from "user", expected "assistant"'],
    [[turn("User", "Hi"), assistant], 'message 0 is from "User", expected "user"'],
    [[user, turn("asistant", "Hi")], 'message 1 is from "asistant", expected "assistant"'],
    [[user, turn("assistant", null)], "message 1 has the content null, expected a text"],
    [[user, { role: "assistant" }], 'message 1 is {"role":"assistant"} without "content", expected [{"role": "user"'],
    [[{ from: "human", value: "x" }, assistant], 'message 0 is {"from":"human","value":"x"} without "role"'],
    [[user, null], 'message 1 is null without "role"'],
    [[user, turn("assistant", "a\ud800")], "message 1 has half a character"],
    [[turn("system", "Be nice"), user, assistant], 'message 0 is from "system", expected "user"'],
  ];
  for (const [value, message] of wrong) {
    Deno.writeTextFileSync(path, `${good}\n\n${JSON.stringify(value)}\n`);
    await assertRejects(() => loadCustomJson(path), SyntaxError, `"${path}", line 3: ${message}`);
  }
  for (const line of ["[{", `${good.slice(0, -3)}`, "x".repeat(1_000_000)]) {
    Deno.writeTextFileSync(path, `${good}\n\n${line}\n`);
    const error = await assertRejects(() => loadCustomJson(path), SyntaxError, `"${path}", line 3: `);
    assert(error.message.endsWith(", expected one JSON value a line") && error.message.length < 300, error.message);
    assert(!error.message.includes("line 1 "), error.message);
  }
  Deno.writeTextFileSync(path, "\n");
  await assertRejects(() => loadCustomJson(path), Error, "no conversation");
});

Deno.test("openTaskRows() reads the originals and names what is missing, malformed or without a column", async () => {
  using folder = temporaryFolder();
  const at = (name: string) => join(folder.path, name);
  const load = () => loadGsm8k(folder.path, { subset: "main", split: "test" });
  await assertRejects(load, Error, 'run "nanochat data fetch tasks" or choose another --data-dir');
  Deno.mkdirSync(at("gsm8k"));
  Deno.writeTextFileSync(at("gsm8k/test.jsonl"), '{"question":"q","answer":"#### 1"}\n{"question":"q"}\n');
  await assertRejects(load, SyntaxError, 'test.jsonl", line 2: it has the columns "question", expected also "answer"');
  Deno.writeTextFileSync(at("gsm8k/test.jsonl"), '{"question":"q","an\\nswer":"#### 1"}\n'); // the message stays one line
  await assertRejects(load, SyntaxError, 'line 1: it has the columns "question", "an\\nswer", expected also "answer"');
  Deno.writeTextFileSync(at("gsm8k/test.jsonl"), '{"question":"q","answer":"#### 1"}\n5\n');
  await assertRejects(load, SyntaxError, "line 2: 5, expected a JSON object");
  Deno.writeTextFileSync(at("gsm8k/test.jsonl"), '{"question":"q","answer":"#### 1"}\n{"question\n');
  await assertRejects(load, SyntaxError, "line 2");
  Deno.mkdirSync(at("mmlu/dev"), { recursive: true });
  const loadDev = () => loadMmlu(folder.path, { subset: "all", split: "dev" });
  Deno.writeTextFileSync(at("mmlu/dev/law_dev.csv"), 'q,1,2,3,4,A\n"a ""b""\nc",1,2,3,4,B\n');
  assertEquals((await loadDev()).length, 2);
  Deno.writeTextFileSync(at("mmlu/dev/law_dev.csv"), '"two\nlines",1,2,3,4,A\nq,1,2,3,4\n');
  await assertRejects(loadDev, SyntaxError, 'law_dev.csv", line 3: 5 fields, expected 6');
  Deno.writeTextFileSync(at("mmlu/dev/law_dev.csv"), 'q,1,2,3,4,A\n"q,1,2,3,4,B\n');
  await assertRejects(loadDev, SyntaxError, "line 2: a field begins");
  Deno.writeTextFileSync(at("mmlu/dev/law_dev.csv"), "q,1,2,3,4,E\n");
  await assertRejects(loadDev, SyntaxError, 'line 1: answer "E", expected A to D');
  Deno.mkdirSync(at("arc"));
  Deno.writeTextFileSync(at("arc/ARC-Easy-Dev.jsonl"), '{"id":"x"}\n');
  const loadEasy = () => loadArc(folder.path, { subset: "ARC-Easy", split: "validation" });
  await assertRejects(loadEasy, SyntaxError, 'ARC-Easy-Dev.jsonl", line 1: no question.choices');
  const run = () => true;
  await assertRejects(() => loadHumanEval(folder.path, { run }), Error, "openai--openai_humaneval");
});

Deno.test("openTaskRows() does not take an unfinished download for a data set", async () => {
  using folder = temporaryFolder();
  const split = join(folder.path, "openai--gsm8k", "main", "test");
  const open = () => openTaskRows(folder.path, { repo: "openai/gsm8k", subset: "main", split: "test" }, ["question"]);
  Deno.mkdirSync(split, { recursive: true });
  await assertRejects(open, Error, 'manifest.json": it is missing, expected the list of a finished download');
  Deno.writeTextFileSync(join(split, "manifest.json"), '["../x.parquet"]');
  await assertRejects(open, Error, "expected a list of names");
  Deno.writeTextFileSync(join(split, "manifest.json"), '["00000.parquet"]');
  await assertRejects(open, Error, "00000.parquet is missing");
});
