import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { foldersOf } from "../data/base_dir.ts";
import { formatProblem, FORMATS } from "../data/formats.ts";
import { SILENT } from "../data/log.ts";
import { writeParquet } from "../data/parquet.ts";
import { readPrompts, writePrompts } from "../data/prompts.ts";
import { readManifest, writeManifest } from "../data/task_data.ts";
import { findCheckpoint } from "../model/checkpoint.ts";
import { readHeader, writeHeader } from "../report/environment.ts";
import { readEnvironment } from "../report/environment.ts";
import { EventLog, EVENTS_FILE, readEvents } from "../report/events.ts";
import { BASE_TRAIN_DEFAULTS } from "./base_flags.ts";
import { baseTrain } from "./base_train.ts";
import { readRecords, writeRecords } from "./run_record.ts";

const GOLDEN = join(import.meta.dirname!, "..", "..", "dev", "golden", "formats");
const VERSIONS = [...Deno.readDirSync(GOLDEN)].filter(({ isDirectory }) => isDirectory).map(({ name }) => name).sort();
/** Loss of the step behind the checkpoints, as 0.1.0 trained it, and the hashes of its batches. */
const NEXT = { loss: 4.616847, batchHash: "61682bd59655dab8,897c98e2e835421c" };

for (const version of VERSIONS) {
  Deno.test(`baseTrain() goes on with a checkpoint of version ${version}`, async () => {
    using base = temporaryFolder();
    const folders = foldersOf(base.path);
    const folder = join(folders.checkpoints, "base", "d1");
    Deno.mkdirSync(folder, { recursive: true });
    for (const { name } of Deno.readDirSync(join(GOLDEN, version))) {
      Deno.copyFileSync(join(GOLDEN, version, name), join(folder, name));
    }
    const texts = Array.from(
      { length: 60 },
      (_, i) => `The ${["fox", "bear", "crow"][i % 3]} saw ${i} of ${7 * i % 60} stones.`,
    );
    Deno.mkdirSync(folders.data);
    for (const i of [0, 1]) {
      await writeParquet(join(folders.data, `shard_0000${i}.parquet`), texts, { rowGroupSize: 20 });
    }
    const flags = { ...BASE_TRAIN_DEFAULTS, depth: 1, numIterations: 4, resume: "latest" } as const;
    const { step } = await baseTrain(flags, {
      ...{ folders, dataDir: folders.data, tokenizerDir: folder, log: SILENT, stop: new AbortController().signal },
      explicit: new Set(["depth", "numIterations", "resume"]),
    });
    assertEquals(step, 4);
    const events = readEvents(join(folder, EVENTS_FILE));
    assertEquals(events.filter(({ kind }) => kind === "step").map(({ step }) => step), [0, 1, 2, 3]);
    const last = events.findLast(({ kind }) => kind === "step")!;
    assertAlmostEquals(last.loss!, NEXT.loss, 1e-4);
    assertEquals(last.batchHash, NEXT.batchHash);
    const { meta } = findCheckpoint(folder)!;
    assertEquals([meta.step, meta.dtype], [4, "f32"]);
  });
}

/** Each file with what 0.1.0 wrote, and how it is written and read now; `read` throws or gives undefined for another version. */
const FILES: Readonly<
  Record<string, { name: string; old: string; write(folder: string): void; read(folder: string): unknown }>
> = {
  events: {
    name: EVENTS_FILE,
    old: '{"kind":"eval","run":"r","step":1}\n',
    write(folder) {
      using log = EventLog.create(folder);
      log.append({ kind: "eval", run: "r", step: 1 });
    },
    read: (folder) => readEvents(join(folder, EVENTS_FILE)),
  },
  run: {
    name: "run.json",
    old: '{"version": 1, "stages": {"base": {"key": "a", "sec": 1, "figures": {}}}}',
    write: (folder) => writeRecords(foldersOf(folder), { base: { key: "a", sec: 1, figures: {} } }),
    read: (folder) => readRecords(foldersOf(folder)),
  },
  prompts: {
    name: "prompts.json",
    old: '{"training": ["a"], "final": ["b"]}',
    write: (folder) => writePrompts(folder, { training: ["a"], final: ["b"] }),
    read: readPrompts,
  },
  taskSet: {
    name: "manifest.json",
    old: '["00000.parquet"]',
    write: (folder) => writeManifest(folder, ["00000.parquet"]),
    read: readManifest,
  },
  reportHeader: {
    name: "header.json",
    old: JSON.stringify(readEnvironment({ version: "nanochat 9" })),
    write: (folder) => writeHeader(folder, { ...readEnvironment({ version: "nanochat 9" }), started: "" }),
    read: (folder) => readHeader(folder)?.program,
  },
};

for (const [key, { name, old, write, read }] of Object.entries(FILES)) {
  Deno.test(`${name} carries format and version; without them it is one of 0.1.0, with others it is refused`, () => {
    using folder = temporaryFolder();
    const path = join(folder.path, name);
    Deno.writeTextFileSync(path, old);
    const before = read(folder.path);
    write(folder.path);
    const text = Deno.readTextFileSync(path);
    const expected = FORMATS[key as keyof typeof FORMATS];
    const head = name.endsWith("l") ? JSON.parse(text.split("\n")[0]) : JSON.parse(text);
    assertEquals(formatProblem(head, { expected }), undefined);
    assertEquals(read(folder.path), before);
    Deno.writeTextFileSync(path, text.replace(/"version": ?1/, '"version":2'));
    if (key === "reportHeader") assertEquals(read(folder.path), undefined);
    else assertThrows(() => read(folder.path), Error, "its format version is 2, expected 1");
  });
}
