import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import fc from "fast-check";
import { TOKENIZER_FILE } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { bindNative, pointerFrom } from "../native/call.ts";
import type { NativeContext } from "../native/files.ts";
import { readMemory } from "../native/files.ts";
import { openLibrary } from "../native/load.ts";
import {
  amendMeta,
  checkpointBytes,
  CheckpointError,
  checkSpace,
  checkTokenizer,
  clearCheckpoints,
  describeSteps,
  fileNames,
  findCheckpoint,
  listSteps,
  loadTensors,
  MappedCheckpoint,
  nativeIo,
  readMeta,
  removeStep,
  removeUnfinished,
  saveCheckpoint,
} from "./checkpoint.ts";
import type { CheckpointIo, CheckpointState, NamedTensor, SaveOptions } from "./checkpoint.ts";

const SEED = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 1);
const STATE: CheckpointState = {
  run: "dummy",
  stage: "base",
  valBpb: null,
  config: { nLayer: 1 },
  flags: { depth: 1 },
  loader: null,
  rng: null,
  loop: { smoothLoss: 0.1 },
};

/** A context, a folder for checkpoints and one with a tokenizer; all gone at the end of the test. */
class Rig implements Disposable, NativeContext {
  readonly nc = bindNative(openLibrary("cpu"));
  readonly ctx: Deno.PointerObject;
  readonly root = Deno.makeTempDirSync();
  readonly folder = join(this.root, "d1");
  readonly tokenizerFolder = join(this.root, "tokenizer");
  readonly warnings: string[] = [];
  readonly log = { ...SILENT, warn: (message: string) => void this.warnings.push(message) };

  constructor() {
    const out = new BigUint64Array(1);
    this.nc.context_create(out, 0, 2);
    this.ctx = pointerFrom(out);
    Deno.mkdirSync(this.tokenizerFolder);
    Deno.writeTextFileSync(join(this.tokenizerFolder, TOKENIZER_FILE), "{}");
  }

  tensor(name: string, shape: number[], value: number): NamedTensor {
    const n = shape.reduce((a, b) => a * b, 1);
    const out = new BigUint64Array(1);
    this.nc.alloc(this.ctx, out, BigInt(4 * n));
    const pointer = pointerFrom(out);
    const data = Float32Array.from({ length: n }, (_, i) => Math.fround(value + Math.sin(i)));
    this.nc.upload(this.ctx, pointer, data, BigInt(4 * n));
    return { name, dtype: "f32", shape, pointer, bytes: 4 * n };
  }

  async read(tensor: NamedTensor): Promise<Uint8Array> {
    await this.nc.wait(this.ctx);
    return readMemory(this, tensor);
  }

  save(step: number, changes: Partial<SaveOptions> = {}): ReturnType<typeof saveCheckpoint> {
    return saveCheckpoint({
      nc: this.nc,
      ctx: this.ctx,
      folder: this.folder,
      step,
      model: [this.tensor("wte", [5, 3], step), this.tensor("h.0.w", [7], -step)],
      optimizer: [this.tensor("wte.m", [5, 3], step / 2)],
      state: STATE,
      keep: 0,
      tokenizerFolder: this.tokenizerFolder,
      log: this.log,
      ...changes,
    });
  }

  names(): string[] {
    return [...Deno.readDirSync(this.folder)].map(({ name }) => name).sort();
  }

  [Symbol.dispose](): void {
    this.nc.context_free(this.ctx);
    Deno.removeSync(this.root, { recursive: true });
  }
}

function flipByte(path: string, at: number): void {
  const bytes = Deno.readFileSync(path);
  bytes[at < 0 ? bytes.length + at : at] ^= 1;
  Deno.writeFileSync(path, bytes);
}

