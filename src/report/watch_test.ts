import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { deadline } from "@std/async";
import { join } from "@std/path";
import { EventLog, EVENTS_FILE, readEvents } from "./events.ts";
import type { RunEvent } from "./events.ts";
import { findWatched, listWatched, RunView, watchRun } from "./watch.ts";

const DEADLINE_MS = 20_000;

function falling(n: number): RunEvent[] {
  return Array.from({ length: n }, (_, i) => ({
    kind: "step",
    run: "test",
    step: i,
    steps: 200,
    loss: 2 + 8 * Math.exp(-i / 20),
    tokPerSec: 1000,
    timeMs: 500,
    mfu: 0.25,
    memory: 2_000_000,
  }));
}

function view(events: RunEvent[]): RunView {
  const view = new RunView();
  view.add(events);
  return view;
}

/** Rows (0 = top) of the highest dot in each column of the first plot. */
function profile(lines: string[]): number[] {
  const rows = lines.slice(2, lines.findIndex((line) => line.includes("└"))).map((
    line,
  ) => [...line.slice(line.search(/[┤│]/) + 1)]);
  const width = Math.max(...rows.map((row) => row.length));
  return Array.from({ length: width }, (_, x) => rows.findIndex((row) => (row[x] ?? " ") !== " "));
}

Deno.test("RunView draws a falling loss from the top left to the bottom right, within its size", () => {
  const lines = view(falling(100)).draw({ width: 80, height: 20 });
  assert(lines.length <= 20, `${lines.length} lines`);
  for (const line of lines) assert([...line].length <= 80, line);
  assertStringIncludes(lines[0], "run test  step 100 of 200 (50%)  50s left  loss 2.0567  1000 tok/s  MFU 25.0%");
  assertStringIncludes(lines[1], "training loss");
  assertStringIncludes(lines[2], "10.00 ┤");
  assertStringIncludes(lines.at(-1)!, "step 99");
  const heights = profile(lines);
  assertEquals(heights[0], 0);
  assertEquals(heights.at(-1), lines.length - 5);
  for (let x = 1; x < heights.length; x++) assert(heights[x] >= heights[x - 1], `rises at column ${x}`);
});

Deno.test("RunView draws bits per byte below, where there is room for it", () => {
  const events: RunEvent[] = [...falling(50), { kind: "eval", run: "test", step: 50, bpb: 1.5 }];
  const tall = view(events).draw({ width: 90, height: 30 });
  assert(tall.length <= 30);
  assertEquals(tall.filter((line) => line.includes("validation bits per byte")).length, 1);
  assertStringIncludes(tall[0], "bpb 1.5000");
  assertEquals(view(events).draw({ width: 60, height: 12 }).filter((line) => line.includes("validation")).length, 0);
});

Deno.test("RunView draws few, equal or missing values without failing, and no control characters", () => {
  assertEquals(new RunView().draw({ width: 40, height: 10 }).at(-1), "No loss has been logged yet.");
  for (const n of [1, 2, 3]) {
    const lines = view(Array.from({ length: n }, (_, step) => ({ kind: "step", run: "\x1b[31m", step, loss: 1 }))).draw(
      {
        width: 10,
        height: 3,
      },
    );
    assert(!lines.join("").includes("\x1b"));
  }
  const nothing = view([{ kind: "step", run: "r", step: 0, loss: null }]).draw({ width: 40, height: 10 });
  assertEquals(nothing.at(-1), "No loss has been logged yet.");
});

Deno.test("RunView marks a resume and forgets the steps that are computed again", () => {
  const again = falling(80).slice(60).map((event) => ({ ...event, loss: 2.5 }));
  const resumed = view([...falling(100), { kind: "resume", run: "test", step: 60 }, ...again]);
  const lines = resumed.draw({ width: 80, height: 20 });
  assertStringIncludes(lines.at(-1)!, "r = resumed");
  assertStringIncludes(lines.at(-1)!, "step 79");
  assertEquals(lines.at(-2)!.split("r").length, 2);
});

Deno.test("watchRun() draws at once, after each change, and ends with the run", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const events = falling(3);
    using log = EventLog.create(folder);
    log.append(events[0]);
    const frames = watchRun(join(folder, EVENTS_FILE), { size: () => ({ width: 60, height: 12 }), everyMs: 1 });
    const next = async () => (await deadline(frames.next(), DEADLINE_MS)).value as string[];
    assertStringIncludes((await next())[0], "step 1 of 200");
    log.append(events[1]);
    assertStringIncludes((await next())[0], "step 2 of 200");
    log.append({ kind: "end", run: "test", step: 2 });
    assertStringIncludes((await next())[0], "ended");
    assertEquals((await deadline(frames.next(), DEADLINE_MS)).done, true);
    const stop = new AbortController();
    Deno.writeTextFileSync(join(folder, EVENTS_FILE), "");
    const endless = watchRun(join(folder, EVENTS_FILE), {
      size: () => ({ width: 60, height: 12 }),
      everyMs: 1e8,
      signal: stop.signal,
    });
    await endless.next();
    const end = endless.next();
    stop.abort();
    assertEquals((await deadline(end, DEADLINE_MS)).done, true);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("findWatched() finds a run by recipe, --run, model, tag or path, and names what there is", () => {
  const base = Deno.makeTempDirSync();
  try {
    assertThrows(() => findWatched(base), Error, "no run has logged anything");
    const put = (place: string, run: string, minute: number) => {
      const folder = join(base, place);
      {
        using log = EventLog.create(folder);
        log.append({ kind: "step", run, step: 0, loss: 1 });
      }
      const time = new Date(Date.UTC(2025, 0, 1, 0, minute));
      Deno.utimeSync(join(folder, EVENTS_FILE), time, time);
    };
    put("checkpoints/base/d4", "first", 1);
    put("runs/tiny/checkpoints/base/d4", "tiny", 3);
    put("runs/tiny/checkpoints/sft/d4", "tiny", 2);
    assertEquals(listWatched(base).map(({ name }) => name), ["tiny/base/d4", "tiny/sft/d4", "base/d4"]);
    assertEquals(findWatched(base).name, "tiny/base/d4");
    assertEquals(findWatched(base, "first").name, "base/d4");
    assertEquals(findWatched(base, "base/d4").name, "base/d4");
    assertEquals(findWatched(base, "sft/d4").name, "tiny/sft/d4");
    assertEquals(findWatched(base, "tiny").name, "tiny/base/d4");
    assertEquals(findWatched(base, join(base, "checkpoints/base/d4")).run, "first");
    assertThrows(() => findWatched(base, "d5"), Error, "there are tiny/base/d4, tiny/sft/d4, base/d4");
    const later = join(base, "checkpoints/base/d4", EVENTS_FILE);
    Deno.writeTextFileSync(later, '{"format":"nanochat events","version":2}\n');
    assertEquals(findWatched(base, "sft/d4").name, "tiny/sft/d4");
    assertThrows(() => readEvents(later), SyntaxError, `Cannot read "${later}": its format version is 2, expected 1`);
  } finally {
    Deno.removeSync(base, { recursive: true });
  }
});
