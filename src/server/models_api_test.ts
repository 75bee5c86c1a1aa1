import { assertEquals } from "@std/assert";
import { post, testApp } from "./app_testing.ts";

Deno.test("GET /v1/models lists the models as OpenAI does", async () => {
  const { app } = testApp();
  const { object, data } = await (await app.request("/v1/models")).json();
  assertEquals(object, "list");
  assertEquals(data.map(({ id, object, owned_by }: Record<string, string>) => [id, object, owned_by]), [
    ["d4", "model", "nanochat"],
    ["base/d4", "model", "nanochat"],
  ]);
  assertEquals(data[1].nanochat, {
    ...{ stage: "base", step: 1000, parameters: 1_000_000, vocab_size: 265, context_length: 512 },
    ...{ completes: true, is_loaded: false },
  });
});

Deno.test("GET /v1/models/{id} finds a model, its slash written either way", async () => {
  const { app } = testApp();
  for (const path of ["base/d4", "base%2Fd4"]) {
    const response = await app.request(`/v1/models/${path}`);
    assertEquals([response.status, (await response.json()).id], [200, "base/d4"]);
  }
  const missing = await app.request("/v1/models/d5");
  const { error } = await missing.json();
  assertEquals([missing.status, error.code, error.param], [404, "model_not_found", "model"]);
  assertEquals((await app.request("/v1/models/%E0%A4%A")).status, 404);
});

Deno.test("/tokenize and /detokenize are each other's inverse", async () => {
  const { app } = testApp();
  const encoded = await (await post(app, "/tokenize", { prompt: "hé" })).json();
  assertEquals(encoded, { tokens: [0x68, 0xc3, 0xa9], count: 3, max_model_len: 512 });
  const decoded = await post(app, "/detokenize", { model: "base/d4", tokens: encoded.tokens });
  assertEquals(await decoded.json(), { prompt: "hé" });
  assertEquals(await (await post(app, "/detokenize", { tokens: [] })).json(), { prompt: "" });
});

Deno.test("/tokenize and /detokenize refuse what is none of theirs", async () => {
  const { app } = testApp();
  const cases: [string, object, number, string][] = [
    ["/tokenize", {}, 400, "missing_required_parameter"],
    ["/tokenize", { prompt: 1 }, 400, "invalid_type"],
    ["/tokenize", { prompt: "a", x: 1 }, 400, "unknown_parameter"],
    ["/tokenize", { prompt: "a", model: "d5" }, 404, "model_not_found"],
    ["/detokenize", { tokens: [-1] }, 400, "invalid_value"],
    ["/detokenize", { tokens: [256] }, 400, "invalid_value"],
    ["/detokenize", { tokens: ["a"] }, 400, "invalid_type"],
  ];
  for (const [path, body, status, code] of cases) {
    const response = await post(app, path, body);
    assertEquals([response.status, (await response.json()).error.code], [status, code], path + JSON.stringify(body));
  }
});
