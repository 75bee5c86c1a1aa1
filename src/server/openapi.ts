/** `GET /openapi.json`: our own OpenAPI 3.1 document, made of the tables of endpoints and parameters. */
import { ANSWER_SCHEMAS } from "./answer_schemas.ts";
import { type Endpoint, ENDPOINTS } from "./endpoints.ts";
import { IGNORED_HEADER } from "./parameters.ts";
import { REFERENCE_CHAT } from "./reference_api.ts";
import type { Schema } from "./schema.ts";

const EXPLAINED: Readonly<Record<number, string>> = {
  400: "The request cannot be read, or asks for something that is not there.",
  401: "The key is missing or wrong.",
  403: "The host or origin is not one of ours.",
  404: "There is no such model.",
  405: "The endpoint has other methods.",
  413: "The body is too large.",
  415: "The body is not `application/json`.",
  422: "A value is of the wrong kind.",
  429: "The queue is full; `Retry-After` says when to come again.",
  500: "The server failed.",
  503: "The server is shutting down.",
  504: "The time of the request is up.",
};
/** What any endpoint may answer before its handler is asked. */
const ALWAYS = [401, 403, 405];
const ALWAYS_POSTED = [400, 413, 415];

/** Makes the document of a server with these models. */
export function openApiDocument({ version, models }: { version: string; models: readonly string[] }): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const endpoint of ENDPOINTS) (paths[endpoint.path] ??= {})[endpoint.method] = operation(endpoint, models);
  return {
    openapi: "3.1.0",
    info: { title: "nanochat", version, license: { name: "MIT", identifier: "MIT" } },
    paths,
    components: {
      schemas: Object.fromEntries(Object.entries(ANSWER_SCHEMAS)),
      securitySchemes: { key: { type: "http", scheme: "bearer", description: "The server's `--api-key`." } },
    },
    // Without `--api-key` no request needs one.
    security: [{}, { key: [] }],
  };
}

function operation(endpoint: Endpoint, models: readonly string[]): object {
  const { method, path, summary, body, answers, errors = [] } = endpoint;
  const statuses = new Set([...ALWAYS, ...(method === "post" ? ALWAYS_POSTED : []), ...errors]);
  const failure = reference(path === REFERENCE_CHAT ? "ReferenceError" : "Error");
  const failures = [...statuses].sort().map((status) => [
    status,
    { description: EXPLAINED[status], headers: HEADERS, content: { "application/json": { schema: failure } } },
  ]);
  const content = answers.map(([type, name]) => [type, name === undefined ? {} : { schema: reference(name) }]);
  const isOfModel = path.endsWith("/{id}");
  return {
    summary,
    operationId: `${method}${path.replace(/[/._{}]+(\w?)/g, (_, letter) => letter.toUpperCase())}`,
    ...(isOfModel &&
      { parameters: [{ name: "id", in: "path", required: true, schema: { type: "string", enum: models } }] }),
    ...(body && { requestBody: bodyOf(body, models) }),
    responses: {
      200: { description: "The answer.", headers: HEADERS, content: Object.fromEntries(content) },
      ...Object.fromEntries(failures),
    },
  };
}

/** Describes a body; its model is one of the list. */
function bodyOf(body: Schema, models: readonly string[]): object {
  const { model, ...others } = body.properties!;
  const properties = model === undefined ? others : { model: { ...model, enum: models }, ...others };
  return { required: true, content: { "application/json": { schema: withNulls({ ...body, properties }) } } };
}

const HEADERS = {
  "x-request-id": { schema: { type: "string" }, description: "Id of the request, also in the server's log." },
  [IGNORED_HEADER]: { schema: { type: "string" }, description: "Parameters of the request that have no effect." },
};

function reference(name: keyof typeof ANSWER_SCHEMAS): object {
  return { $ref: `#/components/schemas/${name}` };
}

/** Writes out that null stands for an optional property that is absent. */
function withNulls(schema: Schema): object {
  const { properties, items, anyOf, required = [], ...rest } = schema;
  return {
    ...rest,
    ...(anyOf && { anyOf: anyOf.map(withNulls) }),
    ...(items && { items: withNulls(items) }),
    ...(properties && {
      required,
      properties: Object.fromEntries(
        Object.entries(properties).map(([name, inner]) => [
          name,
          required.includes(name) ? withNulls(inner) : orNull(withNulls(inner)),
        ]),
      ),
    }),
  };
}

function orNull({ description, ...schema }: { description?: string }): object {
  const isNull = (schema as Schema).type === "null";
  return { ...(description && { description }), ...(isNull ? schema : { anyOf: [schema, { type: "null" }] }) };
}
