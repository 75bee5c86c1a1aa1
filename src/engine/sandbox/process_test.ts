import { assertEquals } from "@std/assert";
import { type End, explainEnd } from "./process.ts";

Deno.test("explainEnd() tells a limit of memory from other ends without a verdict", () => {
  const plain: End = { bytes: 0, exceeded: false, code: 1, signal: null, stderr: "" };
  const cases: [Partial<End>, string, string][] = [
    [{ exceeded: true, bytes: 3 }, "memory", "MemoryError: the process passed its memory limit"],
    [{ bytes: 33, code: 0 }, "error", "the process wrote something else than a verdict"],
    [{ signal: "SIGKILL" }, "memory", "MemoryError: the process died at its memory limit (SIGKILL)"],
    [
      { signal: "SIGTRAP", stderr: "# Fatal JavaScript out of memory: Reached heap limit" },
      "memory",
      "MemoryError: the process died at its memory limit (SIGTRAP)",
    ],
    [{ signal: "SIGSEGV" }, "error", "the process ended without a verdict (SIGSEGV)"],
    [{ code: 0 }, "error", "the process ended without a verdict (code 0)"],
    [{ stderr: "out of memory" }, "error", "the process ended without a verdict (code 1)"],
  ];
  for (const [end, kind, error] of cases) {
    assertEquals(explainEnd({ ...plain, ...end }), { kind, stdout: "", stderr: "", error } as never);
  }
});
