import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { post, readEvents, testApp } from "./app_testing.ts";
import { type ScriptStep, tokenLogprob } from "./models_testing.ts";

const CHAT = "/v1/chat/completions";
const messages = [{ role: "user", content: "Hi" } as const];

/** Six by seven, with the calculator. */
const CALCULATION: ScriptStep[] = [
  { type: "piece", choice: 0, kind: "text", text: "é: " },
  { type: "piece", choice: 0, kind: "python", text: "6*" },
  { type: "piece", choice: 0, kind: "python", text: "7" },
  { type: "piece", choice: 0, kind: "python_output", text: "42" },
  { type: "piece", choice: 0, kind: "text", text: "done" },
];

Deno.test("chat answers whole in OpenAI's form", async () => {
  const { app, service } = testApp(() => ["Hel", "lo"]);
  const response = await post(app, CHAT, { messages, seed: 7 });
  assertEquals(response.status, 200);
  const { id, created, ...answer } = await response.json();
  assertMatch(id, /^chatcmpl-[0-9a-f]{32}$/);
  assertEquals(Math.abs(created - Date.now() / 1000) < 60, true);
  assertEquals(answer, {
    object: "chat.completion",
    model: "d4",
    system_fingerprint: "sft-700",
    choices: [{
      index: 0,
      message: { role: "assistant", content: "Hello", refusal: null },
      logprobs: null,
      finish_reason: "stop",
    }],
    usage: { prompt_tokens: 10, completion_tokens: 6, total_tokens: 16, prompt_tokens_details: { cached_tokens: 0 } },
    nanochat: { seed: 7, context_length: 512, dropped_messages: 0, prompt_tokens: 10, tool_events: [] },
  });
  assertEquals(service.requests[0].prompt, { messages });
});

