import { assertEquals } from "@std/assert";
import { percent, readLcov, shortfalls } from "./coverage.ts";

Deno.test("readLcov() counts the lines of each record that can run and that ran", () => {
  const text = [
    "SF:/home/x/src/a.ts",
    "FN:1,f",
    "FNDA:3,f",
    "BRDA:2,1,0,0",
    "DA:1,3",
    "DA:2,0",
    "DA:3,10",
    "LH:2",
    "LF:3",
    "end_of_record",
    "SF:/home/x/src/b/c.ts",
    "end_of_record",
    "",
  ].join("\n");
  const files = readLcov(text, "/home/x");
  assertEquals(files, [{ file: "src/a.ts", found: 3, hit: 2 }, { file: "src/b/c.ts", found: 0, hit: 0 }]);
  assertEquals(percent(files), 200 / 3);
  assertEquals(percent([]), 100);
});

Deno.test("shortfalls() names each file below 60 % and the whole below 85 %", () => {
  const a = { file: "src/a.ts", found: 100, hit: 60 };
  const b = { file: "src/b.ts", found: 10, hit: 5 };
  const c = { file: "src/c.ts", found: 1000, hit: 900 };
  assertEquals(shortfalls([c]), []);
  assertEquals(shortfalls([a, c]), []);
  assertEquals(shortfalls([b, c]), ["src/b.ts has 50.0 %, expected at least 60 %"]);
  assertEquals(shortfalls([a]), ["src has 60.0 %, expected at least 85 %"]);
});
