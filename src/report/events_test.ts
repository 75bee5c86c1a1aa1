import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import fc from "fast-check";
import { EventLog, EVENTS_FILE, EventTail, readEvents } from "./events.ts";
import type { RunEvent } from "./events.ts";

function inFolder(test: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    test(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function step(n: number, loss = 10 - n): RunEvent {
  return { kind: "step", run: "r", step: n, loss };
}

Deno.test("EventLog writes one line per event and readEvents() gives them back", () => {
  inFolder((folder) => {
    const path = join(folder, "deep", EVENTS_FILE);
    {
      using log = EventLog.create(join(folder, "deep"));
      log.append({ kind: "eval", run: "r", step: 0, bpb: 3.25 });
      log.append({ ...step(0, 0.1 + 0.2), gradNorm: NaN, batchHash: "ab", tokPerSec: 5 });
    }
    assertEquals(Deno.readTextFileSync(path).split("\n").length, 4); // head, two lines, behind the last one
    assertEquals(readEvents(path), [
      { kind: "eval", run: "r", step: 0, bpb: 3.25 },
      { ...step(0, 0.1 + 0.2), gradNorm: null, batchHash: "ab", tokPerSec: 5 },
    ]);
  });
});

Deno.test("EventLog.hold() leaves the file as it is until release(), and then replaces it", () => {
  inFolder((folder) => {
    const path = join(folder, EVENTS_FILE);
    Deno.writeTextFileSync(path, "before");
    EventLog.hold(folder)[Symbol.dispose]();
    using log = EventLog.hold(folder);
    log.append({ kind: "eval", run: "r", step: 0, bpb: 3.25 });
    assertEquals(Deno.readTextFileSync(path), "before");
    log.release();
    log.append(step(0));
    assertEquals(readEvents(path).map(({ kind }) => kind), ["eval", "step"]);
  });
});

Deno.test("readEvents() ignores a torn last line and names any other malformed one", () => {
  inFolder((folder) => {
    const path = join(folder, EVENTS_FILE);
    const warnings: string[] = [];
    const log = { info() {}, progress() {}, warn: (message: string) => warnings.push(message) };
    const good = JSON.stringify(step(1));
    Deno.writeTextFileSync(path, `${good}\n{"kind":"ste\n${good}\n${good.slice(0, 9)}`);
    assertEquals(readEvents(path, log).length, 2);
    assertEquals(warnings.length, 1);
    assertStringIncludes(warnings[0], "line 2");
  });
});

Deno.test("EventLog.resume() marks itself and leaves no step twice, wherever the file was torn", () => {
  const original = Array.from({ length: 12 }, (_, i) => step(i));
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 12 }), fc.double({ min: 0, max: 1, noNaN: true }), (at, cut) => {
      inFolder((folder) => {
        const path = join(folder, EVENTS_FILE);
        {
          using log = EventLog.create(folder);
          for (const event of original) log.append(event);
        }
        // A crash loses the tail, but never what was written before the checkpoint of step `at`.
        const bytes = Deno.readFileSync(path);
        const lineEnds = [...bytes.keys()].filter((i) => bytes[i] === 10).map((i) => i + 1); // the first: of the head
        const length = lineEnds[at] + Math.floor(cut * (bytes.length - lineEnds[at]));
        Deno.writeFileSync(path, bytes.subarray(0, length));
        {
          using log = EventLog.resume(folder, { run: "r", step: at });
          for (const event of original.slice(at)) log.append(event);
        }
        const events = readEvents(path);
        assertEquals(events.filter(({ kind }) => kind === "step"), original);
        assertEquals(events[at], { kind: "resume", run: "r", step: at });
        assertEquals(events.length, original.length + 1);
      });
    }),
    { numRuns: 60, seed: Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 1) },
  );
});

Deno.test("EventLog.resume() keeps the measurement of its step, and writes later ones", () => {
  inFolder((folder) => {
    {
      using log = EventLog.create(folder);
      for (const event of [step(0), step(1)]) log.append(event);
      log.append({ kind: "eval", run: "r", step: 2, bpb: 1 });
      log.append(step(2));
      log.append({ kind: "end", run: "r", step: 3 });
    }
    {
      using log = EventLog.resume(folder, { run: "r", step: 2 });
      log.append({ kind: "eval", run: "r", step: 2, bpb: 1 });
      log.append(step(2));
      log.append({ kind: "eval", run: "r", step: 4, bpb: 0.5 });
    }
    const lines = readEvents(join(folder, EVENTS_FILE)).map(({ kind, step }) => `${kind} ${step}`);
    assertEquals(lines, ["step 0", "step 1", "eval 2", "resume 2", "step 2", "eval 4"]);
  });
});

Deno.test("EventLog.append() does not end a run on a full disk and says so once", () => {
  inFolder((folder) => {
    const warnings: string[] = [];
    Deno.symlinkSync("/dev/full", join(folder, EVENTS_FILE));
    const log = EventLog.create(folder, { info() {}, progress() {}, warn: (text: string) => void warnings.push(text) });
    for (const n of [0, 1, 2]) log.append(step(n));
    assertEquals(warnings.length, 1);
    assertStringIncludes(warnings[0], "No space left");
    log[Symbol.dispose]();
    assertStringIncludes(warnings[1], "Cannot write the last lines");
  });
});

Deno.test("EventTail gives whole new lines only, and starts over after a resume cut the file", () => {
  inFolder((folder) => {
    const path = join(folder, EVENTS_FILE);
    const lines = [0, 1, 2].map((n) => JSON.stringify(step(n)) + "\n");
    Deno.writeTextFileSync(path, lines[0] + lines[1].slice(0, 5));
    const tail = new EventTail(path);
    assertEquals(tail.read(), { events: [step(0)], restarted: false });
    assertEquals(tail.read(), { events: [], restarted: false });
    Deno.writeTextFileSync(path, lines[0] + lines[1]);
    assertEquals(tail.read(), { events: [step(1)], restarted: false });
    Deno.writeTextFileSync(path, lines[0] + lines[2] + lines[1]);
    assertEquals(tail.read(), { events: [step(0), step(2), step(1)], restarted: true });
    Deno.writeTextFileSync(path, lines[0]);
    assertEquals(tail.read(), { events: [step(0)], restarted: true });
  });
});

Deno.test("readEvents() survives 2,000 seeded mutations", () => {
  inFolder((folder) => {
    const path = join(folder, EVENTS_FILE);
    const bytes = new TextEncoder().encode([0, 1, 2, 3].map((n) => JSON.stringify(step(n)) + "\n").join(""));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        (edits) => {
          const mutated = bytes.slice();
          for (const [at, value] of edits) mutated[at] = value;
          Deno.writeFileSync(path, mutated);
          for (const event of readEvents(path)) assertEquals(Number.isSafeInteger(event.step), true);
        },
      ),
      { numRuns: 2000, seed: Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 1) },
    );
  });
});
