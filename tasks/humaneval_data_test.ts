/** Every solution of HumanEval in the sandbox: the given ones pass, changed ones fail. */
import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { type Execution, PythonPool } from "../src/engine/execution.ts";
import { loadHumanEval, programOf } from "./humaneval.ts";

const DATA = Deno.env.get("NANOCHAT_DATA") ?? "";
const ignore = !existsSync(join(DATA, "tasks", "humaneval"));
if (ignore) console.log("skipped: tasks/humaneval is absent; set NANOCHAT_DATA");

/** Runs a program for each problem of the data, made from its own answer. */
async function runAll(change: (answer: string, name: string) => string): Promise<[name: string, Execution][]> {
  await using pool = await PythonPool.open({ timeoutMs: 20_000 }); // the limit of 5 s is for a machine that does nothing else
  const task = await loadHumanEval(join(DATA, "tasks"), { run: () => false });
  return await Promise.all(Array.from({ length: task.length }, async (_, i) => {
    const problem = task.conversation(i);
    const name = (problem as unknown as { entry_point: string }).entry_point;
    const answer = change(problem.messages[1].content as string, name);
    return [name, await pool.run(programOf(problem, answer))] as [string, Execution];
  }));
}

Deno.test({
  name: "PythonPool passes every canonical solution of HumanEval",
  ignore,
  fn: async () => {
    const start = performance.now();
    const results = await runAll((answer) => answer);
    console.log(`${results.length} programs in ${((performance.now() - start) / 1000).toFixed(1)} s`);
    assert(results.length >= 131, `${results.length} problems`);
    assertEquals(results.filter(([_, { kind }]) => kind !== "ok"), []);
  },
});

Deno.test({
  name: "PythonPool fails every solution of HumanEval that was changed",
  ignore,
  fn: async () => {
    const changes: ((answer: string, name: string) => string)[] = [
      // Another value, or none; and an end that is not a pass.
      (answer, name) => `${answer}\n\n_right = ${name}\ndef ${name}(*args):\n    return [_right(*args)]\n`,
      (answer, name) => `${answer}\n\ndef ${name}(*args):\n    raise SystemExit(0)\n`,
    ];
    for (const change of changes) {
      const results = await runAll(change);
      const kinds = new Set(results.map(([_, { kind }]) => kind));
      assertEquals(results.filter(([_, { kind }]) => kind === "ok"), []);
      assert(kinds.has("assertion") || kinds.has("error"), [...kinds].join());
    }
  },
});
