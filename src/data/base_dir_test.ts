import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { dirname, join } from "@std/path";
import {
  checkName,
  checkpointFolder,
  chooseData,
  chooseTokenizer,
  findForeign,
  foldersOf,
  listPlaces,
  resolveBaseDir,
  TOKENIZER_FILE,
} from "./base_dir.ts";

/** Writes an empty file dated `minute` minutes after a fixed time. */
function touch(path: string, minute: number): void {
  Deno.mkdirSync(dirname(path), { recursive: true });
  Deno.writeTextFileSync(path, "");
  const time = new Date(Date.UTC(2025, 0, 1, 0, minute));
  Deno.utimeSync(path, time, time);
}

function inFolder(test: (base: string) => void): void {
  const base = Deno.makeTempDirSync();
  try {
    test(base);
  } finally {
    Deno.removeSync(base, { recursive: true });
  }
}

Deno.test("resolveBaseDir() takes the flag, then the environment, then the home folder", () => {
  const environment = (values: Record<string, string>) => (name: string) => values[name];
  const all = { NANOCHAT_BASE_DIR: "/env", HOME: "/home/me" };
  assertEquals(resolveBaseDir("/flag", environment(all)), "/flag");
  assertEquals(resolveBaseDir(undefined, environment(all)), "/env");
  assertEquals(resolveBaseDir("", environment({ HOME: "/home/me" })), "/home/me/.cache/nanochat");
  assertEquals(resolveBaseDir("relative", environment(all)), join(Deno.cwd(), "relative"));
  assertThrows(() => resolveBaseDir(undefined, environment({})), Error, "HOME is not set");
});

Deno.test("foldersOf() and checkpointFolder() keep names inside the base folder", () => {
  assertEquals(foldersOf("/b").data, "/b/data");
  const run = foldersOf("/b", "tiny");
  assertEquals(run.tokenizer, "/b/runs/tiny/tokenizer");
  assertEquals(checkpointFolder(run, { stage: "sft", tag: "d4" }), "/b/runs/tiny/checkpoints/sft/d4");
  for (const bad of ["", "..", ".hidden", "a/b", "a\\b", "\x1b[31m", "a b", "x".repeat(101), "-x"]) {
    assertThrows(() => checkName(bad, "run"), RangeError, JSON.stringify(bad));
    assertThrows(() => foldersOf("/b", bad), RangeError);
    assertThrows(() => checkpointFolder(run, { stage: "sft", tag: bad }), RangeError);
  }
  for (const good of ["d4", "my_run-2.0", "1e3+x=y"]) assertEquals(checkName(good, "run"), good);
});

Deno.test("listPlaces() gives the base folder and then the runs, the most recent first", () => {
  inFolder((base) => {
    assertEquals(listPlaces(base).map(({ run }) => run), [undefined]);
    touch(join(base, "runs/old/checkpoints/base/d4/meta_000001.json"), 1);
    touch(join(base, "runs/new/checkpoints/base/d4/meta_000001.json"), 3);
    touch(join(base, "runs/middle/tokenizer/x.json"), 2);
    touch(join(base, "runs/old/data/shard.parquet"), 9);
    touch(join(base, "runs/.hidden/report/x"), 9);
    touch(join(base, "runs/a file"), 9);
    assertEquals(listPlaces(base).map(({ run }) => run), [undefined, "new", "middle", "old"]);
  });
});

Deno.test("chooseTokenizer() takes the flag, the base folder, then the most recent run that has one", () => {
  inFolder((base) => {
    assertThrows(() => chooseTokenizer(base), Error, 'run "nanochat tokenizer train"');
    touch(join(base, "runs/old/tokenizer", TOKENIZER_FILE), 1);
    touch(join(base, "runs/new/tokenizer", TOKENIZER_FILE), 2);
    touch(join(base, "runs/newest/report/report.md"), 3);
    const fromRun = chooseTokenizer(base);
    assertEquals([fromRun.folder, fromRun.run], [join(base, "runs/new/tokenizer"), "new"]);
    assertStringIncludes(fromRun.why, 'run "new"');
    touch(join(base, "tokenizer", TOKENIZER_FILE), 0);
    assertEquals(chooseTokenizer(base), { folder: join(base, "tokenizer"), run: undefined, why: "the base folder" });
    const given = join(base, "runs/old/tokenizer");
    assertEquals(chooseTokenizer(base, given), { folder: given, why: "--tokenizer-dir" });
    assertThrows(() => chooseTokenizer(base, join(base, "none")), Error, TOKENIZER_FILE);
  });
});

Deno.test("chooseData() wants a shard and names what the Python nanochat left", () => {
  inFolder((base) => {
    touch(join(base, "data/notes.txt"), 1);
    touch(join(base, "base_checkpoints/d20/model_000100.pt"), 1);
    touch(join(base, "base_checkpoints/empty/notes.txt"), 1);
    touch(join(base, "tokenizer/tokenizer.pkl"), 1);
    const error = assertThrows(() => chooseData(base), Error, "nanochat data make");
    assertStringIncludes((error as Error).message, "nanochat import");
    assertEquals(findForeign(base).map(({ command }) => command), [
      `nanochat import ${join(base, "base_checkpoints/d20")}`,
      `nanochat import ${join(base, "tokenizer")}`,
    ]);
    touch(join(base, "runs/tiny/data/shard_00000.parquet"), 1);
    assertEquals(chooseData(base).run, "tiny");
    touch(join(base, "data/shard_00000.parquet"), 1);
    assertEquals(chooseData(base).folder, join(base, "data"));
  });
});
