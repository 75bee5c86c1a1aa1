import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkMutations } from "../../dev/testing.ts";
import { encodeHeader, parseHeader, tensorBytes } from "./safetensors.ts";
import type { TensorDtype, TensorEntry } from "./safetensors.ts";

const SEED = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 1);
const DTYPES: TensorDtype[] = ["f64", "f32", "bf16", "f16", "e4m3", "e5m2", "i64", "i32", "u16", "i8", "u8", "bool"];

function entry(name: string, dtype: TensorDtype, shape: number[]): TensorEntry {
  return { name, dtype, shape, bytes: tensorBytes(dtype, shape) };
}

/** A whole file with zeroed tensors. */
function file(entries: TensorEntry[], metadata?: Record<string, string>): Uint8Array<ArrayBuffer> {
  const head = encodeHeader(entries, metadata);
  const bytes = new Uint8Array(entries.reduce((sum, { bytes }) => sum + bytes, head.length));
  bytes.set(head);
  return bytes;
}

function fromJson(json: string, dataBytes = 0): Uint8Array {
  const text = new TextEncoder().encode(json);
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

Deno.test("parseHeader() gives back what encodeHeader() wrote, for any names and shapes", () => {
  const tensors = fc.uniqueArray(
    fc.record({
      name: fc.oneof(fc.string({ unit: "grapheme" }), fc.constantFrom("0", "__proto__", "constructor", 'a"\\\n')),
      dtype: fc.constantFrom(...DTYPES),
      shape: fc.array(fc.nat(7), { maxLength: 4 }),
    }),
    { selector: ({ name }) => name, maxLength: 12 },
  );
  const metadata = fc.dictionary(fc.string(), fc.string({ unit: "grapheme" }), { maxKeys: 3 });
  fc.assert(
    fc.property(tensors, metadata, (list, metadata) => {
      const entries = list.filter(({ name }) => name !== "__metadata__").map((t) => entry(t.name, t.dtype, t.shape));
      const bytes = file(entries, metadata);
      const header = parseHeader(bytes);
      assertEquals(header.dataBegin % 64, 0);
      assertEquals(Object.entries(header.metadata), Object.entries(metadata));
      let begin = header.dataBegin;
      for (const { name, dtype, shape, bytes } of entries) {
        assertEquals(header.tensors.get(name), { dtype, shape: [...shape], begin, end: begin + bytes });
        begin += bytes;
      }
      assertEquals(header.tensors.size, entries.length);
    }),
    { seed: SEED },
  );
});

Deno.test("encodeHeader() refuses a name twice and a wrong size", () => {
  const a = entry("a", "f32", [2]);
  assertThrows(() => encodeHeader([a, a]), RangeError, '"a"');
  assertEquals(new TextDecoder().decode(encodeHeader([]).subarray(8)), "{}".padEnd(56));
  assertThrows(() => encodeHeader([{ ...a, bytes: 7 }]), RangeError, "7 bytes, expected 8");
});

Deno.test("parseHeader() names what is wrong with a header", () => {
  const t = (offsets: string, shape = "[2]", dtype = "F32") =>
    `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
  const cases: [string, number, string][] = [
    [`{"a":${t("[0,8]")}}`, 4, "expected"],
    [`{"a":${t("[0,8]")}}`, 12, "expected"],
    [`{"a":${t("[4,12]")}}`, 12, "begins at 4, expected 0"],
    [`{"a":${t("[0,8]")},"b":${t("[4,12]")}}`, 12, 'tensor "b": its data begins at 4, expected 8'],
    [`{"a":${t("[0,8]")},"b":${t("[12,20]")}}`, 20, "begins at 12, expected 8"],
    [`{"a":${t("[0,8]")},"a":${t("[8,16]")}}`, 16, 'a second tensor "a"'],
    [`{"a":${t("[0,8]", "[3]")}}`, 8, "8 bytes, expected 12"],
    [`{"a":${t("[0,8]", "[2.0]")}}`, 8, "an integer"],
    [`{"a":${t("[0,8]", "[-2]")}}`, 8, "an integer"],
    [`{"a":${t("[0,8]", "[9007199254740993]")}}`, 8, "an integer"],
    [`{"a":${t("[0,8]", "[4294967296,4294967296]")}}`, 8, "expected NaN"],
    [`{"a":${t("[0,8,8]")}}`, 8, "at most 2"],
    [`{"a":${t("[0,8]", "[2]", "F31")}}`, 8, 'dtype "F31"'],
    [`{"a":{"dtype":"F32","shape":[2]}}`, 8, "without all of its keys"],
    [`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8, "without all of its keys"],
    [`{"a":{"shape":[2],"data_offsets":[0,8]}}`, 8, "without all of its keys"],
    [`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`, 8, "without all of its keys"],
    [`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8, 'key "dtype"'],
    [`{"a":{"shape":[[[[`, 0, "an integer"],
    [`{"__metadata__":{"k":"v","k":"w"}}`, 0, 'second metadata key "k"'],
    [`{"__metadata__":{"k":1}}`, 0, "a string"],
    [`{} {`, 0, "more text"],
    [`{"a`, 0, "a malformed string"],
  ];
  for (const [json, dataBytes, message] of cases) {
    assertThrows(() => parseHeader(fromJson(json, dataBytes)), SyntaxError, message, json);
  }
  assertEquals(parseHeader(fromJson("{}")), { tensors: new Map(), metadata: {}, dataBegin: 10 });
  assertThrows(() => parseHeader(fromJson("{}").subarray(0, 9), 10), SyntaxError, "9 bytes are at hand, expected 10");
  assertThrows(() => parseHeader(new Uint8Array(9)), SyntaxError, "9 bytes, expected at least 10");
  assertThrows(() => parseHeader(new Uint8Array(7), 100), SyntaxError);
  assertThrows(() => parseHeader(new Uint8Array(32).fill(255)), SyntaxError, "the header has");
  assertThrows(() => parseHeader(fromJson('{"\xff').map((b, i) => i > 9 ? 0xff : b)), SyntaxError, "UTF-8");
});

Deno.test("parseHeader() survives 2,000 seeded mutations with one error or a consistent header", async () => {
  const entries = DTYPES.map((dtype, i) => entry(`h.${i}.weight`, dtype, [i, 3]));
  await checkMutations({
    files: [file(entries, { format: "pt" }), file(entries.slice(0, 2))],
    read: (bytes) => {
      const { tensors, dataBegin } = parseHeader(bytes);
      let at = dataBegin;
      for (const { dtype, shape, begin, end } of tensors.values()) {
        assertEquals(begin, at);
        assertEquals(end - begin, tensorBytes(dtype, shape));
        at = end;
      }
      assertEquals(at, bytes.length);
    },
    errors: [SyntaxError],
    refused: 0.5,
  });
});

Deno.test("parseHeader() keeps its memory in proportion to a hostile header", () => {
  const bytes = fromJson(`{${'"a":{},'.repeat(2_000_000)}`);
  const before = Deno.memoryUsage().rss;
  assertThrows(() => parseHeader(bytes), SyntaxError);
  const grown = Deno.memoryUsage().rss - before;
  assert(grown < 2 * bytes.length + 64 * 1024 * 1024, `grew by ${grown} bytes for ${bytes.length}`);
});
