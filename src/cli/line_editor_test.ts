import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import { join } from "@std/path";
import { temporaryFolder, TestRandom, testSeed } from "../../dev/testing.ts";
import { SILENT } from "../data/log.ts";
import { ChatHistory } from "./chat_history.ts";
import { Interrupted } from "./chat_input.ts";
import { LineEditor, packPaste, PasteReader, unpackPaste } from "./line_editor.ts";

const UP = "\x1b[A";
const LEFT = "\x1b[D";
const BACKSPACE = "\x7f";
const paste = (text: string) => `\x1b[200~${text}\x1b[201~`;
const LIMIT_MS = 10_000;

/** An editor on a terminal that tests type on; `path` is where its history lies. */
function editorOf(path: string, { columns = 40 } = {}) {
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const keyboard = writable.getWriter();
  let shown = "";
  let press = () => {};
  const raw: boolean[] = [];
  const editor = new LineEditor({
    keys: readable,
    screen: { write: (text) => void (shown += text), columns: () => columns },
    history: new ChatHistory(path, SILENT),
    paint: (prompt) => prompt,
    complete: (line) => ["/temperature", "/topk", "/topp"].filter((name) => name.startsWith(line)),
    setRaw: (isRaw) => void raw.push(isRaw),
    interrupts: { add: (listener) => void (press = listener), remove: () => {} },
  });
  const type = (keys: string) => void keyboard.write(new TextEncoder().encode(keys));
  const line = async (keys: string) => {
    type(keys);
    return await deadline(editor.readLine("> "), LIMIT_MS);
  };
  return { editor, keyboard, type, line, raw, press: () => press(), shown: () => shown };
}

const withEditor = async (use: (parts: ReturnType<typeof editorOf>, path: string) => Promise<void>) => {
  using folder = temporaryFolder();
  const path = join(folder.path, "chat_history.jsonl");
  const parts = editorOf(path);
  await using _ = parts.editor;
  await use(parts, path);
};

Deno.test("LineEditor edits a line with the arrow keys, wide characters included", () =>
  withEditor(async ({ line, shown }) => {
    assertEquals(await line("helo\x1b[Dl\r"), "hello");
    assertEquals(await line(`a漢字b${LEFT}${LEFT}${BACKSPACE}x\r`), "ax字b");
    assertEquals(await line("😀\r"), "😀");
    assertStringIncludes(shown(), "> ");
  }));

Deno.test("LineEditor brings back lines of this chat and of earlier ones, but no answer to the program", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "chat_history.jsonl");
  {
    const { editor, line, type } = editorOf(path);
    await using _ = editor;
    assertEquals([await line("one\r"), await line("two\r"), await line("two\r")], ["one", "two", "two"]);
    assertEquals(await line(`${UP}${UP}\r`), "one");
    type("y\r");
    assertEquals(await editor.readLine("Replace it? ", { forget: true }), "y");
    assertEquals(await line(`${UP}!\r`), "one!");
  }
  assertEquals(new ChatHistory(path, SILENT).entries, ["one!", "one", "two", "one"]);
  const later = editorOf(path);
  await using _ = later.editor;
  assertEquals(await later.line(`${UP}\r`), "one!");
});

Deno.test("LineEditor takes a pasted text as one line with its breaks", () =>
  withEditor(async ({ line, shown }, path) => {
    const text = "def f():\n\treturn 1\r\n\n\x1b[31mred";
    assertEquals(await line(`say ${paste(text)}!\r`), "say def f():\n\treturn 1\n\n␛[31mred!");
    assertStringIncludes(shown(), "def f():␤␉return 1");
    assertEquals(await line(`${UP}\r`), "say def f():\n\treturn 1\n\n␛[31mred!");
    assertEquals(new ChatHistory(path, SILENT).entries.length, 1);
  }));

