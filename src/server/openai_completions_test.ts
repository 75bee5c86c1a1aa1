import { assertEquals } from "@std/assert";
import { post, readEvents, testApp } from "./app_testing.ts";
import { type GenerationRequest, ServiceError } from "./models.ts";
import { tokenLogprob } from "./models_testing.ts";

const COMPLETIONS = "/v1/completions";

/** Says the prompt backwards. */
function backwards({ prompt }: GenerationRequest): string[] {
  return "text" in prompt ? [[...prompt.text].reverse().join("")] : ["?"];
}

Deno.test("completions continue a text, 16 tokens where nothing is said", async () => {
  const { app, service } = testApp(backwards);
  const answer = await (await post(app, COMPLETIONS, { prompt: "abc" })).json();
  assertEquals(answer.object, "text_completion");
  assertEquals(answer.choices, [{ index: 0, text: "cba", logprobs: null, finish_reason: "stop" }]);
  assertEquals([service.requests[0].maxTokens, service.requests[0].prompt], [16, { text: "abc" }]);
});

Deno.test("completions take texts, token ids and lists of them", async () => {
  const { app, service } = testApp(backwards);
  const cases: [unknown, unknown[]][] = [
    [["ab", "cd"], [{ text: "ab" }, { text: "cd" }]],
    [[5, 6], [{ tokens: [5, 6] }]],
    [[[5], [6, 7]], [{ tokens: [5] }, { tokens: [6, 7] }]],
    ["", [{ text: "" }]],
  ];
  for (const [prompt, expected] of cases) {
    service.requests.length = 0;
    assertEquals((await post(app, COMPLETIONS, { prompt })).status, 200);
    assertEquals(service.requests.map(({ prompt }) => prompt), expected as GenerationRequest["prompt"][]);
  }
});

Deno.test("the choices of several prompts are counted through, their tokens added", async () => {
  const { app } = testApp((request) => [
    { type: "piece", choice: 1, kind: "text", text: backwards(request)[0] + "1" },
    { type: "piece", choice: 0, kind: "text", text: backwards(request)[0] + "0" },
  ]);
  const prompt = Array.from({ length: 20 }, (_, i) => `${i}.`);
  const answer = await (await post(app, COMPLETIONS, { prompt, n: 2 })).json();
  const expected = prompt.flatMap((text) => [0, 1].map((choice) => `${[...text].reverse().join("")}${choice}`));
  assertEquals(answer.choices.map(({ text }: { text: string }) => text), expected);
  assertEquals(answer.choices.map(({ index }: { index: number }) => index), expected.map((_, i) => i));
  assertEquals(answer.usage.prompt_tokens, 200);
  const events = await readEvents(await post(app, COMPLETIONS, { prompt, n: 2, stream: true }));
  const texts = expected.map(() => "");
  for (const { choices } of events.slice(0, -1)) texts[choices[0].index] += choices[0].text;
  assertEquals(texts, expected);
});

Deno.test("a prompt that fails ends the others of its request", async () => {
  const forever = new Promise<void>(() => {});
  const { app, service } = testApp(({ prompt }) =>
    "text" in prompt && prompt.text === "bad" ? [new ServiceError("context_length_exceeded", "Cannot")] : [forever]
  );
  const response = await post(app, COMPLETIONS, { prompt: ["good", "bad", "good"] });
  assertEquals(response.status, 400);
  assertEquals((await response.json()).error.code, "context_length_exceeded");
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals([service.active, service.cancelled], [0, 2]);
});

Deno.test("echo puts the prompt in front, with log-probabilities of its tokens", async () => {
  const { app, service } = testApp(() => [
    { type: "prompt", text: "ab", tokens: [tokenLogprob("a", null), tokenLogprob("b", -2, { c: -1 })] },
    { type: "piece", choice: 0, kind: "text", text: "é", tokens: [tokenLogprob("é", -0.5, { é: -0.5, e: -3 })] },
    { type: "piece", choice: 0, kind: "text", text: "!", tokens: [tokenLogprob("!", -0.25)] },
  ]);
  const answer = await (await post(app, COMPLETIONS, { prompt: "ab", echo: true, logprobs: 1, max_tokens: 0 })).json();
  assertEquals(answer.choices[0].text, "abé!");
  assertEquals(answer.choices[0].logprobs, {
    tokens: ["a", "b", "é", "!"],
    token_logprobs: [null, -2, -0.5, -0.25],
    top_logprobs: [null, { c: -1, b: -2 }, { é: -0.5, e: -3 }, { "!": -0.25 }],
    text_offset: [0, 1, 2, 3],
  });
  const { echo, topLogprobs, maxTokens } = service.requests[0];
  assertEquals([echo, topLogprobs, maxTokens], [true, 1, 0]);
});

Deno.test("offsets go on from event to event; parts of a character are named by their bytes", async () => {
  const part = (bytes: number[]) => ({ text: "\ufffd", bytes, logprob: -1, top: [] });
  const { app } = testApp(() => [
    { type: "piece", choice: 0, kind: "text", text: "a", tokens: [tokenLogprob("a", -1)] },
    { type: "piece", choice: 0, kind: "text", text: "€", tokens: [part([0xe2]), part([0x82, 0xac])] },
    { type: "piece", choice: 0, kind: "text", text: "b", tokens: [tokenLogprob("b", -1)] },
  ]);
  const events = await readEvents(await post(app, COMPLETIONS, { prompt: "x", logprobs: 0, stream: true }));
  const logprobs = events.slice(1, 4).map(({ choices: [{ logprobs }] }) => logprobs);
  assertEquals(logprobs.map(({ text_offset }) => text_offset), [[0], [1, 2], [2]]);
  assertEquals(logprobs[1].tokens, ["bytes:\\xe2", "bytes:\\x82\\xac"]);
});

Deno.test("completions refuse what they cannot do", async () => {
  const { app } = testApp();
  const cases: [object, string, string][] = [
    [{ prompt: "a", best_of: 2 }, "unsupported_parameter", "best_of"],
    [{ prompt: "a", suffix: "b" }, "unsupported_parameter", "suffix"],
    [{ prompt: "a", max_tokens: 0 }, "invalid_value", "max_tokens"],
    [{ prompt: Array(100).fill("a"), n: 2 }, "invalid_value", "n"],
    [{ prompt: [] }, "invalid_value", "prompt"],
    [{ prompt: ["a", 1] }, "invalid_type", "prompt[1]"],
    [{ prompt: [[1], []] }, "invalid_value", "prompt[1]"],
    [{}, "missing_required_parameter", "prompt"],
    [{ prompt: null }, "invalid_type", "prompt"],
  ];
  for (const [body, code, param] of cases) {
    const response = await post(app, COMPLETIONS, body);
    const { error } = await response.json();
    assertEquals([response.status, error.code, error.param], [400, code, param], JSON.stringify(body));
  }
});
