import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { TOKENIZER_FILE } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { fakeCheckpoint } from "./checkpoint_testing.ts";
import { CheckpointError, fileNames } from "./meta.ts";
import { planStart, resumeFlags } from "./resume.ts";

function withFolder(test: (folder: string, log: typeof SILENT & { lines: string[] }) => void): void {
  const folder = Deno.makeTempDirSync();
  const lines: string[] = [];
  const keep = (message: string) => void lines.push(message);
  try {
    test(folder, { ...SILENT, info: keep, warn: keep, lines });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("planStart() starts afresh in an empty folder and refuses one with checkpoints, naming the ways on", () => {
  withFolder((folder, log) => {
    assertEquals(planStart({ folder, log }), undefined);
    assertEquals(planStart({ folder: join(folder, "none"), log }), undefined);
    fakeCheckpoint(folder, { step: 10 });
    const error = assertThrows(
      () => planStart({ folder, log }),
      CheckpointError,
      "it holds step 10",
    ) as CheckpointError;
    assertEquals(error.problem, "exists");
    for (const way of ["--resume", "--model-tag=NAME", "--overwrite"]) assertStringIncludes(error.message, way);
    assertEquals(log.lines, []);
  });
});

Deno.test("planStart() with --resume takes the largest step, and without a checkpoint only --resume=auto starts", () => {
  withFolder((folder, log) => {
    const error = assertThrows(() => planStart({ folder, resume: true, log }), CheckpointError, "--resume=auto");
    assertEquals((error as CheckpointError).problem, "missing");
    assertEquals(planStart({ folder, resume: "auto", log }), undefined);
    assertStringIncludes(log.lines[0], "starting from step 0");
    for (const step of [9, 20, 100]) fakeCheckpoint(folder, { step });
    assertEquals(planStart({ folder, resume: true, log })?.step, 100);
    assertEquals(planStart({ folder, resume: "auto", log })?.step, 100);
    assertEquals(log.lines.length, 1);
    assertEquals(planStart({ folder, resumeFromStep: 9, log })?.step, 9);
    assertStringIncludes(log.lines[1], "steps 20 and 100");
    assertThrows(() => planStart({ folder, resumeFromStep: 5, log }), CheckpointError, "steps 9, 20 and 100");
    for (const step of [9, 20, 100]) Deno.removeSync(join(folder, fileNames(step).model));
    assertThrows(
      () => planStart({ folder, resume: "auto", log }),
      CheckpointError,
      "steps 9, 20 and 100 cannot be used",
    );
  });
});

Deno.test("planStart() refuses to resume with another tokenizer", () => {
  withFolder((folder, log) => {
    fakeCheckpoint(folder, { step: 10 });
    const tokenizerFolder = join(folder, "tokenizer");
    const start = () => planStart({ folder, resume: true, tokenizerFolder, log });
    assertThrows(start, CheckpointError, "it is missing");
    Deno.mkdirSync(tokenizerFolder);
    Deno.writeTextFileSync(join(tokenizerFolder, TOKENIZER_FILE), "{}");
    assertEquals(start()?.step, 10);
    Deno.writeTextFileSync(join(tokenizerFolder, TOKENIZER_FILE), "{ }");
    assertEquals((assertThrows(start, CheckpointError) as CheckpointError).problem, "tokenizer");
  });
});

Deno.test("planStart() with --overwrite starts afresh beside the checkpoints, and not together with --resume", () => {
  withFolder((folder, log) => {
    fakeCheckpoint(folder, { step: 10 });
    assertThrows(() => planStart({ folder, overwrite: true, resume: true, log }), RangeError, "one of them");
    assertEquals(planStart({ folder, overwrite: true, log }), undefined);
    assertEquals([...Deno.readDirSync(folder)].length, 2);
  });
});

Deno.test("resumeFlags() keeps the checkpoint's flags and refuses every other difference with both values", () => {
  const saved = { depth: 4, "matrix-lr": 0.02, "num-iterations": 100, "eval-every": 10, "model-tag": "" };
  assertEquals(resumeFlags(saved, { given: {} }), saved);
  assertEquals(resumeFlags(saved, { given: { eval_every: 5, depth: 4 } }), { ...saved, "eval-every": 5 });
  const error = assertThrows(
    () => resumeFlags(saved, { given: { "--depth": 6, matrix_lr: 0.1, "weight-decay": 1, "model-tag": "x" } }),
    CheckpointError,
  );
  for (
    const part of [
      "--depth is 6, expected 4 as in the checkpoint",
      "--matrix-lr is 0.1, expected 0.02",
      "--weight-decay is 1, expected none",
      '--model-tag is "x", expected ""',
    ]
  ) assertStringIncludes((error as Error).message, part);
  assertThrows(() => resumeFlags({ a: [1] }, { given: { a: [2] } }), CheckpointError, "--a is [2], expected [1]");
  assertEquals(resumeFlags(saved, { given: { "model-tag": "x" }, changeable: ["model_tag"] })["model-tag"], "x");
});

Deno.test("resumeFlags() replaces the horizon as a whole", () => {
  const saved = { "num-iterations": 100, "target-flops": -1, "target-param-data-ratio": 20 };
  assertEquals(resumeFlags(saved, { given: { "target-flops": 1e15 } }), { "target-flops": 1e15 });
  assertEquals(resumeFlags({}, { given: { "num-iterations": 7 } }), { "num-iterations": 7 });
});
