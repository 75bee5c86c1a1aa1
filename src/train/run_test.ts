import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { foldersOf } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { fakeCheckpoint } from "../model/checkpoint_testing.ts";
import type { Recipe } from "./recipes.ts";
import { type RunContext, runRecipe } from "./run.ts";
import { type Figures, readRecords } from "./run_record.ts";

const RECIPE: Recipe = {
  about: "waits",
  data: "shared",
  next: "nanochat chat",
  stages: [
    { name: "shards", command: "data download", background: true },
    { name: "first", command: "eval bpb" },
    { name: "second", command: "eval bpb", needs: ["shards"] },
  ],
};

/** What a stage does between its beginning and its end; "stopped" where the user stopped it. */
type Work = (name: string) => Promise<unknown> | unknown;

interface FakeOptions extends Pick<Partial<RunContext>, "from" | "stop" | "result"> {
  readonly work?: Work;
  /** Figures of each stage. */
  readonly figures?: Readonly<Record<string, Figures>>;
}

/** Runs RECIPE with stages that only say when they begin and end. */
function fake(base: string, { work = () => {}, figures = {}, ...options }: FakeOptions = {}) {
  const said: string[] = [];
  const cx: RunContext = {
    ...{ base, log: SILENT, stop: new AbortController().signal, result: () => {}, recipes: { fake: RECIPE } },
    ...options,
    async execute({ name }, { dataDir, isResumed }) {
      said.push(`${name} ${isResumed ? "goes on" : "begins"}`);
      if (await work(name) === "stopped") return { stopped: true, figures: {} };
      if (name === "shards") {
        Deno.mkdirSync(dataDir, { recursive: true });
        for (const i of [0, 1]) Deno.writeTextFileSync(join(dataDir, `${i}.parquet`), "");
      }
      said.push(`${name} ends`);
      return { stopped: false, figures: figures[name] ?? {} };
    },
  };
  return { said, summary: runRecipe("fake", cx) };
}

Deno.test("runRecipe() lets a background stage go on beside others and waits for it where it is needed", async () => {
  using folder = temporaryFolder();
  const firstEnds = Promise.withResolvers<void>();
  const work: Work = async (name) => {
    if (name === "shards") await firstEnds.promise;
    if (name === "first") setTimeout(() => firstEnds.resolve());
  };
  const { said, summary } = fake(folder.path, { work });
  await summary;
  const expected = ["shards begins", "first begins", "first ends", "shards ends", "second begins", "second ends"];
  assertEquals(said, expected);
  assertEquals(Deno.statSync(join(folder.path, "data", "0.parquet")).isFile, true, "shards are shared");

  const again = fake(folder.path, { from: "first" });
  await again.summary;
  assertEquals(again.said, ["first begins", "first ends", "second begins", "second ends"]);
  await assertRejects(() => fake(folder.path, { from: "third" }).summary, RangeError, "shards, first, second");
});

Deno.test("runRecipe() fails with a background stage before the stage that needs it", async () => {
  using folder = temporaryFolder();
  const work: Work = (name) => {
    if (name === "shards") throw new Error("no network");
  };
  const { said, summary } = fake(folder.path, { work });
  await assertRejects(() => summary, Error, "no network");
  assertEquals(said, ["shards begins", "first begins", "first ends"]);
});

for (const end of ["fails", "is stopped"]) {
  Deno.test(`runRecipe() ends at once where a stage ${end} beside a background stage, and takes both up again`, async () => {
    using folder = temporaryFolder();
    const killed = Promise.withResolvers<"stopped">();
    const work: Work = (name) => {
      if (name === "shards") return killed.promise; // goes on for as long as the process does
      if (end === "fails") throw new Error("no memory");
      return "stopped";
    };
    const { said, summary } = fake(folder.path, { work });
    if (end === "fails") await assertRejects(() => summary, Error, "no memory");
    else assertEquals((await summary).stopped, true);
    assertEquals(said, ["shards begins", "first begins"]);
    const { shards, first } = readRecords(foldersOf(folder.path, "fake"));
    assertEquals([shards.finished, first.finished], [undefined, undefined]);
    killed.resolve("stopped");

    const again = fake(folder.path);
    await again.summary;
    assertEquals(again.said.filter((line) => line.startsWith("shards")), ["shards goes on", "shards ends"]);
    assertEquals(again.said.filter((line) => line.startsWith("first")), ["first goes on", "first ends"]);
  });
}

