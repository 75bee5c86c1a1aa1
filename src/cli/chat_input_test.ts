import { assertEquals, assertRejects } from "@std/assert";
import { Interrupted, LineInput, readMessage, type Typed } from "./chat_input.ts";

/** Input of a text, cut where the list says. */
function inputOf(text: string, ...cuts: number[]): LineInput {
  const bytes = new TextEncoder().encode(text);
  const ends = [...cuts, bytes.length];
  return new LineInput(ReadableStream.from(ends.map((end, i) => bytes.slice(ends[i - 1] ?? 0, end))));
}

Deno.test("LineInput.readLine() gives lines of any ending and the rest at the end", async () => {
  await using input = inputOf("one\r\ntwo é\n\nlast", 9, 11);
  const lines = [];
  for (let i = 0; i < 5; i++) lines.push(await input.readLine(""));
  assertEquals(lines, ["one", "two é", "", "last", null]);
  assertEquals(input.isTerminal, false);
});

Deno.test("LineInput.readLine() shows prompts where a person types", async () => {
  const prompts: string[] = [];
  await using input = new LineInput(ReadableStream.from([]), { prompt: (text) => void prompts.push(text) });
  await input.readLine("> ");
  assertEquals([prompts, input.isTerminal], [["> "], true]);
});

Deno.test("LineInput turns Ctrl-C into an Interrupted line or an aborted answer", async () => {
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const writer = writable.getWriter();
  let press = () => {};
  const interrupts = { add: (listener: () => void) => void (press = listener), remove: () => void (press = () => {}) };
  await using input = new LineInput(readable, { interrupts });
  const waiting = input.readLine(">");
  press();
  await assertRejects(() => waiting, Interrupted);
  {
    using answer = input.interruptible();
    press();
    assertEquals(answer.signal.aborted, true);
  }
  // The read that was interrupted serves the next line.
  const next = input.readLine(">");
  await writer.write(new TextEncoder().encode("after\n"));
  assertEquals(await next, "after");
});

Deno.test("readMessage() joins lines that end in a backslash and blocks between quotes", async () => {
  const line = (text: string): Typed => ({ text, mayBeCommand: true });
  const block = (text: string): Typed => ({ text, mayBeCommand: false });
  const cases: [string, Typed | null][] = [
    ["", null],
    ["  hello  \n", line("hello")],
    ["one\\\ntwo\\\nthree\nfour", line("one\ntwo\nthree")],
    ["two\\\\\nmore", line("two\\\\")],
    ["three\\\\\\\nmore", line("three\\\\\nmore")],
    ["open\\", line("open")],
    ['"""\n a\n  b\\\n\n"""\nmore', block(" a\n  b\\\n")],
    ['"""one"""\nmore', block("one")],
    ['"""first\n\nlast"""  \nmore', block("first\n\nlast")],
    ['""""""\nmore', block("")],
    ['"""\n\n\n"""', block("\n")],
    ['"""\nnever closed\n', block("never closed")],
    ['/system """\nBe\nbrief.\n"""\nmore', line("/system Be\nbrief.")],
    ["/system Be\\\nbrief.\nmore", line("/system Be\nbrief.")],
    ['say """ so\nmore', line('say """ so')],
  ];
  for (const [typed, expected] of cases) {
    await using input = inputOf(typed);
    assertEquals(await readMessage(input), expected, JSON.stringify(typed));
  }
});
