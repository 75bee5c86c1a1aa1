import { assertAlmostEquals, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { bootstrapInterval } from "./interval.ts";
import { ResultLog } from "./result_log.ts";

Deno.test("bootstrapInterval() agrees with the normal approximation where that holds", () => {
  const [low, high] = bootstrapInterval([{ right: 3000, total: 10_000 }], ([accuracy]) => accuracy);
  // Percentiles of 2,000 resamples scatter by 3 % of the width.
  const half = 1.96 * Math.sqrt(0.3 * 0.7 / 10_000);
  assertAlmostEquals(low, 0.3 - half, 1e-3);
  assertAlmostEquals(high, 0.3 + half, 1e-3);
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [low4, high4] = bootstrapInterval(Array(4).fill({ right: 3000, total: 10_000 }), mean);
  assertAlmostEquals((high4 - low4) / (high - low), 0.5, 0.05);
});

Deno.test("bootstrapInterval() gives a point where every answer is equal, and the same interval each time", () => {
  assertEquals(bootstrapInterval([{ right: 0, total: 50 }], ([accuracy]) => accuracy), [0, 0]);
  assertEquals(bootstrapInterval([{ right: 50, total: 50 }], ([accuracy]) => accuracy), [1, 1]);
  const once = () => bootstrapInterval([{ right: 1, total: 3 }], ([accuracy]) => accuracy);
  assertEquals(once(), once());
});

Deno.test("ResultLog keeps whole lines in front of a damaged one, and begins anew under another head", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "new", "results.jsonl");
  const open = (head: string) => new ResultLog<number>(path, { head });
  {
    using log = open("a é");
    log.add(1);
    log.add(2);
  }
  Deno.writeTextFileSync(path, "3x\n4\n", { append: true });
  {
    using log = open("a é");
    assertEquals(log.found, [1, 2]);
    log.add(5);
  }
  {
    using log = open("a é");
    assertEquals(log.found, [1, 2, 5]);
  }
  {
    using log = open("b");
    assertEquals(log.found, []);
  }
  using log = open("b");
  log.remove();
  assertEquals([...Deno.readDirSync(join(folder.path, "new"))], []);
});
