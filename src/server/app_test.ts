import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import { TestRandom, testRuns, testSeed } from "../../dev/testing.ts";
import { ApiError } from "./errors.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { Listener } from "./listener.ts";
import { ServiceError, type ServiceErrorCode } from "./models.ts";
import { post, readEvents, testApp } from "./app_testing.ts";

const CHAT = "/v1/chat/completions";
const messages = [{ role: "user", content: "Hi" } as const];

Deno.test("the page and the logo are what createApp was given; the favicon is the logo", async () => {
  const { app } = testApp();
  const page = await app.request("/");
  assertEquals(page.headers.get("content-type"), "text/html; charset=UTF-8");
  assertStringIncludes(await page.text(), "<title>nanochat</title>");
  for (const path of ["/logo.svg", "/favicon.ico"]) {
    const logo = await app.request(path);
    assertEquals([logo.headers.get("content-type"), await logo.text()], ["image/svg+xml", "<svg/>"]);
  }
});

Deno.test("every answer has a request id; a client's own is kept where it is harmless", async () => {
  const { app } = testApp(() => [new Error("secret")]);
  const responses = [
    app.request("/health"),
    app.request("/nowhere"),
    post(app, CHAT, { messages }),
    post(app, CHAT, "{"),
  ];
  for (const response of await Promise.all(responses)) {
    assertMatch(response.headers.get("x-request-id")!, /^[0-9a-f-]{36}$/);
    await response.body?.cancel();
  }
  const own = await app.request("/health", { headers: { "x-request-id": "trace-1" } });
  assertEquals(own.headers.get("x-request-id"), "trace-1");
  const bad = await app.request("/health", { headers: { "x-request-id": 'a"b {}' } });
  assertMatch(bad.headers.get("x-request-id")!, /^[0-9a-f-]{36}$/);
});

Deno.test("a path that is not there is 404, a method 405 with those that are", async () => {
  const { app } = testApp();
  const missing = await app.request("/v1/embeddings", { method: "POST" });
  assertEquals([missing.status, (await missing.json()).error.code], [404, "not_found"]);
  for (const { path, method } of ENDPOINTS) {
    const target = path.replace("{id}", "d4");
    for (const wrong of ["DELETE", "PUT", method === "get" ? "POST" : "GET"]) {
      const response = await app.request(target, { method: wrong });
      assertEquals([response.status, response.headers.get("allow")], [405, method.toUpperCase()], `${wrong} ${path}`);
      await response.body?.cancel();
    }
  }
});

Deno.test("each reason of the models has its status and OpenAI's words", async () => {
  const cases: Record<ServiceErrorCode, [number, string, string]> = {
    model_not_found: [404, "invalid_request_error", "model_not_found"],
    busy: [429, "rate_limit_error", "rate_limit_exceeded"],
    closing: [503, "server_error", "closing"],
    context_length_exceeded: [400, "invalid_request_error", "context_length_exceeded"],
    invalid_value: [400, "invalid_request_error", "invalid_value"],
    deadline: [504, "server_error", "deadline"],
    failed: [500, "server_error", "failed"],
  };
  for (const [reason, [status, type, code]] of Object.entries(cases)) {
    const error = new ServiceError(reason as ServiceErrorCode, "Cannot do it: so it is", { retryAfterSec: 1.2 });
    const { app } = testApp(() => [error]);
    for (const stream of [false, true]) {
      const response = await post(app, CHAT, { messages, stream });
      const { error } = await response.json();
      assertEquals([response.status, error.type, error.code], [status, type, code]);
      assertEquals(error.message, "Cannot do it: so it is");
      assertEquals(response.headers.get("retry-after"), "2");
      assertEquals(response.headers.get("x-should-retry"), reason === "deadline" ? "false" : null);
    }
  }
});

Deno.test("a stream that fails midway ends with an error event and without [DONE]", async () => {
  const { app, failures } = testApp(() => ["Hel", new ServiceError("failed", "Cannot go on: the worker died")]);
  const events = await readEvents(await post(app, CHAT, { messages, stream: true }));
  assertEquals(events.at(-1).error, {
    message: "Cannot go on: the worker died",
    type: "server_error",
    param: null,
    code: "failed",
  });
  assertEquals(events.length, 3);
  assertEquals(failures.length, 1);
});

Deno.test("an unforeseen failure is reported, and tells a client nothing", async () => {
  const { app, failures } = testApp(() => [new Error("secret")]);
  const whole = await post(app, CHAT, { messages });
  assertEquals([whole.status, (await whole.text()).includes("secret")], [500, false]);
  const { app: midway } = testApp(() => ["a", new Error("secret")]);
  const text = await (await post(midway, CHAT, { messages, stream: true })).text();
  assertEquals([text.includes('"error"'), text.includes("secret")], [true, false]);
  assertEquals(failures.map(String), ["Error: secret"]);
});

Deno.test("an answer that ends before its end is a failure, not a short answer", async () => {
  const { app, service, failures } = testApp();
  service.generate = async function* () {
    yield { type: "start", promptTokens: 1, cachedTokens: 0, droppedMessages: 0, contextLen: 512 };
  };
  assertEquals((await post(app, CHAT, { messages })).status, 500);
  const events = await readEvents(await post(app, CHAT, { messages, stream: true }));
  assertEquals(events.at(-1).error.code, "failed");
  assertEquals(failures.length, 2);
});

