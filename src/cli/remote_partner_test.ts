import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { deadline } from "@std/async";
import type { Message } from "../data/conversation.ts";
import { testApp } from "../server/app_testing.ts";
import { ServiceError } from "../server/models.ts";
import type { Script } from "../server/models_testing.ts";
import { type AnswerFigures, type AnswerSettings, ChatError } from "./chat_partner.ts";
import { RemotePartner } from "./remote_partner.ts";
import { isReadable, serverUrl } from "./server_connection.ts";

const LIMIT_MS = 20_000;
const KEY = "sk-very-secret";
const MODELS = Response.json({ data: [{ id: "m1" }, null, { id: 7 }, { id: "m2" }] });

/** Serves for the time of a test; whatever it waits for ends after twenty seconds. */
async function withServer(
  handler: (request: Request) => Response | Promise<Response>,
  use: (url: string) => Promise<void>,
): Promise<void> {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, handler);
  try {
    await deadline(use(`http://127.0.0.1:${server.addr.port}/v1`), LIMIT_MS);
  } finally {
    await server.shutdown();
  }
}

/** A server of the same answer to every question, which lists two models. */
const answering = (answer: (request: Request) => Response | Promise<Response>) => (request: Request) =>
  request.url.endsWith("/models") ? MODELS.clone() : answer(request);

const stream = (...pieces: (string | Uint8Array<ArrayBuffer>)[]) => {
  const bytes = pieces.map((piece) => typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
  return new Response(ReadableStream.from(bytes), { headers: { "content-type": "text/event-stream" } });
};
const chunk = (content: string, finish_reason: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content }, finish_reason }] })}\n\n`;

const QUESTION: readonly Message[] = [{ role: "user", content: "Hello" }];

async function heardOf(
  partner: RemotePartner,
  { messages = QUESTION, settings = {} as AnswerSettings, signal = undefined as AbortSignal | undefined } = {},
) {
  let answer = "";
  let figures: AnswerFigures = {};
  for await (const heard of partner.answer(messages, { settings, signal })) {
    if (heard.kind === "figures") figures = { ...figures, ...heard.figures };
    else answer += `${heard.kind === "text" ? "" : `<${heard.kind}>`}${heard.text}`;
  }
  return { answer, figures };
}

Deno.test("serverUrl() finds the place of the paths, and refuses what is no server", () => {
  for (const path of ["", "/", "/v1", "/v1/", "/v1/chat/completions"]) {
    assertEquals(serverUrl(`http://127.0.0.1:8000${path}`), "http://127.0.0.1:8000/v1");
  }
  assertEquals(serverUrl("https://openrouter.ai/api/v1/"), "https://openrouter.ai/api/v1");
  for (const wrong of ["localhost:8000", "", "ftp://a", "/v1", "http://a/?key=1", "http://a/#b"]) {
    assertThrows(() => serverUrl(wrong), TypeError, "Cannot use --url=");
  }
  const { message } = assertThrows(() => serverUrl("http://me:hunter2@a/"), TypeError, "password");
  assert(!message.includes("hunter2"), message);
});

Deno.test("isReadable() is true for plain HTTP to another machine", () => {
  for (const url of ["http://10.0.0.1/v1", "http://127.evil.example/v1", "http://a:80/v1"]) {
    assert(isReadable(url), url);
  }
  for (const url of ["https://a/v1", "http://localhost:8/v1", "http://127.0.0.1/v1", "http://[::1]/v1"]) {
    assert(!isReadable(url), url);
  }
});

const withOurs = (script: Script, use: (partner: RemotePartner, app: ReturnType<typeof testApp>) => Promise<void>) => {
  const app = testApp(script);
  return withServer((request) => app.app.fetch(request), async (url) => {
    await use(await RemotePartner.connect({ url }), app);
    assertEquals(app.service.active, 0);
  });
};

Deno.test("RemotePartner answers with our own server, its tool calls and figures included", () =>
  withOurs(() => [
    { type: "start", promptTokens: 9, cachedTokens: 4, droppedMessages: 2, contextLen: 512 },
    "It is ",
    { type: "piece", choice: 0, kind: "python", text: "6*7" },
    { type: "piece", choice: 0, kind: "python_output", text: "42" },
    "😀",
    { type: "end", choice: 0, reason: "length", completionTokens: 11 },
  ], async (partner, { service }) => {
    assertEquals([partner.model, await partner.models()], ["d4", ["d4", "base/d4"]]);
    const messages: Message[] = [
      { role: "system", content: "Be brief." },
      ...QUESTION,
      { role: "assistant", content: [{ type: "python", text: "1+1" }, { type: "python_output", text: "2" }] },
      { role: "user", content: "漢字?" },
    ];
    const settings = { temperature: 0.25, topK: 3, topP: 0.5, seed: 9, maxTokens: 5 };
    const { answer, figures } = await heardOf(partner, { messages, settings });
    assertEquals(answer, "It is <python>6*7<python_output>42😀");
    assertEquals(figures, {
      ...{ promptTokens: 9, cachedTokens: 4, droppedMessages: 2, contextLen: 512, answerTokens: 11, isCut: true },
    });
    const [{ prompt, sampling, maxTokens }] = service.requests;
    assertEquals(prompt, { messages });
    assertEquals(maxTokens, 5);
    const { temperature, topK, topP, seed } = sampling;
    assertEquals([temperature, topK, topP, Number(seed)], [0.25, 3, 0.5, 9]);
  }));

