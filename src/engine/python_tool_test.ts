import { assert, assertEquals } from "@std/assert";
import type { Execution } from "./execution.ts";
import { pythonTool } from "./python_tool.ts";

/** A pool that gives one verdict and keeps the programs. */
function fakePool(execution: Partial<Execution>) {
  const programs: string[] = [];
  const whole: Execution = { kind: "ok", stdout: "", stderr: "", error: "", durationMs: 1, ...execution };
  return { programs, run: (code: string) => Promise.resolve((programs.push(code), whole)) };
}

Deno.test("pythonTool() leaves to the calculator what it can do", async () => {
  const pool = fakePool({ stdout: "no" });
  const tool = pythonTool(pool);
  assertEquals(await tool("6*7"), "42");
  assertEquals(await tool("'strawberry'.count('r')"), "3");
  assertEquals(pool.programs, []);
});

Deno.test("pythonTool() shows output without its last line break, or the exception", async () => {
  assertEquals(await pythonTool(fakePool({ stdout: "1\n2\n" }))("print(1)"), "1\n2");
  assertEquals(await pythonTool(fakePool({ stdout: "" }))("x = 1"), null);
  const failed = fakePool({ kind: "error", stdout: "half", error: "ZeroDivisionError: division by zero" });
  assertEquals(await pythonTool(failed)("f(0)"), "ZeroDivisionError: division by zero");
  const long = await pythonTool(fakePool({ stdout: "x".repeat(1000) }))("print(1)");
  assertEquals(long, `${"x".repeat(400)}...`);
});

Deno.test("pythonTool() hands the text over as one literal", async () => {
  const pool = fakePool({});
  await pythonTool(pool)('print("a\\n")\n"""');
  assert(
    pool.programs[0].includes(String.raw`compile("print(\"a\\n\")\n\"\"\"", "<string>", "eval")`),
    pool.programs[0],
  );
});
