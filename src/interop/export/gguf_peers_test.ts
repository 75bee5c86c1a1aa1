/** Exported GGUF files in the gguf package: metadata, tokenizer, exact weights, and the bytes that the package itself would write. */
import { assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { nanochat } from "../../../dev/cli.ts";
import { askPeer, peerTest } from "../../../dev/peers.ts";
import { withGoldenModel } from "./export_testing.ts";
import { checkGgufDtype, ggufName } from "./gguf.ts";
import { byteLevelVocabulary, CHAT_TEMPLATE } from "./hf_tokenizer.ts";

interface Judged {
  readonly values: Record<string, unknown>;
  readonly fileTypes: Record<string, number>;
  readonly shapes: Record<string, number[]>;
  readonly weights: Record<string, string>;
  readonly same: Record<string, number>;
  readonly architectures: string[];
}

peerTest(
  "quick",
  "the gguf package reads exported models and would write the same bytes",
  () =>
    withGoldenModel(async ({ base, config, tokenizer, weights, exported }) => {
      const files = {
        F32: await exported("gguf"),
        BF16: await exported("gguf", "--dtype=bf16"),
        Q8_0: await exported("gguf", "--dtype=q8_0"),
      };
      const judged = await askPeer<Judged>("gguf_file.py", { files });
      assertEquals(judged.fileTypes, { F32: 0, BF16: 32, Q8_0: 7 });
      const count = weights.size;
      assertEquals(judged.same, { F32: count, BF16: count, Q8_0: count });
      for (const [name, values] of weights) {
        const bytes = Uint8Array.fromBase64(judged.weights[ggufName(name)]);
        const [width, rows] = judged.shapes[ggufName(name)];
        assertEquals(new Float32Array(bytes.buffer), values.slice(0, rows * width), name);
        const isVocabulary = name === "transformer.wte.weight" || name === "lm_head.weight";
        assertEquals(rows * width, isVocabulary ? config.vocabSize * config.nEmbd : values.length);
      }
      const { tokens, merges } = byteLevelVocabulary(tokenizer);
      const specials = [...tokenizer.specials.keys()];
      const expected = {
        "general.architecture": "nanochat",
        "general.name": "base/tiny",
        "nanochat.vocab_size": config.vocabSize,
        "nanochat.context_length": config.sequenceLen,
        "nanochat.embedding_length": config.nEmbd,
        "nanochat.block_count": config.nLayer,
        "nanochat.feed_forward_length": 4 * config.nEmbd,
        "nanochat.attention.head_count": config.nHead,
        "nanochat.attention.head_count_kv": config.nKvHead,
        "nanochat.attention.layer_norm_rms_epsilon": 2 ** -23,
        "nanochat.rope.dimension_count": config.nEmbd / config.nHead,
        "nanochat.rope.freq_base": 10000,
        "nanochat.final_logit_softcapping": 15,
        "nanochat.tokenizer.split_pattern": tokenizer.pattern,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [...tokens, ...specials],
        "tokenizer.ggml.token_type": [...tokens.map(() => 1), ...specials.map(() => 3)],
        "tokenizer.ggml.merges": merges.map((pair) => pair.join(" ")),
        "tokenizer.ggml.bos_token_id": tokenizer.bosId,
        "tokenizer.ggml.eos_token_id": tokenizer.encodeSpecial("<|assistant_end|>"),
        "tokenizer.ggml.add_bos_token": true,
        "tokenizer.chat_template": CHAT_TEMPLATE,
      };
      for (const [key, value] of Object.entries(expected)) assertEquals(judged.values[key], value, key);
      // The day this fails, the warning of the command is to go.
      assertEquals(judged.architectures.filter((name) => name.includes("nanochat")), []);

      const call = (...args: string[]) => nanochat(["export", "gguf", `--base-dir=${base}`, ...args]);
      const refused = await call(`--out=${files.F32}`);
      assertEquals([refused.code, refused.stderr.includes("--overwrite")], [3, true], refused.output);
      const replaced = await call(`--out=${files.F32}`, "--overwrite", "--dtype=bf16");
      assertEquals(replaced.code, 0, replaced.output);
      assertEquals(Deno.readFileSync(files.F32), Deno.readFileSync(files.BF16));
      const foreign = join(base, "notes");
      Deno.writeTextFileSync(foreign, "mine");
      assertEquals((await call(`--out=${foreign}`, "--overwrite")).code, 3);
      assertEquals(Deno.readTextFileSync(foreign), "mine");
    }),
);

Deno.test("checkGgufDtype() refuses rows that q8_0 cannot hold", () => {
  assertThrows(() => checkGgufDtype({ nEmbd: 30 }, "q8_0"), RangeError, "--dtype=fp32");
  checkGgufDtype({ nEmbd: 30 }, "bf16");
  checkGgufDtype({ nEmbd: 64 }, "q8_0");
});
