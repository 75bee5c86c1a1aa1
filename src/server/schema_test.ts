import { assertEquals } from "@std/assert";
import { describeSchema, findMismatch, type Schema } from "./schema.ts";

/** Writes a mismatch in one line. */
function problem(schema: Schema, value: unknown): string | undefined {
  const found = findMismatch(schema, value);
  return found && `${found.path.join(".")}: ${found.kind}, ${found.found}, expected ${found.expected}`;
}

Deno.test("findMismatch() accepts what fits", () => {
  const cases: [Schema, unknown][] = [
    [{ type: "integer", minimum: 1, maximum: 3 }, 3],
    [{ type: "integer" }, 2.0],
    [{ type: "number" }, -0.5],
    [{ type: "string" }, ""],
    [{ type: "string" }, "\u{1f600}"],
    [{ type: "null" }, null],
    [{}, [{ a: 1 }]],
    [{ type: "object", properties: { a: { type: "string" } } }, { a: null, b: 1 }],
    [{ anyOf: [{ type: "string" }, { type: "array", items: { type: "integer" } }] }, [1]],
  ];
  for (const [schema, value] of cases) assertEquals(problem(schema, value), undefined, JSON.stringify(value));
});

Deno.test("findMismatch() says where, what is and what should be", () => {
  const texts: Schema = { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" }, minItems: 1 }] };
  const strict: Schema = { type: "object", properties: { a: texts }, required: ["a"], additionalProperties: false };
  const byId: Schema = {
    type: "object",
    propertyNames: { pattern: "^[0-9]+$" },
    additionalProperties: { type: "number" },
  };
  const cases: [Schema, unknown, string][] = [
    [{ type: "integer", minimum: 1 }, 0, ": value, 0, expected an integer of 1 or more"],
    [{ type: "integer" }, 1.5, ": type, 1.5, expected an integer"],
    [{ type: "integer" }, 2 ** 53, ": type, 9007199254740992, expected an integer"],
    [{ type: "number", minimum: 0, maximum: 2 }, 3, ": value, 3, expected a number of 0 to 2"],
    [{ type: "number" }, JSON.parse("1e400"), ": type, a number that is too large, expected a number"],
    [{ type: "number" }, "1", ': type, "1", expected a number'],
    [{ type: "string" }, "\ud800", ": value, a text with half a surrogate pair, expected a text"],
    [{ type: "string", enum: ["a", "b"] }, "c", ': value, "c", expected "a" or "b"'],
    [{ type: "object" }, [], ": type, an array of 0, expected an object"],
    [{ type: "object" }, null, ": type, null, expected an object"],
    [{ type: "array", maxItems: 0 }, [1], ": value, an array of 1, expected an array without elements"],
    [strict, {}, "a: missing, absent, expected a text or an array of 1 or more texts"],
    [strict, { a: 1 }, "a: type, 1, expected a text or an array of 1 or more texts"],
    [strict, { a: null }, "a: type, null, expected a text or an array of 1 or more texts"],
    [strict, { a: ["x", 1] }, "a.1: type, 1, expected a text"],
    [strict, { a: "", b: 1 }, "b: unknown, unknown, expected a"],
    [
      { type: "object", maxProperties: 1 },
      { a: 1, b: 2 },
      ": value, an object, expected an object of at most 1 entries",
    ],
    [byId, { x: 1 }, "x: unknown, unknown, expected a name that matches ^[0-9]+$"],
    [byId, { 1: "a" }, '1: type, "a", expected a number'],
    [strict, JSON.parse('{"a": "", "__proto__": 1}'), "__proto__: unknown, unknown, expected a"],
  ];
  for (const [schema, value, expected] of cases) assertEquals(problem(schema, value), expected);
});

Deno.test("findMismatch() shows a long text by its beginning", () => {
  assertEquals(
    problem({ type: "null" }, "\u{1f600}".repeat(21) + "!"),
    `: type, "${"\u{1f600}".repeat(20)}…", expected null`,
  );
});

Deno.test("describeSchema() has words for all schemas of a body", () => {
  assertEquals(describeSchema({}), "any value");
  assertEquals(
    describeSchema({ type: "array", items: { type: "array" }, maxItems: 3 }),
    "an array of at most 3 arrays",
  );
  assertEquals(describeSchema({ type: "boolean" }), "a boolean");
});
