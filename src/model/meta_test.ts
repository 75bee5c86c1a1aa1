import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkMutations } from "../../dev/testing.ts";
import { CheckpointError, encodeMeta, fileNames, parseMeta, sha256Hex } from "./meta.ts";
import type { CheckpointMeta } from "./meta.ts";

const SEED = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 1);
const HASH = sha256Hex(new Uint8Array(0));

function sample(changes: Partial<CheckpointMeta> = {}): CheckpointMeta {
  return {
    run: "dummy",
    stage: "base",
    valBpb: 1.25,
    config: { nLayer: 4 },
    flags: { depth: 4, "device-batch-size": 8 },
    loader: { shard: 1, tokens: [1, 2, 3] },
    rng: { seed: 42 },
    loop: { minValBpb: 0.1 + 0.2, smoothLoss: 5e-324 },
    step: 40,
    savedAt: "2025-12-01T00:00:00.000Z",
    worldSize: 1,
    blockBytes: 1024,
    tokenizer: { name: "nanochat_tokenizer.json", sha256: HASH },
    files: [
      { name: "model_000040.safetensors", bytes: 2048, sha256: [HASH, HASH] },
      { name: "optim_000040_rank0.safetensors", bytes: 1, sha256: [HASH] },
    ],
    ...changes,
  };
}

/** Meta text whose checksum is right although its content is not. */
function forge(change: (meta: Record<string, unknown>) => void): Uint8Array {
  const meta = structuredClone(sample()) as unknown as Record<string, unknown>;
  change(meta);
  return encodeMeta(meta as unknown as CheckpointMeta);
}

Deno.test("parseMeta() gives back what encodeMeta() wrote, bit for bit", () => {
  assertEquals(parseMeta(encodeMeta(sample()), "meta"), sample());
  const first = sample({ step: 0, files: [{ name: "model_000000.safetensors", bytes: 0, sha256: [] }] });
  assertEquals(parseMeta(encodeMeta(first), "meta"), first);
  fc.assert(
    fc.property(
      fc.jsonValue({ noUnicodeString: false }),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      (loop, x) => {
        const meta = sample({ loop: JSON.parse(JSON.stringify(loop)), rng: Object.is(x, -0) ? 0 : x });
        assertEquals(parseMeta(encodeMeta(meta), "meta"), meta);
      },
    ),
    { seed: SEED },
  );
});

Deno.test("encodeMeta() refuses values that JSON would change, by name", () => {
  assertThrows(() => encodeMeta(sample({ loop: { minValBpb: Infinity } })), TypeError, "meta.loop.minValBpb");
  assertThrows(() => encodeMeta(sample({ rng: [1, NaN] })), TypeError, "meta.rng.1");
  assertThrows(() => encodeMeta(sample({ rng: 1n as unknown as number })), TypeError, "bigint");
  assertThrows(() => encodeMeta(sample({ rng: { a: undefined as unknown as null } })), TypeError, "meta.rng.a");
  assertThrows(() => encodeMeta(sample({ rng: (() => 1) as unknown as null })), TypeError, "function");
  assertThrows(() => encodeMeta(sample({ rng: new Int32Array(1) as unknown as null })), TypeError, "binary array");
});

Deno.test("parseMeta() refuses another version by name, and the Python nanochat's meta with the way out", () => {
  const text = new TextDecoder().decode(encodeMeta(sample()));
  const other = new TextEncoder().encode(text.replace('"version": 1', '"version": 2'));
  const error = assertThrows(() => parseMeta(other, "meta_000040.json"), CheckpointError, "version is 2, expected 1");
  assertEquals(error.problem, "version");
  const python = new TextEncoder().encode('{\n  "step": 40,\n  "model_config": {}\n}');
  assertThrows(() => parseMeta(python, "m"), CheckpointError, "nanochat import");
});

Deno.test("parseMeta() refuses content that is not a checkpoint's, even with a right checksum", () => {
  const cases: [(meta: Record<string, unknown>) => void, string][] = [
    [(m) => m.step = -1, "no step"],
    [(m) => m.worldSize = 0, "world size"],
    [(m) => m.blockBytes = 0.5, "block size"],
    [(m) => m.stage = "finetune", "stage"],
    [(m) => m.valBpb = "x", "bits per byte"],
    [(m) => m.files = [], "no files"],
    [(m) => m.files = [{ name: "../../etc/passwd", bytes: 0, sha256: [] }], "file 0"],
    [(m) => m.files = [{ name: "model_000040.safetensors", bytes: 2048, sha256: [HASH] }], "SHA-256"],
    [(m) => m.files = [{ name: "model_000040.safetensors", bytes: 1, sha256: ["xyz"] }], "SHA-256"],
    [(m) => m.files = [{ name: "model_000040.safetensors", bytes: -1, sha256: [] }], "no size"],
    [(m) => m.tokenizer = { name: "../x", sha256: HASH }, "tokenizer"],
    [(m) => m.config = [], "config"],
    [(m) => delete m.loader, "loader"],
    [(m) => delete m.run, "run"],
  ];
  for (const [change, message] of cases) {
    const error = assertThrows(() => parseMeta(forge(change), "meta"), CheckpointError, message);
    assertEquals(error.problem, "damaged");
  }
});

Deno.test("parseMeta() refuses each of 2,000 seeded mutations with one error", async () => {
  const whole = encodeMeta(sample());
  await checkMutations({
    files: [whole],
    read: (bytes) => {
      // Only a change that another one took back may pass.
      assertEquals(parseMeta(bytes, "meta") && bytes, whole);
    },
    errors: [CheckpointError],
    refused: 0.98,
  });
});

Deno.test("parseMeta() survives 2,000 seeded mutations under a right checksum with one error or a whole meta", async () => {
  const head = /^(\{\n.*\n.*\n {2}"sha256": ")[0-9a-f]{64}(",\n)/;
  const text = new TextDecoder().decode(encodeMeta(sample()));
  const [begin, before, behind] = head.exec(text)!;
  await checkMutations({
    files: [new TextEncoder().encode(text.slice(begin.length))],
    read: (body) => {
      const bytes = new Uint8Array([...new TextEncoder().encode(before + sha256Hex(body) + behind), ...body]);
      const meta = parseMeta(bytes, "meta");
      assert(Number.isSafeInteger(meta.step) && meta.worldSize > 0 && meta.blockBytes > 0);
      assertEquals(meta.files[0].name, fileNames(meta.step).model);
    },
    errors: [CheckpointError],
    refused: 0.4,
  });
});
