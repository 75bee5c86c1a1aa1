import { assertEquals } from "@std/assert";
import { countStep, kindOf, readCargo, readDeno, readOwn, tiersOf } from "./test.ts";
import { countLines } from "./size.ts";

Deno.test("readDeno() reads passed, failed and ignored tests", () => {
  assertEquals(readDeno("x ... ok (1ms)\n\nok | 3 passed | 0 failed (12ms)\n"), { passed: 3, failed: 0, skipped: 0 });
  const text = "\nFAILED | 10 passed (2 steps) | 1 failed (1 step) | 4 ignored (12ms)\n\nerror: Test failed\n";
  assertEquals(readDeno(text), { passed: 10, failed: 1, skipped: 4 });
  assertEquals(readDeno("error: Module not found"), undefined);
});

Deno.test("readCargo() adds up all test binaries", () => {
  const line = (n: number) => `test result: ok. ${n} passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; 0.01s\n`;
  assertEquals(readCargo(line(3) + "   Doc-tests x\n" + line(4)), { passed: 7, failed: 0, skipped: 2 });
});

Deno.test("readOwn() reads the last result line alone on its line", () => {
  const text =
    "gpt_tiny: 3 passed, 1 failed, 0 skipped\n1 passed, 0 failed, 0 skipped\n5 passed, 1 failed, 2 skipped\n";
  assertEquals(readOwn(text), { passed: 5, failed: 1, skipped: 2 });
});

Deno.test("countStep() counts a crash, a silent end and an uncounted failure as a failure", () => {
  assertEquals(countStep({ code: 101, output: "Segmentation fault" }, readCargo).failed, 1);
  assertEquals(countStep({ code: 0, output: "" }, readDeno).failed, 1);
  assertEquals(countStep({ code: 1, output: "ok | 3 passed | 0 failed (1ms)" }, readDeno), {
    passed: 3,
    failed: 1,
    skipped: 0,
  });
  assertEquals(countStep({ code: 0, output: "ok | 3 passed | 0 failed (1ms)" }, readDeno).failed, 0);
  assertEquals(countStep({ code: 1, output: "not formatted" }), { passed: 0, failed: 1, skipped: 0 });
});

Deno.test("kindOf() tells the tier from the file name", () => {
  assertEquals(kindOf("src/model/gpt_test.ts"), "unit");
  assertEquals(kindOf("src/tensor/ops_test.ts"), "conformance");
  assertEquals(kindOf("src/tensor/ops_inference_test.ts"), "conformance");
  assertEquals(kindOf("src/train/recipes_slow_test.ts"), "slow");
  assertEquals(kindOf("src/cli/train_cli_test.ts"), "cli");
  assertEquals(kindOf("src/server/page/chat_page_test.ts"), "page");
  assertEquals(kindOf("src/data/parquet_data_test.ts"), "data");
  assertEquals(kindOf("src/data/tokenizer_peers_test.ts"), "peers");
  assertEquals(kindOf("src/model/gpt_full_peers_test.ts"), "full_peers");
  assertEquals(kindOf("src/model/gpt.ts"), undefined);
});

Deno.test("tiersOf() takes several tiers and the quick part of one", () => {
  assertEquals(tiersOf(["test"]), ["test"]);
  assertEquals(tiersOf(["test", "peers", "quick"]), ["test", "peers quick"]);
  assertEquals(tiersOf(["peers", "quick", "ok"]), ["peers quick", "ok"]);
});

Deno.test("countLines() leaves out the tests at the end of a Rust file", () => {
  assertEquals(countLines("a.rs", "fn a() {}\nfn b() {}\n#[cfg(test)]\nmod tests {}\n"), 2);
  assertEquals(countLines("a.ts", "1;\n2;\n"), 2);
});