Deno.test("chat streams: role, content, reason, usage, [DONE]", async () => {
  const { app } = testApp(() => [
    { type: "start", promptTokens: 10, cachedTokens: 4, droppedMessages: 3, contextLen: 64 },
    "Hel",
    "lo",
    { type: "end", choice: 0, reason: "length", completionTokens: 2 },
  ]);
  const response = await post(app, CHAT, { messages, seed: 7, stream: true, stream_options: { include_usage: true } });
  assertEquals(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const events = await readEvents(response);
  assertEquals(events.pop(), "[DONE]");
  const last = events.pop();
  const usage = {
    prompt_tokens: 10,
    completion_tokens: 2,
    total_tokens: 12,
    prompt_tokens_details: { cached_tokens: 4 },
  };
  assertEquals([last.choices, last.usage], [[], usage]);
  assertEquals(events.map(({ choices: [{ delta, finish_reason }], usage }) => [delta, finish_reason, usage]), [
    [{ role: "assistant", content: "", refusal: null }, null, null],
    [{ content: "Hel" }, null, null],
    [{ content: "lo" }, null, null],
    [{}, "length", null],
  ]);
  assertEquals(events[0].nanochat, { seed: 7, context_length: 64, dropped_messages: 3, prompt_tokens: 10 });
  assertEquals(new Set([...events, last].map(({ id, object }) => `${id} ${object}`)).size, 1);
  assertEquals(events[0].object, "chat.completion.chunk");
  const plain = await readEvents(await post(app, CHAT, { messages, stream: true }));
  assertEquals(plain.some((event) => typeof event === "object" && "usage" in event), false);
});

Deno.test("chat hands its parameters to the models", async () => {
  const { app, service } = testApp();
  const ask = async (body: object) => {
    const response = await post(app, CHAT, { messages, ...body });
    assertEquals(response.status, 200, await response.text());
    return service.requests.at(-1)!;
  };
  const { sampling, ...plain } = await ask({});
  assertEquals(plain.model, "d4");
  assertEquals([plain.choices, plain.maxTokens, plain.topLogprobs, plain.stop, plain.echo], [
    1,
    512,
    undefined,
    [],
    false,
  ]);
  assertEquals({ ...sampling, seed: 0, logitBias: sampling.logitBias.size }, {
    ...{ temperature: 0.8, topK: 50, topP: 1, seed: 0, frequencyPenalty: 0, presencePenalty: 0, logitBias: 0 },
  });
  const full = await ask({
    ...{ model: "base/d4", n: 3, max_tokens: 5, temperature: 0, top_p: 0.5, top_k: 0, seed: -3, stop: ["a", "b"] },
    ...{ frequency_penalty: 1, presence_penalty: -2, logit_bias: { 5: -100, 264: 1.5 }, logprobs: true },
  });
  assertEquals([full.model, full.choices, full.maxTokens, full.stop, full.topLogprobs], [
    "base/d4",
    3,
    5,
    ["a", "b"],
    0,
  ]);
  assertEquals(full.sampling, {
    ...{ temperature: 0, topK: 0, topP: 0.5, seed: -3, frequencyPenalty: 1, presencePenalty: -2 },
    logitBias: new Map([[5, -100], [264, 1.5]]),
  });
  assertEquals((await ask({ max_tokens: 5, max_completion_tokens: 6 })).maxTokens, 6);
  assertEquals((await ask({ stop: "x" })).stop, ["x"]);
  assertEquals((await ask({ logprobs: true, top_logprobs: 20 })).topLogprobs, 20);
  assertEquals((await ask({ temperature: null, n: null, stop: null, tools: null })).sampling.temperature, 0.8);
  const nothing = (await ask({ top_p: 0, temperature: 2 })).sampling;
  assertEquals([nothing.temperature, nothing.topP], [0, 1]);
  const seeds = new Set([(await ask({})).sampling.seed, (await ask({})).sampling.seed, sampling.seed]);
  assertEquals(seeds.size > 1, true);
});

Deno.test("chat takes contents as texts and as parts, of all roles", async () => {
  const { app, service } = testApp();
  const call = [{ type: "text", text: "Let me see: " }, { type: "python", text: "6*7" }, {
    type: "python_output",
    text: "42",
  }];
  const sent = [
    { role: "system", content: "Be brief." },
    { role: "developer", content: [{ type: "text", text: "Be " }, { type: "text", text: "kind." }] },
    { role: "user", content: "6*7?", name: "Ann" },
    { role: "assistant", content: call, refusal: null, tool_calls: [], annotations: [] },
    { role: "tool", content: "?", tool_call_id: "1" },
  ];
  assertEquals((await post(app, CHAT, { messages: sent })).status, 200);
  assertEquals(service.requests[0].prompt as unknown, {
    messages: [
      { role: "system", content: "Be brief." },
      { role: "developer", content: "Be kind." },
      { role: "user", content: "6*7?" },
      { role: "assistant", content: call },
      { role: "tool", content: "?" },
    ],
  });
});

Deno.test("chat refuses what it cannot do, naming the parameter", async () => {
  const { app, service } = testApp();
  const cases: [object, number, string, string | null][] = [
    [{ messages: [] }, 400, "invalid_value", "messages"],
    [{ messages: undefined }, 400, "missing_required_parameter", "messages"],
    [{ messages: "Hi" }, 400, "invalid_type", "messages"],
    [{ messages: [{ role: "user" }] }, 400, "missing_required_parameter", "messages[0].content"],
    [{ messages: [{ role: "assistant", content: null }] }, 400, "missing_required_parameter", "messages[0].content"],
    [{ messages: [{ role: "bot", content: "" }] }, 400, "invalid_value", "messages[0].role"],
    [
      { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
      400,
      "invalid_value",
      "messages[0].content[0].type",
    ],
    [
      { messages: [{ role: "user", content: [{ type: "python", text: "1" }] }] },
      400,
      "invalid_value",
      "messages[0].content",
    ],
    [
      { messages: [{ role: "assistant", content: "", tool_calls: [{}] }] },
      400,
      "invalid_value",
      "messages[0].tool_calls",
    ],
    [{ model: "gpt-4o" }, 404, "model_not_found", "model"],
    [{ model: "" }, 400, "invalid_value", "model"],
    [{ temprature: 1 }, 400, "unknown_parameter", "temprature"],
    [{ temperature: 2.1 }, 400, "invalid_value", "temperature"],
    [{ temperature: "1" }, 400, "invalid_type", "temperature"],
    [{ n: 0 }, 400, "invalid_value", "n"],
    [{ n: 1.5 }, 400, "invalid_type", "n"],
    [{ max_tokens: 0 }, 400, "invalid_value", "max_tokens"],
    [{ seed: 2 ** 60 }, 400, "invalid_type", "seed"],
    [{ stop: [""] }, 400, "invalid_value", "stop[0]"],
    [{ stop: Array(17).fill("a") }, 400, "invalid_value", "stop"],
    [{ stop: ["a".repeat(257)] }, 400, "invalid_value", "stop[0]"],
    [{ logit_bias: { a: 1 } }, 400, "unknown_parameter", "logit_bias.a"],
    [{ logit_bias: { 265: 1 } }, 400, "invalid_value", "logit_bias"],
    [{ logit_bias: { 1: 101 } }, 400, "invalid_value", "logit_bias.1"],
    [{ top_logprobs: 2 }, 400, "invalid_value", "top_logprobs"],
    [{ logprobs: true, top_logprobs: 21 }, 400, "invalid_value", "top_logprobs"],
    [{ stream_options: {} }, 400, "invalid_value", "stream_options"],
    [{ stream: true, stream_options: { x: 1 } }, 400, "unknown_parameter", "stream_options.x"],
    [{ tools: [{ type: "function" }] }, 400, "unsupported_parameter", "tools"],
    [{ tool_choice: "required" }, 400, "unsupported_parameter", "tool_choice"],
    [{ response_format: { type: "json_object" } }, 400, "unsupported_parameter", "response_format.type"],
    [{ modalities: ["text", "audio"] }, 400, "unsupported_parameter", "modalities[1]"],
    [{ web_search_options: {} }, 400, "unsupported_parameter", "web_search_options"],
  ];
  for (const [body, status, code, param] of cases) {
    const response = await post(app, CHAT, { messages, ...body });
    const { error } = await response.json();
    assertEquals([response.status, error?.code, error?.param], [status, code, param], JSON.stringify(body));
  }
  assertEquals(service.requests.length, 0);
  const { error } = await (await post(app, CHAT, { messages, temprature: 1 })).json();
  assertStringIncludes(error.message, 'did you mean "temperature"');
  const { error: unknown } = await (await post(app, CHAT, { messages, model: "gpt-4o" })).json();
  assertEquals(unknown.message, 'Cannot find the model "gpt-4o": expected one of "d4", "base/d4"');
});

Deno.test("chat names parameters without effect in a header", async () => {
  const { app } = testApp();
  for (const stream of [false, true]) {
    const body = { messages, stream, user: "Ann", store: false, metadata: { a: "b" }, verbosity: null, tools: [] };
    const response = await post(app, CHAT, body);
    assertEquals([response.status, response.headers.get("x-nanochat-ignored")], [200, "user, store, metadata"]);
    await response.text();
  }
  assertEquals((await post(app, CHAT, { messages })).headers.get("x-nanochat-ignored"), null);
});

Deno.test("the calculator's calls are events beside the content", async () => {
  const { app } = testApp(() => CALCULATION);
  const { choices: [{ message }], nanochat } = await (await post(app, CHAT, { messages })).json();
  assertEquals(message, { role: "assistant", content: "é: done", refusal: null });
  assertEquals(nanochat.tool_events, [
    { choice: 0, type: "python", text: "6*7", content_offset: 3 },
    { choice: 0, type: "python_output", text: "42", content_offset: 3 },
  ]);
  const events = await readEvents(await post(app, CHAT, { messages, stream: true }));
  assertEquals(
    events.slice(1, -2).map(({ choices: [{ delta }], nanochat }) => [delta.content, nanochat?.tool_events]),
    [
      ["é: ", undefined],
      ["", [{ choice: 0, type: "python", text: "6*", content_offset: 3 }]],
      ["", [{ choice: 0, type: "python", text: "7", content_offset: 3 }]],
      ["", [{ choice: 0, type: "python_output", text: "42", content_offset: 3 }]],
      ["done", undefined],
    ],
  );
});

Deno.test("two calls with words between them stay two", async () => {
  const { app } = testApp(() => [
    { type: "piece", choice: 0, kind: "python", text: "1/0" },
    "no ",
    { type: "piece", choice: 0, kind: "python", text: "2" },
  ]);
  const { nanochat } = await (await post(app, CHAT, { messages })).json();
  assertEquals(nanochat.tool_events, [
    { choice: 0, type: "python", text: "1/0", content_offset: 0 },
    { choice: 0, type: "python", text: "2", content_offset: 3 },
  ]);
});

Deno.test("a server that shows tools has them in the content too", async () => {
  const shown = "é: <|python_start|>6*7<|python_end|><|output_start|>42<|output_end|>";
  for (const [script, content] of [[CALCULATION, `${shown}done`], [CALCULATION.slice(0, 4), shown]] as const) {
    const { app } = testApp(() => script, { showTools: true });
    const { choices: [{ message }], nanochat } = await (await post(app, CHAT, { messages })).json();
    assertEquals(message.content, content);
    assertEquals(nanochat.tool_events.length, 2);
    const events = await readEvents(await post(app, CHAT, { messages, stream: true }));
    assertEquals(events.slice(0, -1).map(({ choices: [{ delta }] }) => delta.content ?? "").join(""), content);
  }
});

Deno.test("log-probabilities are those of the content's tokens", async () => {
  const { app } = testApp(() => [
    { type: "piece", choice: 0, kind: "text", text: "é", tokens: [tokenLogprob("é", -0.5, { é: -0.5, e: -3 })] },
    { type: "piece", choice: 0, kind: "python", text: "1", tokens: [tokenLogprob("1", -1)] },
  ]);
  const expected = {
    content: [{
      ...{ token: "é", logprob: -0.5, bytes: [0xc3, 0xa9] },
      top_logprobs: [{ token: "é", logprob: -0.5, bytes: [0xc3, 0xa9] }, { token: "e", logprob: -3, bytes: [0x65] }],
    }],
    refusal: null,
  };
  const body = { messages, logprobs: true, top_logprobs: 2 };
  const { choices: [{ logprobs }] } = await (await post(app, CHAT, body)).json();
  assertEquals(logprobs, expected);
  const events = await readEvents(await post(app, CHAT, { ...body, stream: true }));
  assertEquals(events.slice(0, -1).map(({ choices: [{ logprobs }] }) => logprobs?.content.length ?? null), [
    null,
    1,
    0,
    null,
  ]);
});

Deno.test("several choices keep their order, whatever comes first", async () => {
  const { app } = testApp(() => [
    { type: "piece", choice: 1, kind: "text", text: "b" },
    { type: "end", choice: 1, reason: "length", completionTokens: 1 },
    { type: "piece", choice: 0, kind: "text", text: "a" },
  ]);
  const { choices, usage } = await (await post(app, CHAT, { messages, n: 2 })).json();
  // deno-lint-ignore no-explicit-any
  assertEquals(choices.map((one: any) => [one.index, one.message.content, one.finish_reason]), [
    [0, "a", "stop"],
    [1, "b", "length"],
  ]);
  assertEquals([usage.prompt_tokens, usage.completion_tokens], [10, 4]);
  const events = await readEvents(await post(app, CHAT, { messages, n: 2, stream: true }));
  const seen = events.slice(0, -1).map(({ choices: [{ index, delta, finish_reason }] }) =>
    `${index} ${delta.role ?? delta.content ?? finish_reason}`
  );
  assertEquals(seen, ["0 assistant", "1 assistant", "1 b", "1 length", "0 a", "0 stop"]);
});

Deno.test("a client that leaves ends its generation, streaming or not", async () => {
  for (const stream of [false, true]) {
    const { app, service } = testApp(() => ["a", new Promise<void>(() => {})]);
    const gone = new AbortController();
    const answer = post(app, CHAT, { messages, stream }, { signal: gone.signal });
    if (stream) {
      const reader = (await answer).body!.getReader();
      await reader.read();
      await reader.cancel();
    } else {
      while (service.active === 0) await new Promise((resolve) => setTimeout(resolve));
      gone.abort();
      await answer.catch(() => {});
    }
    for (let i = 0; i < 5 && service.active > 0; i++) await new Promise((resolve) => setTimeout(resolve));
    assertEquals([service.active, service.cancelled], [0, 1], `stream: ${stream}`);
  }
});
