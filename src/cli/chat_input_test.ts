import { assertEquals, assertRejects } from "@std/assert";
import { Interrupted } from "./chat.ts";
import { LineInput } from "./chat_input.ts";

Deno.test("LineInput.readLine() gives lines of any ending and the rest at the end", async () => {
  const bytes = new TextEncoder().encode("one\r\ntwo é\n\nlast");
  const stream = ReadableStream.from([bytes.slice(0, 9), bytes.slice(9, 11), bytes.slice(11)]);
  const prompts: string[] = [];
  await using input = new LineInput(stream, { prompt: (text) => void prompts.push(text) });
  const lines = [];
  for (let i = 0; i < 5; i++) lines.push(await input.readLine(`${i}>`));
  assertEquals(lines, ["one", "two é", "", "last", null]);
  assertEquals(prompts, ["0>", "1>", "2>", "3>", "4>"]);
});

Deno.test("LineInput turns Ctrl-C into an Interrupted line or an aborted answer", async () => {
  const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const writer = writable.getWriter();
  let press = () => {};
  const interrupts = { add: (listener: () => void) => void (press = listener), remove: () => void (press = () => {}) };
  await using input = new LineInput(readable, { prompt: () => {}, interrupts });
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
