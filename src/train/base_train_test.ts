import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { foldersOf } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { writeParquet } from "../data/parquet.ts";
import { CheckpointError } from "../model/checkpoint.ts";
import { readBundle } from "../eval/core_bundle.ts";
import { writeBundle } from "../eval/eval_testing.ts";
import { readEvents } from "../report/events.ts";
import { BASE_TRAIN_DEFAULTS, type BaseTrainFlags } from "./base_flags.ts";
import { baseTrain, type BaseTrainContext } from "./base_train.ts";
import { planHorizon } from "./horizon.ts";
import { trainTokenizer } from "./tok_train.ts";

const FLAGS: BaseTrainFlags = {
  ...BASE_TRAIN_DEFAULTS,
  depth: 2,
  dtype: "fp32",
  maxSeqLen: 32,
  deviceBatchSize: 2,
  totalBatchSize: 128,
  numIterations: 6,
  evalEvery: 3,
  evalTokens: 256,
  sampleEvery: -1,
  saveEvery: 2,
};

/** A base folder with two shards and a tokenizer, removed at the end. */
class Place implements AsyncDisposable {
  readonly folder: string;
  readonly messages: string[] = [];
  private constructor(folder: string) {
    this.folder = folder;
  }

  static async make(): Promise<Place> {
    const place = new Place(await Deno.makeTempDir());
    const { data, tokenizer } = foldersOf(place.folder);
    await Deno.mkdir(data, { recursive: true });
    const words = ["fox", "bear", "tree", "river", "stone", "cloud", "runs", "sleeps", "under", "above"];
    const texts = Array.from({ length: 300 }, (_, i) => {
      return Array.from({ length: 20 }, (_, j) => words[(i * 7 + j * j) % words.length]).join(" ") + ".";
    });
    await writeParquet(join(data, "shard_00000.parquet"), texts.slice(0, 250), { rowGroupSize: 50 });
    await writeParquet(join(data, "shard_00001.parquet"), texts.slice(250), { rowGroupSize: 50 });
    const trained = await trainTokenizer({ texts: [texts], vocabSize: 300 });
    using made = trained.tokenizer;
    await made.save(tokenizer);
    return place;
  }

  context(changes: Partial<BaseTrainContext> = {}): BaseTrainContext {
    const folders = foldersOf(this.folder);
    const log = { ...SILENT, info: (m: string) => this.messages.push(m), warn: (m: string) => this.messages.push(m) };
    const stop = new AbortController().signal;
    return { folders, dataDir: folders.data, tokenizerDir: folders.tokenizer, log, stop, ...changes };
  }

  losses(tag: string): [number, number | null | undefined][] {
    const events = readEvents(join(foldersOf(this.folder).checkpoints, "base", tag, "events.jsonl"));
    return events.filter(({ kind }) => kind === "step").map(({ step, loss }) => [step, loss]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("baseTrain() measures CORE on cadence and at the end where it has a bundle", async () => {
  await using place = await Place.make();
  const folder = join(place.folder, "eval_bundle");
  writeBundle(folder);
  const flags = { ...FLAGS, coreMetricEvery: 4, coreMetricMaxPerTask: 3 };
  await baseTrain(flags, place.context({ core: await readBundle(folder) }));
  const events = readEvents(join(foldersOf(place.folder).checkpoints, "base", "d2", "events.jsonl"));
  const measured = events.filter(({ values }) => values?.core !== undefined);
  assertEquals(measured.map(({ step }) => step), [4, 6]);
  assertEquals(place.messages.filter((message) => message.includes(": CORE ")).length, 2);
});

Deno.test("baseTrain() trains, evaluates and saves on cadence", async () => {
  await using place = await Place.make();
  const result = await baseTrain({ ...FLAGS, keep: 2 }, place.context());
  assertEquals([result.step, result.steps, result.stopped], [6, 6, false]);
  const losses = place.losses("d2");
  assertEquals(losses.map(([step]) => step), [0, 1, 2, 3, 4, 5]);
  assertAlmostEquals(losses[0][1]!, Math.log(300), 1e-3);
  assert(losses.at(-1)![1]! < losses[0][1]!);
  const names = [...Deno.readDirSync(result.folder)].map(({ name }) => name).filter((name) => name.startsWith("meta_"))
    .sort();
  assertEquals(names, ["meta_000004.json", "meta_000006.json"]);
  assert(result.valBpb !== null && result.minValBpb! <= result.valBpb);
});

Deno.test("baseTrain() resumes to the bits of an uninterrupted run, whatever the number of threads", async () => {
  await using place = await Place.make();
  await baseTrain({ ...FLAGS, modelTag: "whole" }, place.context());
  const stop = new AbortController();
  const onStep = ({ step }: { step: number }) => {
    if (step === 2) stop.abort();
  };
  const first = await baseTrain(
    { ...FLAGS, modelTag: "cut", threads: 1 },
    place.context({ onStep, stop: stop.signal }),
  );
  assertEquals([first.step, first.stopped], [3, true]);
  const explicit = new Set(["modelTag", "resume"]);
  await baseTrain({ ...BASE_TRAIN_DEFAULTS, modelTag: "cut", resume: "latest" }, place.context({ explicit }));
  assertEquals(place.losses("cut"), place.losses("whole"));
});

Deno.test("baseTrain() refuses to overwrite, to resume nothing and to resume with other numbers", async () => {
  await using place = await Place.make();
  await assertRejects(
    () => baseTrain({ ...FLAGS, resume: "latest" }, place.context()),
    CheckpointError,
    "no checkpoint",
  );
  await baseTrain(FLAGS, place.context());
  await assertRejects(() => baseTrain(FLAGS, place.context()), CheckpointError, "--resume");
  const explicit = new Set(["matrixLr", "resume"]);
  const other = () => baseTrain({ ...FLAGS, resume: "latest", matrixLr: 0.5 }, place.context({ explicit }));
  await assertRejects(other, CheckpointError, "--matrix-lr is 0.5, expected 0.02");
});

Deno.test("baseTrain() goes on beyond the old horizon when it is raised", async () => {
  await using place = await Place.make();
  await baseTrain({ ...FLAGS, numIterations: 2 }, place.context());
  const explicit = new Set(["numIterations", "resume"]);
  const result = await baseTrain({ ...FLAGS, numIterations: 4, resume: "latest" }, place.context({ explicit }));
  assertEquals(result.step, 4);
  assertEquals(place.losses("d2").map(([step]) => step), [0, 1, 2, 3]);
});

Deno.test("baseTrain() stops before the update where the loss explodes", async () => {
  await using place = await Place.make();
  const error = await assertRejects(
    () => baseTrain({ ...FLAGS, unembeddingLr: 1e38, gradClip: 0 }, place.context()),
    Error,
  );
  assert(/step \d+: the loss of micro-batch|step \d+: the losses are finite/.test(error.message), error.message);
});

Deno.test("planHorizon() takes iterations, then FLOPs, then tokens per parameter", () => {
  const config = { sequenceLen: 2048, vocabSize: 65536, nLayer: 20, nHead: 10, nKvHead: 10, nEmbd: 1280 };
  const flags = { ...BASE_TRAIN_DEFAULTS };
  assertEquals(planHorizon(config, flags).steps, 21400);
  assertEquals(planHorizon(config, flags).gradAccum, 8);
  assertEquals(planHorizon(config, { ...flags, numIterations: 7 }).steps, 7);
  assertEquals(planHorizon(config, { ...flags, targetFlops: 1e18 }).why, "--target-flops 1000000000000000000");
});