Deno.test("saveCheckpoint() and MappedCheckpoint give back every bit and the state", async () => {
  using rig = new Rig();
  const model = [rig.tensor("wte", [11, 3], 1), rig.tensor("empty", [0, 3], 0), rig.tensor("h.0.w", [5], 2)];
  const optimizer = [rig.tensor("wte.m", [11, 3], 3), rig.tensor("wte.v", [11, 3], 4)];
  const meta = await rig.save(12, { model, optimizer });
  assertEquals(rig.names(), [
    "meta_000012.json",
    "model_000012.safetensors",
    TOKENIZER_FILE,
    "optim_000012_rank0.safetensors",
  ]);
  using mapped = new MappedCheckpoint({ ...rig, nc: rig.nc, ctx: rig.ctx, folder: rig.folder, rank: 0 });
  assertEquals(mapped.meta, meta);
  assertEquals([mapped.meta.loop, mapped.meta.worldSize], [STATE.loop, 1]);
  await mapped.verify();
  await mapped.verify({ threads: 1 });
  const into = [
    ...model.map(({ name, shape }) => rig.tensor(name, [...shape], 9)),
    ...optimizer.map(({ name, shape }) => rig.tensor(name, [...shape], 9)),
  ];
  loadTensors(rig, { from: mapped.tensors, into: into.slice(0, 3), what: "the model" });
  loadTensors(rig, { from: mapped.optimizer, into: into.slice(3), what: "the optimizer" });
  for (const [i, tensor] of [...model, ...optimizer].entries()) {
    assertEquals(await rig.read(into[i]), await rig.read(tensor), tensor.name);
  }
});

Deno.test("amendMeta() writes new figures and leaves the rest of the step as it is", async () => {
  using rig = new Rig();
  const meta = await rig.save(3);
  const files = rig.names();
  await amendMeta(nativeIo(rig), { folder: rig.folder, meta: { ...meta!, valBpb: 0.75 } });
  assertEquals(rig.names(), files);
  assertEquals(findCheckpoint(rig.folder)?.meta, { ...meta!, valBpb: 0.75 });
  using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder });
  await mapped.verify();
});

Deno.test("loadTensors() names the tensor that does not fit", async () => {
  using rig = new Rig();
  await rig.save(1);
  using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder });
  const from = mapped.tensors;
  const [wte, w] = [rig.tensor("wte", [5, 3], 0), rig.tensor("h.0.w", [7], 0)];
  const load = (into: NamedTensor[]) => () => loadTensors(rig, { from, into, what: "the model" });
  assertThrows(load([wte]), CheckpointError, 'holds tensor "h.0.w"');
  assertThrows(load([wte, w, rig.tensor("x", [1], 0)]), CheckpointError, '"x" is missing');
  assertThrows(load([wte, rig.tensor("h.0.w", [8], 0)]), CheckpointError, '"h.0.w" is f32 (7), expected f32 (8)');
  assertThrows(load([wte, { ...w, dtype: "i32" }]), CheckpointError, "expected i32 (7)");
});

Deno.test("findCheckpoint() takes the largest step as a number and passes over what a crash left", async () => {
  using rig = new Rig();
  assertEquals(findCheckpoint(rig.folder), undefined);
  await rig.save(999_999);
  await rig.save(1_000_000);
  assertEquals(listSteps(rig.folder), [999_999, 1_000_000]);
  assertEquals(findCheckpoint(rig.folder)?.step, 1_000_000);
  Deno.truncateSync(join(rig.folder, fileNames(1_000_000).model), 50);
  assertEquals(findCheckpoint(rig.folder, { log: rig.log })?.step, 999_999);
  assertStringIncludes(rig.warnings[0], "model_1000000.safetensors has 50 bytes, expected");
  flipByte(join(rig.folder, fileNames(999_999).meta), -5);
  assertEquals(findCheckpoint(rig.folder), undefined);
  assertThrows(() => findCheckpoint(rig.folder, { step: 999_999 }), CheckpointError, "SHA-256 differs");
  assertThrows(() => findCheckpoint(rig.folder, { step: 7 }), CheckpointError, "steps 999999 and 1000000");
  assertThrows(() => findCheckpoint(join(rig.root, "no"), { step: 7 }), CheckpointError, "holds no checkpoint");
});

Deno.test("findCheckpoint() refuses another format version by name instead of passing over it", async () => {
  using rig = new Rig();
  await rig.save(1);
  await rig.save(2);
  const path = join(rig.folder, fileNames(2).meta);
  Deno.writeTextFileSync(path, Deno.readTextFileSync(path).replace('"version": 1', '"version": 9'));
  assertThrows(() => findCheckpoint(rig.folder), CheckpointError, "version is 9, expected 1");
});

Deno.test("MappedCheckpoint refuses a damaged header at once and damaged data in verify()", async () => {
  using rig = new Rig();
  await rig.save(1);
  const path = join(rig.folder, fileNames(1).model);
  flipByte(path, -1);
  {
    using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, step: 1 });
    const error = await assertRejects(() => mapped.verify(), CheckpointError, "block 0");
    assertEquals(error.problem, "damaged");
  }
  flipByte(path, 9);
  assertThrows(
    () => new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, step: 1 }),
    CheckpointError,
    "Cannot read safetensors",
  );
  assertThrows(
    () => new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, step: 1, rank: 3 }),
    CheckpointError,
  );
});

