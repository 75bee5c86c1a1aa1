import { assertEquals } from "@std/assert";
import { readUse } from "./ptxas.ts";

Deno.test("readUse() reads registers, stack, spills and shared memory of each kernel", () => {
  const output = [
    "ptxas info    : 0 bytes gmem",
    "ptxas info    : Compiling entry function '_Z1av' for 'sm_80'",
    "ptxas info    : Function properties for _Z1av",
    "    24 bytes stack frame, 28 bytes spill stores, 12 bytes spill loads",
    "ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size, 2304 bytes smem",
    "ptxas info    : Compiling entry function '_Z1bv' for 'sm_80'",
    "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
    "ptxas info    : Used 32 registers, used 0 barriers",
  ].join("\n");
  assertEquals(readUse(output, "a.cu"), [
    { arch: "sm_80", file: "a.cu", symbol: "_Z1av", registers: 255, stack: 24, spilled: 40, shared: 2304 },
    { arch: "sm_80", file: "a.cu", symbol: "_Z1bv", registers: 32, stack: 0, spilled: 0, shared: 0 },
  ]);
});
