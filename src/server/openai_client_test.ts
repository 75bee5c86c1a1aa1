/** The official npm client takes us for OpenAI's server. */
import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import OpenAI from "openai";
import { testApp } from "./app_testing.ts";
import { ServiceError } from "./models.ts";
import { type Script, tokenLogprob } from "./models_testing.ts";

const messages = [{ role: "user", content: "Hi" } as const];
const model = "d4";

/** A client whose requests reach an app without a port. */
function clientOf(script?: Script) {
  const test = testApp(script);
  const fetch = async (url: string | URL | Request, init?: RequestInit) => await test.app.request(url, init);
  return { ...test, client: new OpenAI({ apiKey: "key", baseURL: "http://localhost/v1", fetch, maxRetries: 0 }) };
}

Deno.test("the npm client chats", async () => {
  const { client, service } = clientOf(() => ["Hel", "lo"]);
  const { choices, usage } = await client.chat.completions.create({ model, messages, stop: ["x"], seed: 1 });
  assertEquals([choices[0].message.content, choices[0].finish_reason], ["Hello", "stop"]);
  assertEquals([usage?.total_tokens, usage?.prompt_tokens_details?.cached_tokens], [16, 0]);
  assertEquals([service.requests[0].stop, service.requests[0].sampling.seed], [["x"], 1]);
});

Deno.test("the npm client streams, with usage in the end", async () => {
  const { client } = clientOf(() => ["Hel", "lo"]);
  const options = { model, messages, stream: true, stream_options: { include_usage: true } } as const;
  const [texts, totals]: [string[], unknown[]] = [[], []];
  for await (const { choices, usage } of await client.chat.completions.create(options)) {
    texts.push(choices[0]?.delta.content ?? "");
    totals.push(usage?.total_tokens);
  }
  assertEquals([texts.join(""), totals.at(-1)], ["Hello", 16]);
  const runner = client.chat.completions.stream({ model, messages });
  assertEquals((await runner.finalChatCompletion()).choices[0].message.content, "Hello");
});

Deno.test("the npm client gets several choices and log-probabilities", async () => {
  const { client } = clientOf(() => [
    { type: "piece", choice: 1, kind: "text", text: "b", tokens: [tokenLogprob("b", -1, { b: -1, c: -2 })] },
    { type: "piece", choice: 0, kind: "text", text: "a", tokens: [tokenLogprob("a", -3)] },
  ]);
  const { choices } = await client.chat.completions.create({ model, messages, n: 2, logprobs: true, top_logprobs: 2 });
  assertEquals(choices.map(({ message, logprobs }) => [message.content, logprobs?.content?.[0].logprob]), [
    ["a", -3],
    ["b", -1],
  ]);
  assertEquals(choices[1].logprobs?.content?.[0].top_logprobs.map(({ token }) => token), ["b", "c"]);
});

Deno.test("the npm client continues texts and lists models", async () => {
  const { client } = clientOf(() => ["Hello"]);
  const { choices } = await client.completions.create({ model, prompt: ["a", "b"], max_tokens: 3 });
  assertEquals(choices.map(({ text }) => text), ["Hello", "Hello"]);
  let text = "";
  for await (const { choices } of await client.completions.create({ model, prompt: "a", stream: true })) {
    text += choices[0].text;
  }
  assertEquals(text, "Hello");
  assertEquals((await client.models.list()).data.map(({ id }) => id), ["d4", "base/d4"]);
  assertEquals((await client.models.retrieve("base/d4")).id, "base/d4");
});

Deno.test("the npm client's errors are of the right class", async () => {
  const ask = (script: Script, stream: boolean) => () =>
    clientOf(script).client.chat.completions.create({ model, messages, stream });
  const refusal = (...of: ConstructorParameters<typeof ServiceError>) => () => [new ServiceError(...of)];
  for (const stream of [false, true]) {
    await assertRejects(ask(refusal("busy", "Cannot"), stream), OpenAI.RateLimitError);
    await assertRejects(ask(refusal("closing", "Cannot"), stream), OpenAI.InternalServerError);
    await assertRejects(ask(refusal("context_length_exceeded", "Cannot"), stream), OpenAI.BadRequestError);
  }
  const { client } = clientOf();
  const missing = client.chat.completions.create({ model: "gpt-4o", messages });
  const error = await assertRejects(() => missing, OpenAI.NotFoundError);
  assertEquals([error.code, error.param, typeof error.requestID], ["model_not_found", "model", "string"]);
  const unsupported = client.chat.completions.create({ model, messages, response_format: { type: "json_object" } });
  const { code } = await assertRejects(() => unsupported, OpenAI.BadRequestError);
  assertEquals(code, "unsupported_parameter");
});

Deno.test("the npm client throws where a stream fails midway", async () => {
  const { client } = clientOf(() => ["Hel", new ServiceError("failed", "Cannot go on")]);
  let text = "";
  const error = await assertRejects(async () => {
    for await (const { choices } of await client.chat.completions.create({ model, messages, stream: true })) {
      text += choices[0].delta.content ?? "";
    }
  });
  assertInstanceOf(error, OpenAI.APIError);
  assertEquals([text, error.code, error.message], ["Hel", "failed", "Cannot go on"]);
});

Deno.test("the npm client stops a stream, and the generation ends", async () => {
  const { client, service } = clientOf(() => ["a", new Promise<void>(() => {})]);
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const { choices } of stream) if (choices[0].delta.content === "a") break;
  for (let i = 0; i < 20 && service.active > 0; i++) await new Promise((resolve) => setTimeout(resolve));
  assertEquals([service.active, service.cancelled], [0, 1]);
});