Deno.test("saveCheckpoint() rotates with keep, removes larger steps of an abandoned run first, and keeps all with 0", async () => {
  using rig = new Rig();
  for (const step of [10, 20, 30]) await rig.save(step);
  assertEquals(listSteps(rig.folder), [10, 20, 30]);
  await rig.save(15, { keep: 2 });
  assertEquals(listSteps(rig.folder), [10, 15]);
  await rig.save(16, { keep: 1 });
  assertEquals(rig.names(), [
    "meta_000016.json",
    "model_000016.safetensors",
    TOKENIZER_FILE,
    "optim_000016_rank0.safetensors",
  ]);
});

Deno.test("saveCheckpoint() killed at any write leaves the checkpoint before, and the next save cleans up", async () => {
  for (let stop = 0; stop < 3; stop++) {
    using rig = new Rig();
    await rig.save(1);
    const real = nativeIo(rig);
    let writes = 0;
    const io: CheckpointIo = {
      ...real,
      write: (path, content) => {
        if (writes++ < stop) return real.write(path, content);
        Deno.writeTextFileSync(`${path}.123.tmp`, "half");
        return Promise.reject(new Error("killed"));
      },
    };
    await assertRejects(() => rig.save(2, { io }), Error, "killed");
    assertEquals(findCheckpoint(rig.folder)?.step, 1);
    assertEquals(rig.names().filter((name) => name.endsWith(".tmp")).length, 1);
    await rig.save(3);
    assertEquals(rig.names().filter((name) => name.includes("000002")), []);
    assertEquals(findCheckpoint(rig.folder)?.step, 3);
    using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder });
    await mapped.verify();
  }
});

Deno.test("saveCheckpoint() takes a step that is written again for no checkpoint until it is whole", async () => {
  using rig = new Rig();
  await rig.save(1);
  await rig.save(2);
  const io: CheckpointIo = { ...nativeIo(rig), write: () => Promise.reject(new Error("killed")) };
  await assertRejects(() => rig.save(2, { io }), Error, "killed");
  assertEquals(findCheckpoint(rig.folder)?.step, 1);
  await rig.save(2);
  assertEquals(findCheckpoint(rig.folder)?.step, 2);
});

Deno.test("saveCheckpoint() on a full disk keeps the last good one, tries again and then stops", async () => {
  using rig = new Rig();
  await rig.save(1);
  const real = nativeIo(rig);
  const pauses: number[] = [];
  const pause = (ms: number) => Promise.resolve(void pauses.push(ms));
  let fail = 2;
  const io: CheckpointIo = {
    freeBytes: real.freeBytes,
    write: (path, content) =>
      path.includes("optim") && fail-- > 0
        ? Promise.reject(new Error("Cannot write: the disk is full (No space left on device (os error 28))"))
        : real.write(path, content),
  };
  await rig.save(2, { io, pause, retryMs: [5000, 600_000] });
  assertEquals(pauses, [5000, 600_000]);
  assertStringIncludes(rig.warnings[0], "the checkpoint of step 1 is kept; trying again in 5 s");
  assertStringIncludes(rig.warnings[1], "trying again in 600 s");
  assertEquals(findCheckpoint(rig.folder)?.step, 2);
  fail = 3;
  const error = await assertRejects(
    () => rig.save(3, { io, pause, retryMs: [1, 1] }),
    CheckpointError,
    "full after 3 attempts and the checkpoint of step 2 is kept",
  );
  assertEquals(error.problem, "disk");
  assertEquals(rig.names().filter((name) => name.includes("000003")), []);
  fail = 2;
  await rig.save(4, { io, pause });
  assertEquals(pauses.slice(-2), [10_000, 60_000], "pauses where none are given");
});

Deno.test("saveCheckpoint() without room for the whole step writes nothing of it", async () => {
  using rig = new Rig();
  await rig.save(1);
  const before = rig.names();
  const io: CheckpointIo = { ...nativeIo(rig), freeBytes: () => 100 };
  const message = "the disk is full after 2 attempts and the checkpoint of step 1 is kept";
  await assertRejects(
    () => rig.save(2, { io, retryMs: [1], pause: () => Promise.resolve() }),
    CheckpointError,
    message,
  );
  assertEquals(rig.names(), before);
});