Deno.test("runRecipe() begins an interrupted training again where it has saved nothing itself", async () => {
  using folder = temporaryFolder();
  const recipe: Recipe = { about: "trains", data: "own", next: "", stages: [{ name: "base", command: "train" }] };
  const model = join(foldersOf(folder.path, "one").checkpoints, "base", "d2");
  const resumed: boolean[] = [];
  const call = async (work: () => unknown) => {
    const execute = (_: unknown, { isResumed }: { isResumed: boolean }) => {
      resumed.push(isResumed);
      work();
      return Promise.resolve({ stopped: true, figures: {} });
    };
    const cx = { base: folder.path, log: SILENT, stop: new AbortController().signal, result: () => {}, execute };
    await runRecipe("one", { ...cx, recipes: { one: recipe } });
  };
  fakeCheckpoint(model, { step: 9, savedAt: "2025-12-01T00:00:00.000Z" }); // of a run that this one replaces
  await call(() => {});
  await call(() => fakeCheckpoint(model, { step: 10, savedAt: "3025-12-01T00:00:00.000Z" }));
  await call(() => {});
  assertEquals(resumed, [false, false, true]);
});

Deno.test("runRecipe() begins no stage after a stop, also where the one at work did not hear of it", async () => {
  using folder = temporaryFolder();
  const stop = new AbortController();
  const { said, summary } = fake(folder.path, { stop: stop.signal, work: (name) => name === "first" && stop.abort() });
  assertEquals((await summary).stopped, true);
  assertEquals(said, ["shards begins", "first begins", "shards ends", "first ends"]);
  assertEquals(typeof readRecords(foldersOf(folder.path, "fake")).first.finished, "string");
});

Deno.test("runRecipe() is stopped where a background stage was, before the stage that needs it", async () => {
  using folder = temporaryFolder();
  const { said, summary } = fake(folder.path, { work: (name) => name === "shards" ? "stopped" : undefined });
  assertEquals((await summary).stopped, true);
  assertEquals(said, ["shards begins", "first begins", "first ends"]);
});

Deno.test("runRecipe() shows what each stage scored, and gives the figures of the last one that has them", async () => {
  using folder = temporaryFolder();
  const shown: string[] = [];
  const figures = { first: { core: -0.1, sums_acc: 0.25, step: 3 }, second: { sums_acc: 0.5, spelling_acc: 1 } };
  const { summary } = fake(folder.path, { figures, result: (text) => void shown.push(text) });
  const { total_sec: _, ...last } = (await summary).figures;
  assertEquals(last, { core: -0.1, sums_acc: 0.5, spelling_acc: 1, step: 3 });
  assertEquals(shown.at(-1)!.split("\n").slice(-4).map((line) => line.split(/ {2,}/)), [
    ["", "first", "second"],
    ["core", "-0.1000", "-"],
    ["sums", "25.0 %", "50.0 %"],
    ["spelling", "-", "100.0 %"],
  ]);
});

Deno.test("runRecipe() names the recipes when it is given another name", async () => {
  const execute = () => Promise.reject(new Error("no stage is run"));
  const cx = { base: "/nowhere", log: SILENT, stop: new AbortController().signal, result: () => {}, execute };
  const size = await assertRejects(() => runRecipe("d4", cx), RangeError, "\n  nanochat run tiny  ");
  assertStringIncludes(size.message, '"nanochat train --depth=4"');
  assertStringIncludes(size.message, '"nanochat chat --model-tag=d4"');
  await assertRejects(() => runRecipe("constructor", cx), RangeError, 'type "nanochat chat"');
});
