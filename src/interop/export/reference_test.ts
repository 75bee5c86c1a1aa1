/** What `export pt` writes, read again by our own import; PyTorch judges it in `reference_full_peers_test.ts`. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { nanochat } from "../../../dev/cli.ts";
import { bf16FromF32, f32FromBf16 } from "../../tensor/dtype.ts";
import { readMemory } from "../../native/files.ts";
import { openReference } from "../reference.ts";
import { STEP, withGoldenModel } from "./export_testing.ts";
import { goldenOptimizer, goldenState, kindsOf } from "./reference_testing.ts";
import { muonGroups, pythonSetOrder } from "./reference.ts";

const rounded = (values: Float32Array) => f32FromBf16(bf16FromF32(values));

for (const dtype of ["", "fp32", "bf16"]) {
  Deno.test(`export pt --dtype=${dtype || '""'} gives a folder that import reads back`, () =>
    withGoldenModel(async ({ config, device, tokenizer, weights, exported }) => {
      const folder = await exported("pt", ...(dtype ? [`--dtype=${dtype}`] : []));
      const place = join(folder, "base_checkpoints", "tiny");
      using model = await openReference(device, { folder: place });
      assertEquals([model.step, model.config, model.stage, model.tag], [STEP, config, "base", "tiny"]);
      const half = dtype !== "fp32"; // the run was told bf16
      assertEquals(model.dtype, half ? "bf16" : undefined);
      const read = (tensor: { pointer: Deno.PointerValue; bytes: number }) =>
        new Float32Array(readMemory({ nc: device.nc, ctx: device.ctx }, tensor).buffer);
      const expected = (name: string, values: Float32Array) =>
        half && name.endsWith("wte.weight") ? rounded(values) : values;
      assertEquals(model.model.map(({ name }) => name).sort(), [...weights.keys()].sort());
      for (const tensor of model.model) assertEquals(read(tensor), expected(tensor.name, weights.get(tensor.name)!));
      const names = [...weights.keys()].flatMap((name) => kindsOf(name).map((kind) => `${kind}.${name}`));
      assertEquals(model.optimizer.map(({ name }) => name).sort(), names.sort());
      for (const tensor of model.optimizer) {
        const [_, kind, name] = /^(\w+)\.(.+)$/.exec(tensor.name)!;
        assertEquals(read(tensor), expected(name, goldenState(kind, name)), tensor.name);
      }
      assertEquals(model.tokenizer!.pattern, tokenizer.pattern);
      assertEquals(model.tokenizer!.specials, Object.fromEntries(tokenizer.specials));
      assertEquals(model.tokenizer!.tokens, Array.from({ length: 491 }, (_, id) => tokenizer.token(id)));
    }, { flags: { dtype: "bf16" }, optimizer: goldenOptimizer }));
}

for (const [dtype, written] of [["bf16", "embedding in bf16"], ["f32", "(fp32, "], [undefined, "(fp32, "]]) {
  Deno.test(`export pt without --dtype takes what the run computed in: ${dtype ?? "of 0.1.0, which does not say"}`, () =>
    withGoldenModel(async ({ base }) => {
      const ended = await nanochat(["export", "pt", `--out=${join(base, "out")}`, `--base-dir=${base}`]);
      assertEquals(ended.code, 0, ended.output);
      assertStringIncludes(ended.stdout, written!);
      assertEquals(ended.stderr.includes("does not say what its run computed in"), dtype === undefined, ended.stderr);
    }, { flags: { dtype: "" }, dtype }));
}

Deno.test("export refuses damaged checkpoints, places that are taken, and none", () =>
  withGoldenModel(async ({ base, exported }) => {
    const folder = await exported("pt", "--no-optimizer");
    assertEquals([...Deno.readDirSync(join(folder, "base_checkpoints", "tiny"))].map(({ name }) => name).sort(), [
      "meta_000040.json",
      "model_000040.pt",
    ]);
    const call = (...args: string[]) => nanochat(["export", ...args, `--base-dir=${base}`]);
    const taken = await call("pt", `--out=${folder}`);
    assertEquals(taken.code, 3, taken.output);
    assertStringIncludes(taken.stderr, "--overwrite");
    assertEquals((await call("pt", `--out=${folder}`, "--overwrite")).code, 0);
    const nowhere = await call("hf");
    assertEquals(nowhere.code, 2, nowhere.output);
    assertStringIncludes(nowhere.stderr, "expected --out=PATH");
    const path = join(base, "checkpoints", "base", "tiny", "model_000040.safetensors");
    const bytes = Deno.readFileSync(path);
    bytes[bytes.length - 1] ^= 1;
    Deno.writeFileSync(path, bytes);
    const before = [...Deno.readDirSync(base)].length;
    for (const kind of ["hf", "pt", "gguf"]) {
      const damaged = await call(kind, `--out=${join(base, "new")}`);
      assertEquals(damaged.code, 1, damaged.output);
      assertStringIncludes(damaged.stderr, "differs from what was saved");
    }
    assertEquals([...Deno.readDirSync(base)].length, before);
  }));

Deno.test("pythonSetOrder() gives numbers as CPython's sets do", () => {
  // From list({...}) of CPython 3.11.
  assertEquals(pythonSetOrder([4096, 2048, 16384]), [4096, 2048, 16384]);
  assertEquals(pythonSetOrder([900, 300, 3600]), [3600, 900, 300]);
  assertEquals(pythonSetOrder([16384, 65536]), [16384, 65536]);
  assertThrows(() => pythonSetOrder([1, 2, 3, 4, 5]), RangeError);
  const shapes = [[30, 30], [10, 30], [120, 30], [30, 120]].map((shape) => ({ shape }));
  assertEquals(muonGroups(shapes).map((group) => group.length), [2, 1, 1]);
});
