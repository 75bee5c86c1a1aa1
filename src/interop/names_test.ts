import { assertEquals, assertThrows } from "@std/assert";
import { configFromDepth, parameterSpecs } from "../model/gpt.ts";
import * as names from "./names.ts";

const CONFIG = configFromDepth(4, { sequenceLen: 64, vocabSize: 500 });

Deno.test("huggingFaceNames() gives every tensor of a model another name", () => {
  const map = names.huggingFaceNames(CONFIG);
  assertEquals([...map.values()], parameterSpecs(CONFIG).map(({ name }) => name));
  assertEquals(map.get("model.layers.3.self_attn.o_proj.weight"), "transformer.h.3.attn.c_proj.weight");
  assertEquals(map.get("model.layers.0.mlp.fc2.weight"), "transformer.h.0.mlp.c_proj.weight");
  assertEquals(map.get("model.embed_tokens.weight"), "transformer.wte.weight");
  for (const name of ["transformer.h.0.attn.c_x.weight", "transformer.wpe.weight", "constructor"]) {
    assertThrows(() => names.huggingFaceName(name), RangeError, name);
  }
});

Deno.test("fromReferenceName() takes the prefix of a compiled model away", () => {
  assertEquals(names.fromReferenceName("_orig_mod.lm_head.weight"), "lm_head.weight");
  assertEquals(names.fromReferenceName("lm_head.weight"), "lm_head.weight");
});

Deno.test("fromForeignConfig() reads what toForeignConfig() gives, and names what is missing or no size", () => {
  for (const dialect of ["reference", "huggingface"] as const) {
    const theirs = names.toForeignConfig(CONFIG, dialect);
    assertEquals(names.fromForeignConfig(theirs, { dialect, what: "config" }), CONFIG);
    for (const name of Object.keys(theirs)) {
      for (const value of [undefined, 0, -1, 1.5, "4", null, 2 ** 31, [4]]) {
        const read = () => names.fromForeignConfig({ ...theirs, [name]: value }, { dialect, what: "config" });
        assertThrows(read, SyntaxError, `Cannot read config: ${name} is `);
      }
    }
  }
});
