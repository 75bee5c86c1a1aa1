import { assertEquals, assertRejects } from "@std/assert";
import { TestRandom, testSeed } from "../../dev/testing.ts";
import { MAX_EVENT_CHARS, readEvents } from "./event_reader.ts";

/** A stream of pieces; a text is cut by `lengthOf` where it is given. */
function streamOf(text: string, lengthOf = () => Infinity): ReadableStream<Uint8Array<ArrayBuffer>> {
  const bytes = new TextEncoder().encode(text);
  const pieces = [];
  for (let at = 0; at < bytes.length;) {
    const length = lengthOf();
    pieces.push(bytes.slice(at, at + length));
    at += length;
  }
  return ReadableStream.from(pieces);
}

Deno.test("readEvents() gives the data of each event, whatever the ends of lines", async () => {
  const lines = [
    "data: one",
    "",
    ": a comment",
    "",
    "event: x",
    "data:two 😀",
    "id: 4",
    "",
    "data:  three",
    "data",
    "data:",
    "",
  ];
  const expected = ["one", "two 😀", " three\n\n"];
  for (const end of ["\n", "\r\n", "\r"]) {
    assertEquals(await Array.fromAsync(readEvents(streamOf(lines.join(end) + end))), expected, JSON.stringify(end));
  }
});

Deno.test("readEvents() gives the same however the bytes are cut", async () => {
  const random = new TestRandom(testSeed());
  const text = 'data: {"a": "é€😀"}\r\n\r\n:\rdata: 漢字\rdata: b\r\rdata: [DONE]\n\n';
  for (let run = 0; run < 200; run++) {
    const events = await Array.fromAsync(readEvents(streamOf(text, () => 1 + random.below(4))));
    assertEquals(events, ['{"a": "é€😀"}', "漢字\nb", "[DONE]"]);
  }
});

Deno.test("readEvents() leaves out an event that the end cuts off", async () => {
  for (const rest of ["data: lost", "data: lost\n", "dat"]) {
    assertEquals(await Array.fromAsync(readEvents(streamOf(`data: kept\n\n${rest}`))), ["kept"]);
  }
});

Deno.test("readEvents() refuses a line and an event without end", async () => {
  const endless = (piece: string) =>
    ReadableStream.from(Array.from({ length: 2 * MAX_EVENT_CHARS / 65536 + 1 }, () => new TextEncoder().encode(piece)));
  for (const piece of ["x".repeat(65536), `data: ${"x".repeat(65000)}\n`]) {
    await assertRejects(() => Array.fromAsync(readEvents(endless(piece))), SyntaxError, "an event has more than");
  }
});