Deno.test("RemotePartner.use() takes a model of the server, and names them where there is no such one", () =>
  withOurs(() => ["Hi"], async (partner, { service }) => {
    await assertRejects(() => partner.use("d5"), ChatError, "expected one of d4, base/d4");
    assertEquals(partner.model, "d4");
    await partner.use("base/d4");
    await heardOf(partner);
    assertEquals([service.requests[0].model, partner.completes], ["base/d4", true]);
  }));

Deno.test("RemotePartner tells our own server's refusals and failures", async () => {
  const failures: [ServiceError, string][] = [
    [new ServiceError("busy", "Cannot queue: full", { retryAfterSec: 3 }), "come again in 3 s"],
    [new ServiceError("context_length_exceeded", "Cannot answer: too long"), "too long"],
  ];
  for (const [error, said] of failures) {
    await withOurs(() => [error], async (partner) => {
      await assertRejects(() => heardOf(partner), ChatError, said);
    });
  }
  await withOurs(() => ["half", new ServiceError("failed", "Cannot go on: worker lost")], async (partner) => {
    await assertRejects(() => heardOf(partner), ChatError, "worker lost");
  });
});

Deno.test("RemotePartner stops at an abort, and the server hears of it", async () => {
  const never = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  await withOurs(() => ["one", never.promise], async (partner, { service }) => {
    const stop = new AbortController();
    let answer = "";
    for await (const heard of partner.answer(QUESTION, { settings: {}, signal: stop.signal })) {
      if (heard.kind === "figures") continue;
      answer += heard.text;
      stop.abort();
    }
    assertEquals(answer, "one");
    const watch = setInterval(() => service.active === 0 && left.resolve(), 5);
    await left.promise.finally(() => clearInterval(watch));
  });
});

Deno.test("RemotePartner sends other servers plain texts, the key, and no setting that nobody chose", async () => {
  const requests: { body: unknown; key: string | null }[] = [];
  const server = answering(async (request) => {
    requests.push({ body: await request.json(), key: request.headers.get("authorization") });
    return stream(chunk("Hi", "stop"), "data: [DONE]\n\n");
  });
  await withServer(server, async (url) => {
    const partner = await RemotePartner.connect({ url, key: KEY }, { model: "m2" });
    const parts = [
      ...[{ type: "text", text: "So " }, { type: "python", text: "1+1" }, {
        type: "python_output",
        text: "2",
      }] as const,
    ];
    await heardOf(partner, { messages: [...QUESTION, { role: "assistant", content: parts }, ...QUESTION] });
    const messages = [...QUESTION, { role: "assistant", content: "So [1+1 = 2]" }, ...QUESTION];
    const body = { model: "m2", messages, stream: true, stream_options: { include_usage: true } };
    assertEquals(requests, [{ body, key: `Bearer ${KEY}` }]);
    assertEquals(await partner.models(), ["m1", "m2"]);
  });
});

/** Answers of servers that are not ours, and what is heard. */
const GOOD: Readonly<Record<string, [() => Response, string]>> = {
  "half characters": [() => stream(chunk("a\ud83d"), chunk("\ude00"), chunk("b\ud83d", "stop")), "a😀b\ufffd"],
  "an end without [DONE]": [() => stream(chunk("Hi"), chunk("", "stop")), "Hi"],
  "an end without a reason": [() => stream(chunk("Hi"), "data: [DONE]\n\n"), "Hi"],
  "comments": [() => stream(": wait\n\n".repeat(1000), chunk("Hi", "stop"), ": more\n"), "Hi"],
  "a refusal": [() => stream(`data: {"choices":[{"delta":{"refusal":"No."},"finish_reason":"stop"}]}\n\n`), "No."],
  "null everywhere": [
    () => stream('data: {"choices":[{"delta":null,"finish_reason":null}],"usage":null}\n\n', chunk("Hi", "stop")),
    "Hi",
  ],
  "odd extensions": [
    () => stream('data: {"choices":[null],"nanochat":{"tool_events":[null,{"type":"text"}]}}\n\n', chunk("Hi", "stop")),
    "Hi",
  ],
  "no stream": [
    () => Response.json({ choices: [{ message: { content: "Hi" }, finish_reason: "stop" }], usage: {} }),
    "Hi",
  ],
};
for (const [what, [answer, expected]] of Object.entries(GOOD)) {
  Deno.test(`RemotePartner.answer() reads ${what}`, () =>
    withServer(answering(answer), async (url) => {
      assertEquals((await heardOf(await RemotePartner.connect({ url }))).answer, expected);
    }));
}