Deno.test("checkSpace() compares the free bytes with the next checkpoint", () => {
  using rig = new Rig();
  const [model, optimizer] = [[rig.tensor("a", [1000], 0)], [rig.tensor("b", [10], 0)]];
  const needed = checkpointBytes(model, optimizer);
  assertEquals(needed, 4000 + 40 + 4 * 2 ** 20);
  assertEquals(checkpointBytes(model, optimizer, 3), 4000 + 3 * 40 + 4 * 2 ** 20);
  const io = (free: number): CheckpointIo => ({ ...nativeIo(rig), freeBytes: () => free });
  checkSpace({ folder: rig.folder, model, optimizer, io: io(needed) });
  assertThrows(() => checkSpace({ folder: rig.folder, model, optimizer, io: io(needed - 1) }), CheckpointError, "free");
  checkSpace({ folder: rig.folder, model, optimizer, io: io(needed - 9), reclaimed: 9 });
  checkSpace({ folder: rig.folder, model, optimizer, io: nativeIo(rig) });
});

Deno.test("saveCheckpoint() keeps the tokenizer and refuses another by name", async () => {
  using rig = new Rig();
  await rig.save(1);
  const found = findCheckpoint(rig.folder)!;
  checkTokenizer(found);
  checkTokenizer(found, rig.tokenizerFolder);
  Deno.writeTextFileSync(join(rig.tokenizerFolder, TOKENIZER_FILE), "{ }");
  const error = assertThrows(() => checkTokenizer(found, rig.tokenizerFolder), CheckpointError, "expected SHA-256");
  assertEquals(error.problem, "tokenizer");
  await assertRejects(() => rig.save(2), CheckpointError, rig.tokenizerFolder);
  assertEquals(findCheckpoint(rig.folder)?.step, 1);
  Deno.removeSync(join(rig.tokenizerFolder, TOKENIZER_FILE));
  await assertRejects(() => rig.save(2), CheckpointError, 'run "nanochat tokenizer train"');
  assertThrows(() => checkTokenizer(found, rig.tokenizerFolder), CheckpointError, "is missing");
  await rig.save(2, { tokenizerFolder: null });
  for (const step of [1, 2]) removeStep(rig.folder, step);
  Deno.writeTextFileSync(join(rig.tokenizerFolder, TOKENIZER_FILE), "{  }");
  await rig.save(1); // nobody uses the old copy any more
  checkTokenizer(findCheckpoint(rig.folder)!, rig.tokenizerFolder);
  checkTokenizer(findCheckpoint(rig.folder)!);
  await rig.save(2, { tokenizerFolder: null });
  checkTokenizer(findCheckpoint(rig.folder)!, rig.tokenizerFolder);
});

Deno.test("saveCheckpoint() without optimizer state writes no file for it", async () => {
  using rig = new Rig();
  const meta = await rig.save(3, { optimizer: [] });
  assertEquals(meta?.files.map(({ name }) => name), ["model_000003.safetensors"]);
  assertEquals(rig.names().filter((name) => name.startsWith("optim")), []);
  using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder });
  assertEquals([mapped.step, mapped.optimizer.size], [3, 0]);
  const open = () => new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, rank: 0 });
  assertThrows(open, CheckpointError, "Cannot open optim_000003_rank0.safetensors");
});

Deno.test("a checkpoint without its optimizer files serves its model, and is not resumed from", async () => {
  using rig = new Rig();
  await rig.save(1);
  await rig.save(2);
  Deno.removeSync(join(rig.folder, fileNames(2).optimizer(0)));
  assertEquals(findCheckpoint(rig.folder)?.step, 1);
  assertEquals(findCheckpoint(rig.folder, { modelOnly: true })?.step, 2);
  using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder });
  assertEquals(mapped.step, 2);
  await mapped.verify();
  const open = () => new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, step: 2, rank: 0 });
  assertThrows(open, CheckpointError, "optim_000002_rank0.safetensors is missing");
  Deno.removeSync(join(rig.folder, fileNames(2).model));
  assertEquals(findCheckpoint(rig.folder, { modelOnly: true })?.step, 1);
});

