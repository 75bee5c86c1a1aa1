import { assertEquals, assertRejects } from "@std/assert";
import { TestClock } from "./app_testing.ts";
import { streamEvents } from "./sse.ts";

/** A stream over an iteration, and a reader that gives one event at a time. */
async function open(events: AsyncGenerator<string>, clock = new TestClock()) {
  const abort = new AbortController();
  const response = await streamEvents(events, { abort, clock, onError: (error) => `{"error":"${error}"}` });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  return { response, reader, abort, clock, read: async () => (await reader.read()).value };
}

/** Lets everything happen that needs no time. */
const settle = () => new Promise((resolve) => setTimeout(resolve));

async function* letters(): AsyncGenerator<string> {
  yield "a";
  await Promise.resolve();
  yield "b";
}

Deno.test("streamEvents() writes one event each, and closes", async () => {
  const { read, response } = await open(letters());
  assertEquals(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  assertEquals(response.headers.get("cache-control"), "no-cache, no-transform");
  assertEquals([await read(), await read(), await read()], ["data: a\n\n", "data: b\n\n", undefined]);
});

Deno.test("streamEvents() throws what fails before the first event", async () => {
  // deno-lint-ignore require-yield
  async function* failing(): AsyncGenerator<string> {
    await Promise.resolve();
    throw new RangeError("full");
  }
  await assertRejects(() => open(failing()), RangeError, "full");
});

Deno.test("streamEvents() ends with an event where it fails midway", async () => {
  async function* failing(): AsyncGenerator<string> {
    yield "a";
    await Promise.resolve();
    throw new RangeError("full");
  }
  const { read } = await open(failing());
  assertEquals(await read(), "data: a\n\n");
  assertEquals(await read(), 'data: {"error":"RangeError: full"}\n\n');
  assertEquals(await read(), undefined);
});

Deno.test("streamEvents() writes a comment every 15 seconds while waiting, from the first event on and before it", async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  async function* slow(): AsyncGenerator<string> {
    await gates[0].promise;
    yield "a";
    await gates[1].promise;
    yield "b";
  }
  const clock = new TestClock();
  const opening = open(slow(), clock);
  await settle();
  clock.pass(14_999);
  assertEquals(await Promise.race([opening, settle().then(() => "waits")]), "waits");
  clock.pass(1);
  const { read } = await opening;
  assertEquals(await read(), ": waiting\n\n");
  for (const [i, letter] of ["a", "b"].entries()) {
    for (let round = 0; round < 2; round++) {
      const next = read();
      await settle();
      clock.pass(15_000);
      assertEquals(await next, ": waiting\n\n");
    }
    gates[i].resolve();
    assertEquals(await read(), `data: ${letter}\n\n`);
  }
  assertEquals(await read(), undefined);
});

Deno.test("streamEvents() aborts and ends the iteration when the client goes", async () => {
  const abort = new AbortController();
  let left = false;
  async function* endless(): AsyncGenerator<string> {
    const aborted = new Promise((resolve) => abort.signal.addEventListener("abort", resolve));
    try {
      yield "a";
      await aborted;
    } finally {
      left = true;
    }
  }
  const response = await streamEvents(endless(), { abort, clock: new TestClock(), onError: String });
  const reader = response.body!.getReader();
  await reader.read();
  const pending = reader.read();
  await settle();
  await reader.cancel();
  await pending;
  await settle();
  assertEquals([abort.signal.aborted, left], [true, true]);
});

Deno.test("streamEvents() reads no further than its reader", async () => {
  let made = 0;
  async function* counted(): AsyncGenerator<string> {
    while (true) yield await Promise.resolve(String(made++));
  }
  const abort = new AbortController();
  const response = await streamEvents(counted(), { abort, clock: new TestClock(), onError: String });
  const reader = response.body!.getReader();
  await reader.read();
  await settle();
  assertEquals(made, 1);
  await reader.cancel();
});