const html = (status: number) =>
  new Response("<!doctype html><h1>Oh no</h1>", { status, headers: { "content-type": "text/html" } });
const error = (status: number, message: string, headers = {}) =>
  Response.json({ error: { message } }, { status, headers });

/** Answers that are none, and what is said of them. */
const BAD: Readonly<Record<string, [() => Response, string]>> = {
  "a truncated stream": [() => stream(chunk("Hi"), "data: {"), "ended in the middle"],
  "an empty stream": [() => stream(), "ended in the middle"],
  "garbage": [() => stream("data: \x1b]0;x\x07 garbage\n\n"), "expected a chunk"],
  "JSON of another kind": [() => stream("data: [1]\n\n"), "expected a chunk"],
  "an error event": [() => stream(chunk("Hi"), 'data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"],
  "an error as a text": [() => stream('data: {"error": "boom"}\n\n'), "boom"],
  "a huge line": [() => stream("data: ", ..."x".repeat(20).split("").map((x) => x.repeat(100_000))), "more than"],
  "bytes that are no text": [() => stream(new Uint8Array([255, 254, 10, 10])), "ended in the middle"],
  "a page": [() => html(200), 'of type "text/html", expected text/event-stream'],
  "500 with a page": [() => html(500), "answered 500"],
  "500 with text": [() => new Response("kaputt\n\n at line 3", { status: 500 }), "answered 500: kaputt at line 3"],
  "401": [() => error(401, `no key ${KEY}`), "NANOCHAT_API_KEY"],
  "404": [() => error(404, "no model"), "is the address right"],
  "429 with seconds": [() => error(429, "slow down", { "retry-after": "7" }), "slow down; come again in 7 s"],
  "429 with nothing": [() => new Response(null, { status: 429 }), "come again later"],
  "503 with a date": [
    () => error(503, "bye", { "retry-after": new Date(Date.now() + 90_000).toUTCString() }),
    "come again in",
  ],
  "a redirect": [() => new Response(null, { status: 302, headers: { location: "http://evil/" } }), "points to"],
  "an endless refusal": [() => new Response("x".repeat(1 << 20), { status: 400 }), "answered 400"],
};
for (const [what, [answer, said]] of Object.entries(BAD)) {
  Deno.test(`RemotePartner.answer() refuses ${what}`, () =>
    withServer(answering(answer), async (url) => {
      const partner = await RemotePartner.connect({ url, key: KEY });
      const { message } = await assertRejects(() => heardOf(partner), ChatError, said);
      assert(!message.includes(KEY) && !message.includes("<h1>") && message.length < 700, message);
    }));
}

Deno.test("RemotePartner.answer() gives up a server that sends nothing but comments", async () => {
  let timer: ReturnType<typeof setInterval> | undefined;
  const comments = () =>
    new Response(
      new ReadableStream({
        start: (controller) =>
          void (timer = setInterval(() => controller.enqueue(new TextEncoder().encode(":\n\n")), 5)),
        cancel: () => clearInterval(timer),
      }),
      { headers: { "content-type": "text/event-stream" } },
    );
  await withServer(answering(comments), async (url) => {
    const partner = await RemotePartner.connect({ url, patienceMs: 200 });
    await assertRejects(() => heardOf(partner), ChatError, "said nothing for 0.2 s");
  });
});

Deno.test("RemotePartner tells where there is no server, or one that breaks off", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const url = `http://127.0.0.1:${listener.addr.port}/v1`;
  const serve = async (answer: string) => {
    using connection = await listener.accept();
    await connection.read(new Uint8Array(4096));
    await connection.write(new TextEncoder().encode(answer));
  };
  const head = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"dat\r\n';
  for (const [answer, said] of [[head, "broke off"], ["", "broke off"], ["no http\r\n\r\n", "it is no HTTP"]]) {
    const [_, refused] = await deadline(
      Promise.all([serve(answer), assertRejects(() => RemotePartner.connect({ url }), ChatError)]),
      LIMIT_MS,
    );
    assertStringIncludes(refused.message, said);
  }
  listener.close();
  await assertRejects(() => RemotePartner.connect({ url }), ChatError, "connection refused; is the server running?");
});

Deno.test("RemotePartner.connect() refuses a server without a list of models", async () => {
  const lists: [() => Response, string][] = [
    [() => Response.json({ data: [] }), "it lists no model"],
    [() => Response.json([]), "it sent no list"],
    [() => new Response("{"), "it sent no list"],
    [() => new Response("x".repeat(9 << 20)), "it has more than"],
    [() => html(404), "answered 404"],
  ];
  for (const [list, said] of lists) {
    await withServer(list, async (url) => {
      await assertRejects(() => RemotePartner.connect({ url }), ChatError, said);
    });
  }
});