Deno.test("LineEditor takes a long pasted text at once", () =>
  withEditor(async ({ line }) => {
    const text = "0123456789 漢字\n".repeat(10_000);
    assertEquals(await line(`${paste(text)}\r`), text);
  }));

Deno.test("LineEditor keeps what is typed ahead for the next lines, and shows it only then", () =>
  withEditor(async ({ editor, line, shown }) => {
    assertEquals(await line("one\rtwo\nthr"), "one");
    assertEquals(shown().includes("two"), false);
    assertEquals(await editor.readLine("> "), "two");
    assertEquals(await line("ee\r"), "three");
  }));

Deno.test("LineEditor completes commands by Tab", () =>
  withEditor(async ({ type, line, shown }) => {
    type("/te\t");
    assertEquals(await line(" 1\r"), "/temperature 1");
    type("/to\t");
    type("\t");
    assertEquals(await line("k 3\r"), "/topk 3");
    assertStringIncludes(shown(), "/topp");
  }));

Deno.test("LineEditor empties a line at Ctrl-C, reports it at an empty one, and aborts an answer", () =>
  withEditor(async ({ editor, type, press, shown }) => {
    const first = editor.readLine("> ");
    type("half");
    while (!shown().includes("half")) await new Promise((done) => setTimeout(done));
    press();
    type("whole\r");
    assertEquals(await deadline(first, LIMIT_MS), "whole");
    const second = editor.readLine("> ");
    press();
    await assertRejects(() => second, Interrupted);
    using answer = editor.interruptible();
    press();
    assertEquals(answer.signal.aborted, true);
    type("after\r");
    assertEquals(await deadline(editor.readLine("> "), LIMIT_MS), "after");
  }));

Deno.test("LineEditor ends at Ctrl-D and at the end of its keys, and gives the terminal back", async () => {
  using folder = temporaryFolder();
  const first = editorOf(join(folder.path, "a"));
  assertEquals([await first.line("\x04"), await first.editor.readLine("> ")], [null, null]);
  await first.editor[Symbol.asyncDispose]();
  assertEquals(first.raw, [true, false]);
  const second = editorOf(join(folder.path, "b"));
  await using _ = second.editor;
  const line = second.editor.readLine("> ");
  await second.keyboard.close();
  assertEquals(await deadline(line, LIMIT_MS), null);
});

Deno.test("PasteReader tells pasted texts from keys however they are cut", () => {
  const random = new TestRandom(testSeed());
  const typed = `a${paste("x\r\ny\x1b[A\x1b[20")}b\rc${UP}${paste("")}d\n${LEFT}`;
  const join = (parts: { isPasted: boolean; text: string }[]) => {
    const joined: [boolean, string][] = [];
    for (const { isPasted, text } of parts) {
      const last = joined.at(-1);
      if (last !== undefined && !last[0] && !isPasted && !/[\r\n]$/.test(last[1])) last[1] += text;
      else joined.push([isPasted, text]);
    }
    return joined;
  };
  const whole = [[false, "a"], [true, "x\r\ny\x1b[A\x1b[20"], [false, "b\r"], [false, `c${UP}`], [true, ""]];
  for (let run = 0; run < 200; run++) {
    const reader = new PasteReader();
    const parts = [];
    for (let at = 0; at < typed.length;) {
      let length = 1 + random.below(5);
      if (typed[at + length - 1] === "\x1b") length++; // Escape alone is a key
      parts.push(...reader.push(typed.slice(at, at + length)));
      at += length;
    }
    assertEquals(join(parts), [...whole, [false, "d\n"], [false, LEFT]]);
  }
});

Deno.test("packPaste() makes one line of which unpackPaste() makes the text again", () => {
  const text = "a\n\tb\n";
  assertEquals(packPaste(text), "a␤␉b␤");
  assertEquals(unpackPaste(packPaste(text)), text);
  assertEquals(packPaste("a\r\nb\rc\x07"), "a␤b␤c␇");
});
