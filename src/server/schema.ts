/**
 * The subset of JSON Schema that parameters are described in, and the check of a value against it. One description serves the check of
 * a request, the OpenAPI document and the tables of `docs/api.md`, so that the three cannot differ.
 *
 * Beyond the standard: numbers are finite, integers are those that JSON carries without loss, strings are well-formed Unicode, and null
 * stands for an optional property that is absent, as in OpenAI's API.
 */

/** What a value may be. */
export interface Schema {
  readonly type?: "string" | "integer" | "number" | "boolean" | "array" | "object" | "null";
  readonly enum?: readonly (string | number | boolean)[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  /** In characters (Unicode code points). */
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  /** Other properties: refused, of this kind, or anything where it is absent. */
  readonly additionalProperties?: Schema | false;
  readonly maxProperties?: number;
  readonly propertyNames?: { readonly pattern: string };
  readonly anyOf?: readonly Schema[];
  readonly description?: string;
}

/** Where and how a value differs from its schema. */
export interface Mismatch {
  /** Names and numbers from the outermost value inwards. */
  readonly path: readonly (string | number)[];
  readonly kind: "type" | "value" | "missing" | "unknown";
  readonly found: string;
  readonly expected: string;
}

const QUOTED_CHARS = 40;

/** Finds the first place where a value differs from a schema; undefined where it fits. */
export function findMismatch(schema: Schema, value: unknown): Mismatch | undefined {
  if (schema.anyOf !== undefined) return findInAlternatives(schema.anyOf, value);
  if (schema.type !== undefined && !hasType(schema.type, value)) return mismatch("type", schema, value);
  if (schema.enum !== undefined && !schema.enum.includes(value as string)) return mismatch("value", schema, value);
  if (typeof value === "number" && (value < (schema.minimum ?? -Infinity) || value > (schema.maximum ?? Infinity))) {
    return mismatch("value", schema, value);
  }
  if (typeof value === "string" && !isText(schema, value)) return mismatch("value", schema, value);
  if (Array.isArray(value)) return findInArray(schema, value);
  if (typeof value === "object" && value !== null) return findInObject(schema, value as Record<string, unknown>);
}

/** The mismatch of the alternative that fits best: the one in which the check came deepest, or whose type is right at least. */
function findInAlternatives(alternatives: readonly Schema[], value: unknown): Mismatch | undefined {
  let best: Mismatch | undefined;
  for (const schema of alternatives) {
    const found = findMismatch(schema, value);
    if (found === undefined) return undefined;
    if (best === undefined || fitOf(found) > fitOf(best)) best = found;
  }
  return best!.path.length > 0 ? best : { ...best!, expected: alternatives.map(describeSchema).join(" or ") };
}

function fitOf({ path, kind }: Mismatch): number {
  return path.length + (kind === "type" ? 0 : 0.5);
}

function findInArray(schema: Schema, value: readonly unknown[]): Mismatch | undefined {
  if (value.length < (schema.minItems ?? 0) || value.length > (schema.maxItems ?? Infinity)) {
    return mismatch("value", schema, value);
  }
  if (schema.items === undefined) return undefined;
  for (let i = 0; i < value.length; i++) {
    const found = findMismatch(schema.items, value[i]);
    if (found !== undefined) return { ...found, path: [i, ...found.path] };
  }
}

function findInObject(schema: Schema, value: Readonly<Record<string, unknown>>): Mismatch | undefined {
  const { properties = {}, required = [], additionalProperties, propertyNames } = schema;
  if (Object.keys(value).length > (schema.maxProperties ?? Infinity)) return mismatch("value", schema, value);
  const pattern = propertyNames === undefined ? undefined : new RegExp(propertyNames.pattern, "u");
  for (const [name, inner] of Object.entries(value)) {
    const known = Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (known !== undefined && inner === null && !required.includes(name)) continue;
    const fits = pattern?.test(name) ?? true;
    if (known === undefined && (additionalProperties === false || !fits)) {
      const expected = fits ? Object.keys(properties).join(", ") : `a name that matches ${pattern!.source}`;
      return { path: [name], kind: "unknown", found: "unknown", expected };
    }
    const expected = known ?? additionalProperties;
    // What no schema describes is not walked through: it may be nested without end.
    if (!expected) continue;
    const found = findMismatch(expected, inner);
    if (found !== undefined) return { ...found, path: [name, ...found.path] };
  }
  const missing = required.find((name) => !Object.hasOwn(value, name));
  if (missing === undefined) return undefined;
  return { path: [missing], kind: "missing", found: "absent", expected: describeSchema(properties[missing]) };
}

function isText({ minLength = 0, maxLength = Infinity }: Schema, text: string): boolean {
  if (text.length < minLength || text.length > 2 * maxLength) return false;
  return text.isWellFormed() && (text.length <= maxLength || [...text].length <= maxLength);
}

function hasType(type: NonNullable<Schema["type"]>, value: unknown): boolean {
  switch (type) {
    case "integer":
      return Number.isSafeInteger(value);
    case "number":
      return Number.isFinite(value);
    case "string":
      return typeof value === "string";
    case "boolean":
      return typeof value === "boolean";
    case "array":
      return Array.isArray(value);
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "null":
      return value === null;
  }
}

function mismatch(kind: Mismatch["kind"], schema: Schema, value: unknown): Mismatch {
  return { path: [], kind, found: describeValue(value), expected: describeSchema(schema) };
}

/** Says what a schema accepts, in words: "a number of 0 to 2". */
export function describeSchema(schema: Schema): string {
  if (schema.anyOf !== undefined) return schema.anyOf.map(describeSchema).join(" or ");
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  switch (schema.type) {
    case undefined:
      return "any value";
    case "null":
      return "null";
    case "string":
      if (schema.maxLength !== undefined) return `a text of ${schema.minLength ?? 0} to ${schema.maxLength} characters`;
      return schema.minLength === 1 ? "a text that is not empty" : "a text";
    case "array":
      return `an array${range(schema.minItems, schema.maxItems) || " of"}${itemsOf(schema)}`;
    case "object":
      return schema.maxProperties === undefined ? "an object" : `an object of at most ${schema.maxProperties} entries`;
    case "integer":
      return `an integer${range(schema.minimum, schema.maximum)}`;
    default:
      return `a ${schema.type}${range(schema.minimum, schema.maximum)}`;
  }
}

function itemsOf({ items, maxItems }: Schema): string {
  if (maxItems === 0) return "";
  const names: Record<string, string> = { string: "texts", integer: "integers", array: "arrays", object: "objects" };
  return ` ${names[items?.type ?? ""] ?? "values"}`;
}

function range(from: number | undefined, to: number | undefined): string {
  if (to === 0) return " without elements";
  if (from !== undefined && to !== undefined) return ` of ${from} to ${to}`;
  return from !== undefined ? ` of ${from} or more` : to !== undefined ? ` of at most ${to}` : "";
}

/** Shows a value in a few words. */
function describeValue(value: unknown): string {
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value === "number" && !Number.isFinite(value)) return "a number that is too large";
  if (typeof value !== "string") return String(value);
  if (!value.isWellFormed()) return "a text with half a surrogate pair";
  return JSON.stringify(value.length > QUOTED_CHARS ? value.slice(0, QUOTED_CHARS).toWellFormed() + "…" : value);
}
