import { assertEquals, assertRejects } from "@std/assert";
import { EventStream } from "./event_stream.ts";
import type { GenerationEvent } from "./models.ts";

const piece = (text: string): GenerationEvent => ({ type: "piece", choice: 0, kind: "text", text });

Deno.test("EventStream keeps what a slow reader has not read, in order, and ends behind it", async () => {
  const stream = new EventStream();
  const reader = stream[Symbol.asyncIterator]();
  const first = reader.next();
  stream.push([piece("a"), piece("b")]);
  assertEquals((await first).value, piece("a"));
  stream.push([piece("c")]);
  stream.end();
  stream.push([piece("lost")]);
  const rest = await Array.fromAsync({ [Symbol.asyncIterator]: () => reader });
  assertEquals(rest, [piece("b"), piece("c")]);
});

Deno.test("EventStream throws its error behind what waits; the first end counts", async () => {
  const stream = new EventStream();
  stream.push([piece("a")]);
  stream.end(new Error("out of time"));
  stream.end();
  const reader = stream[Symbol.asyncIterator]();
  assertEquals((await reader.next()).value, piece("a"));
  await assertRejects(() => reader.next(), Error, "out of time");
});

Deno.test("EventStream wakes a reader that waits when it is dropped, and loses what waits", async () => {
  const stream = new EventStream();
  const waiting = stream[Symbol.asyncIterator]().next();
  stream.drop();
  assertEquals((await waiting).done, true);
  const full = new EventStream();
  full.push([piece("a")]);
  full.drop();
  assertEquals(await Array.fromAsync(full), []);
});
