import { assertEquals } from "@std/assert";
import { testApp } from "../app_testing.ts";
import { ServiceError } from "../models.ts";
import { type Script, tokenLogprob } from "../models_testing.ts";
import { type AnswerEvent, type AnswerRequest, EventSplitter, Problem, readEvents, Server } from "./stream.ts";

const REQUEST: AnswerRequest = {
  ...{ model: "d4", messages: [{ role: "user", content: "Hi" }], temperature: 0.5, topK: 7, topP: 0.9 },
  ...{ seed: 3, maxTokens: 20, withProbabilities: false },
};

/** A server whose requests reach an app of the HTTP side without a port. */
function serverOf(script: Script) {
  const { app, service } = testApp(script);
  const fetcher: typeof fetch = (path, init) => Promise.resolve(app.request(path as string, init));
  return { server: new Server(() => undefined, fetcher), service };
}

/** A server that answers every request with one response. */
function serverWith(response: () => Response): Server {
  return new Server(() => "secret", () => Promise.resolve(response()));
}

async function collect(server: Server, request = REQUEST, signal = new AbortController().signal) {
  const events: AnswerEvent[] = [];
  try {
    for await (const event of server.answer(request, signal)) events.push(event);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return { events, problem: error };
  }
  return { events, problem: undefined };
}

Deno.test("readEvents() reads the same however the bytes are cut", async () => {
  const text =
    ': comment\r\ndata: {"a":"ä😀"}\r\n\r\ndata:one\rdata: two\r\rid: 5\nevent: x\ndata: [DONE]\n\ndata: cut';
  const bytes = new TextEncoder().encode(text);
  const expected = ['{"a":"ä😀"}', "one\ntwo", "[DONE]"];
  const read = (pieces: Uint8Array[]) => Array.fromAsync(readEvents(ReadableStream.from(pieces)));
  for (let at = 0; at <= bytes.length; at++) {
    assertEquals(await read([bytes.subarray(0, at), bytes.subarray(at)]), expected, `cut at ${at}`);
  }
  assertEquals(await read(Array.from(bytes, (byte) => Uint8Array.of(byte))), expected, "single bytes");
});

Deno.test("EventSplitter() gives an event as soon as it is whole", () => {
  const splitter = new EventSplitter();
  assertEquals(splitter.push("data: a\n"), []);
  assertEquals(splitter.push("\ndata: b\n\n"), ["a", "b"]);
});

Deno.test("answer() of a chat: pieces, calls of tools, context, end and usage", async () => {
  const { server, service } = serverOf(() => [
    { type: "start", promptTokens: 30, cachedTokens: 0, droppedMessages: 2, contextLen: 512 },
    ..."ab",
    { type: "piece", choice: 0, kind: "python", text: "1+1" },
    { type: "piece", choice: 0, kind: "python_output", text: "2" },
    "c",
    { type: "end", choice: 0, reason: "length", completionTokens: 9 },
  ]);
  const { events, problem } = await collect(server);
  assertEquals(problem, undefined);
  assertEquals(events, [
    { type: "context", promptTokens: 30, contextLen: 512, droppedMessages: 2 },
    { type: "piece", part: { type: "text", text: "a" } },
    { type: "piece", part: { type: "text", text: "b" } },
    { type: "piece", part: { type: "python", text: "1+1" } },
    { type: "piece", part: { type: "python_output", text: "2" } },
    { type: "piece", part: { type: "text", text: "c" } },
    { type: "end", reason: "length" },
    { type: "usage", promptTokens: 30, completionTokens: 9 },
  ]);
  const [{ sampling, maxTokens, topLogprobs }] = service.requests;
  const { temperature, topK, topP, seed } = sampling;
  assertEquals([temperature, topK, topP, seed, maxTokens, topLogprobs], [0.5, 7, 0.9, 3, 20, undefined]);
});

Deno.test("answer() with probabilities gives each token with what might have stood there", async () => {
  const tokens = [tokenLogprob("a", -0.5, { a: -0.5, b: -1 })];
  const { server } = serverOf(() => [{ type: "piece", choice: 0, kind: "text", text: "a", tokens }]);
  const { events } = await collect(server, { ...REQUEST, withProbabilities: true });
  const top = [{ text: "a", logprob: -0.5 }, { text: "b", logprob: -1 }];
  assertEquals(events.filter(({ type }) => type === "tokens"), [
    { type: "tokens", tokens: [{ text: "a", logprob: -0.5, top }] },
  ]);
});

Deno.test("answer() names the problem of each failure", async () => {
  const cases: [ServiceError, string, number | undefined][] = [
    [new ServiceError("busy", "Full", { retryAfterSec: 7 }), "busy", 7],
    [new ServiceError("closing", "Bye"), "closing", undefined],
    [new ServiceError("context_length_exceeded", "Long"), "context", undefined],
    [new ServiceError("model_not_found", "None"), "model", undefined],
    [new ServiceError("failed", "Broken"), "failed", undefined],
  ];
  for (const [error, kind, retryAfterSec] of cases) {
    const { problem } = await collect(serverOf(() => [error]).server);
    assertEquals([problem?.kind, problem?.retryAfterSec, problem?.message], [kind, retryAfterSec, error.message]);
    const midway = await collect(serverOf(() => ["begun", error]).server);
    assertEquals(midway.events.at(-1), { type: "piece", part: { type: "text", text: "begun" } });
    if (kind !== "busy" && kind !== "model") assertEquals(midway.problem?.kind, kind, "midway");
  }
});

Deno.test("answer() of a server that is not ours, or cuts its answer", async () => {
  const stream = (text: string) => new Response(text, { headers: { "Content-Type": "text/event-stream" } });
  const cases: [() => Response, string][] = [
    [() => stream('data: {"choices":[{"delta":{"content":"a"}}]}\n\n'), "gone"],
    [() => stream(""), "gone"],
    [() => stream("data: <html>\n\n"), "failed"],
    [() => new Response("<h1>Bad gateway</h1>", { status: 502 }), "closing"],
    [() => new Response("no", { status: 401 }), "key"],
    [() => new Response("{}", { status: 400 }), "refused"],
    [() => new Response("x", { status: 500 }), "failed"],
    [() => {
      throw new TypeError("network");
    }, "gone"],
  ];
  for (const [response, kind] of cases) assertEquals((await collect(serverWith(response))).problem?.kind, kind);
});

Deno.test("answer() ends quietly where it is aborted", async () => {
  const abort = new AbortController();
  const { server, service } = serverOf(() => ["a", new Promise(() => {})]);
  const events: AnswerEvent[] = [];
  for await (const event of server.answer(REQUEST, abort.signal)) {
    events.push(event);
    if (event.type === "piece") abort.abort();
  }
  assertEquals(events.at(-1)?.type, "piece");
  assertEquals(service.requests.length, 1);
});

Deno.test("models() reads the list, and the key goes with every request", async () => {
  const { server } = serverOf(() => []);
  assertEquals(await server.models(), [
    { id: "d4", contextLen: 512, stage: "sft", parameters: 1_000_000, completes: false },
    { id: "base/d4", contextLen: 512, stage: "base", parameters: 1_000_000, completes: true },
  ]);
  let sent: Headers | undefined;
  const asked = new Server(() => "secret", (_, init) => {
    sent = new Headers(init?.headers);
    return Promise.resolve(Response.json({ data: [{ id: 5 }, null, { id: "other" }] }));
  });
  const other = { id: "other", contextLen: undefined, stage: undefined, parameters: undefined, completes: false };
  assertEquals(await asked.models(), [other]);
  assertEquals(sent?.get("Authorization"), "Bearer secret");
});