Deno.test("removeUnfinished() removes what a crash left and nothing of the current step or of others", async () => {
  using rig = new Rig();
  await rig.save(1);
  const whole = rig.names();
  const left = [
    "model_000002.safetensors",
    "optim_000002_rank3.safetensors",
    "model_000001.safetensors.77.tmp",
    "meta_000002.json.77.tmp",
    `${TOKENIZER_FILE}.77.tmp`,
  ];
  const kept = ["model_000005.safetensors.77.tmp", "optim_000005_rank1.safetensors", "mine.tmp", "model.safetensors"];
  for (const name of [...left, ...kept]) Deno.writeTextFileSync(join(rig.folder, name), "");
  Deno.mkdirSync(join(rig.folder, "model_000003.safetensors"));
  removeUnfinished(rig.folder, 5);
  assertEquals(rig.names(), [...whole, ...kept, "model_000003.safetensors"].sort());
});

Deno.test("describeSteps() lists few steps and counts many", () => {
  assertEquals(describeSteps([7]), "step 7");
  assertEquals(describeSteps([7, 8]), "steps 7 and 8");
  assertEquals(describeSteps([1, 2, 3, 4, 5, 6]), "steps 1, 2, 3, 4, 5 and 6");
  assertEquals(describeSteps([1, 2, 3, 4, 5, 6, 9]), "7 steps from 1 to 9");
});

Deno.test("clearCheckpoints() removes checkpoints and nothing else; the next save replaces their tokenizer", async () => {
  using rig = new Rig();
  await rig.save(1);
  await rig.save(2);
  Deno.writeTextFileSync(join(rig.folder, "notes.txt"), "mine");
  Deno.writeTextFileSync(join(rig.folder, "model_000003.safetensors"), "orphan");
  clearCheckpoints(rig.folder);
  assertEquals(rig.names(), [TOKENIZER_FILE, "notes.txt"]);
  Deno.writeTextFileSync(join(rig.tokenizerFolder, TOKENIZER_FILE), "another");
  await rig.save(1);
  assertEquals(Deno.readTextFileSync(join(rig.folder, TOKENIZER_FILE)), "another");
});

Deno.test("several ranks: every rank writes its optimizer, rank 0 the rest", async () => {
  using rig = new Rig();
  const one = rig.tensor("wte.m", [4], 1);
  let sent: Parameters<NonNullable<SaveOptions["ranks"]>["gather"]>[0] | undefined;
  const last = await rig.save(5, {
    optimizer: [one],
    ranks: { rank: 1, worldSize: 2, gather: (mine) => Promise.resolve([sent = mine]) },
  });
  assertEquals(last, undefined);
  assertEquals(findCheckpoint(rig.folder), undefined);
  await rig.save(5, { ranks: { rank: 0, worldSize: 2, gather: (mine) => Promise.resolve([mine, sent!]) } });
  assertEquals(readMeta({ folder: rig.folder, step: 5 }).files.map(({ name }) => name), [
    "model_000005.safetensors",
    "optim_000005_rank0.safetensors",
    "optim_000005_rank1.safetensors",
  ]);
  using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, rank: 1 });
  await mapped.verify();
  const into = rig.tensor("wte.m", [4], 0);
  loadTensors(rig, { from: mapped.optimizer, into: [into], what: "the optimizer" });
  assertEquals(await rig.read(into), await rig.read(one));
});

Deno.test("MappedCheckpoint survives 2,000 seeded mutations of the model file with one CheckpointError or intact bytes", async () => {
  using rig = new Rig();
  await rig.save(1);
  const path = join(rig.folder, fileNames(1).model);
  const whole = Deno.readFileSync(path);
  const edit = fc.record({ at: fc.nat(whole.length - 1), byte: fc.nat(255) });
  const before = Deno.memoryUsage().rss;
  let refused = 0;
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), fc.nat(whole.length * 5), (edits, length) => {
      const bytes = whole.slice(0, length);
      for (const { at, byte } of edits) if (at < bytes.length) bytes[at] = byte;
      // A new file in its place, as a foreign program would leave it; a mapped one must not be cut.
      Deno.writeFileSync(`${path}.new`, bytes);
      Deno.renameSync(`${path}.new`, path);
      try {
        using mapped = new MappedCheckpoint({ nc: rig.nc, ctx: rig.ctx, folder: rig.folder, step: 1 });
        for (const tensor of mapped.tensors.values()) readMemory(rig, tensor);
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error;
        refused++;
      }
    }),
    { numRuns: 2000, seed: SEED },
  );
  assert(refused > 500, `only ${refused} were refused`);
  assert(Deno.memoryUsage().rss - before < 2 * whole.length + 64 * 1024 * 1024);
});
