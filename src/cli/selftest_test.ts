import { assertStringIncludes } from "@std/assert";
import { selftestTable } from "./selftest_command.ts";

Deno.test("selftestTable() shows the error of each operation and why one failed", () => {
  const text = selftestTable([
    { op: "add", dtype: "f32", error: 0.25, problem: null },
    { op: "kv_append", dtype: "bf16", error: null, problem: null },
    { op: "rmsnorm_fwd", dtype: "bf16", error: Infinity, problem: "the results are wrong" },
  ], { name: "A card", kind: "cuda" });
  for (
    const line of [
      "A card against the CPU library",
      "add                  fp32     0.250  ok",
      "kv_append            bf16         -  ok",
      "rmsnorm_fwd          bf16       inf  FAILED: the results are wrong",
    ]
  ) assertStringIncludes(text, line);
});