Deno.test("middleware stands in front of the handlers; what it throws is answered like their errors", async () => {
  const seen: string[] = [];
  const { app } = testApp(undefined, {
    middleware: [
      async (c, next) => {
        seen.push(`${c.get("requestId").length > 0}`);
        await next();
        seen.push(String(c.res.status));
      },
      (c, next) => {
        if (c.req.header("authorization") === undefined) {
          throw new ApiError(401, "Cannot answer: there is no key", { code: "invalid_api_key" });
        }
        return next();
      },
    ],
  });
  const refused = await app.request("/health");
  assertEquals([refused.status, (await refused.json()).error.type], [401, "authentication_error"]);
  const reference = await post(app, "/chat/completions", { messages });
  assertEquals(await reference.json(), { detail: "Cannot answer: there is no key" });
  assertEquals((await app.request("/health", { headers: { authorization: "x" } })).status, 200);
  assertEquals(seen, ["true", "401", "true", "401", "true", "200"]);
});

Deno.test("a body that is no JSON object in UTF-8 is a clean 400", async () => {
  const { app } = testApp();
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  const bodies: [string | Uint8Array, string][] = [
    ["", "invalid_json"],
    ["{", "invalid_json"],
    ['{"temperature": NaN}', "invalid_json"],
    [Uint8Array.of(0x22, 0xff, 0x22), "invalid_json"],
    ["null", "invalid_type"],
    ["[]", "invalid_type"],
    ['"messages"', "invalid_type"],
    [deep, "invalid_type"],
    [`{"messages": ${deep}}`, "invalid_type"],
    [
      `{"messages": [{"role": "user", "content": "Hi"}], "metadata": ${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}}`,
      "",
    ],
    [`{"messages": [{"role": "user", "content": "Hi"}], "logit_bias": [${"1,".repeat(500_000)}1]}`, "invalid_type"],
    [`{"messages": [{"role": "user", "content": "\\ud800"}]}`, "invalid_value"],
    [`{"messages": [{"role": "user", "content": "Hi"}], "temperature": 1e400}`, "invalid_type"],
    [`{"messages": [{"role": "user", "content": "Hi"}], "__proto__": {"n": 2}}`, "unknown_parameter"],
    [`{"messages": [{"role": "user", "content": "Hi"}], "constructor": 1}`, "unknown_parameter"],
    [`{"messages": [{"role": "user", "content": "Hi"}], "${"x".repeat(100_000)}": 1}`, "unknown_parameter"],
  ];
  for (const [body, code] of bodies) {
    const response = await post(app, CHAT, body);
    const answer = await response.json();
    const shown = String(body).slice(0, 60);
    assertEquals([response.status, answer.error?.code ?? ""], [code === "" ? 200 : 400, code], shown);
    if (code !== "") assertEquals(answer.error.message.length < 2000, true, shown);
    assertEquals(JSON.stringify(answer).isWellFormed(), true);
  }
});

Deno.test("a client that closes its connection ends its generation", async () => {
  const { app, service } = testApp(() => ["a", new Promise<void>(() => {})]);
  const listener = await Listener.open((request) => app.fetch(request), { host: "127.0.0.1", port: 0 });
  try {
    for (const stream of [true, false]) {
      const gone = new AbortController();
      const answer = fetch(`http://127.0.0.1:${listener.port}${CHAT}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ messages, stream }),
        signal: gone.signal,
      });
      const isDone = stream ? (await answer).text() : answer;
      const until = async (active: number) => {
        while (service.active !== active) await new Promise((resolve) => setTimeout(resolve, 1));
      };
      await deadline(until(1), 10_000);
      gone.abort();
      await isDone.then(() => {}, () => {});
      await deadline(until(0), 10_000);
    }
    assertEquals(service.cancelled, 2);
  } finally {
    await listener.close();
  }
});

Deno.test("no body makes the server fail, however its values are exchanged", async () => {
  const { app, failures } = testApp();
  const random = new TestRandom(testSeed());
  const chat = {
    ...{ messages: [...messages, { role: "assistant", content: [{ type: "python", text: "1" }] }], model: "d4", n: 2 },
    ...{ stop: ["a"], logit_bias: { 1: 1 }, logprobs: true, top_logprobs: 1, stream: true, stream_options: {} },
  };
  const bodies: Record<string, object> = {
    [CHAT]: chat,
    "/v1/completions": { prompt: [[1, 2], [3]], echo: true, logprobs: 1, max_tokens: 1, seed: 1 },
    "/chat/completions": { messages, temperature: 1, top_k: 1, max_tokens: 1 },
    "/tokenize": { prompt: "a" },
    "/detokenize": { tokens: [1, 2] },
  };
  const values = [
    "null",
    "[]",
    "{}",
    "-1",
    "1e400",
    "1e-400",
    '""',
    '"\\ud800"',
    "[[[[[]]]]]",
    "true",
    '{"__proto__":1}',
  ];
  for (const [path, body] of Object.entries(bodies)) {
    const text = JSON.stringify(body);
    const places = [...text.matchAll(/(?<=[:,[])(?:"[^"]*"(?!:)|\d+|true|\[[^[\]]*\])/g)];
    for (let round = 0; round < testRuns(60); round++) {
      const { index, 0: { length } } = random.pick(places);
      const changed = text.slice(0, index) + random.pick(values) + text.slice(index + length);
      const response = await post(app, path, changed);
      const isClean = response.status === 200 || (response.status >= 400 && response.status < 500);
      assertEquals(isClean, true, `${path} ${changed}: ${response.status}`);
      await response.text();
    }
  }
  assertEquals(failures, []);
});
