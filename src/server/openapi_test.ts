import { assertEquals } from "@std/assert";
import { testApp } from "./app_testing.ts";
import { CHAT_PARAMETERS, COMPLETION_PARAMETERS } from "./parameters.ts";

// deno-lint-ignore no-explicit-any
async function document(): Promise<any> {
  const { app } = testApp();
  return (await app.request("/openapi.json")).json();
}

Deno.test("the document lists every endpoint with a name of its own", async () => {
  const { openapi, info, paths } = await document();
  assertEquals([openapi, info.version], ["3.1.0", "0.0.0"]);
  // deno-lint-ignore no-explicit-any
  const operations = Object.values(paths).flatMap((path: any) => Object.values(path)) as any[];
  assertEquals(new Set(operations.map(({ operationId }) => operationId)).size, operations.length);
  assertEquals(paths["/v1/chat/completions"].post.operationId, "postV1ChatCompletions");
  assertEquals(paths["/v1/models/{id}"].get.parameters[0].name, "id");
  for (const { responses } of operations) assertEquals("200" in responses && "405" in responses, true);
});

Deno.test("the parameters of the document are those of the table, null where they may be absent", async () => {
  const { paths } = await document();
  const schemaOf = (path: string) => paths[path].post.requestBody.content["application/json"].schema;
  const chat = schemaOf("/v1/chat/completions");
  assertEquals(Object.keys(chat.properties).sort(), Object.keys(CHAT_PARAMETERS).sort());
  assertEquals(chat.properties.model.anyOf[0].enum, ["d4", "base/d4"]);
  assertEquals([chat.required, chat.additionalProperties], [["messages"], false]);
  assertEquals(chat.properties.temperature, {
    description: CHAT_PARAMETERS.temperature.note,
    anyOf: [{ type: "number", minimum: 0, maximum: 2 }, { type: "null" }],
  });
  assertEquals(chat.properties.audio.type, "null");
  assertEquals(chat.properties.messages.type, "array");
  const completion = schemaOf("/v1/completions");
  assertEquals(Object.keys(completion.properties).sort(), Object.keys(COMPLETION_PARAMETERS).sort());
});

Deno.test("every reference of the document leads somewhere", async () => {
  const whole = await document();
  const names = [...JSON.stringify(whole).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)].map(([_, name]) =>
    name
  );
  assertEquals(names.length > 10, true);
  for (const name of names) assertEquals(name in whole.components.schemas, true, name);
  assertEquals([...new Set(names)].sort(), Object.keys(whole.components.schemas).sort());
});
