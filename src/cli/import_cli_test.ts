import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { ROOT } from "../../dev/setup.ts";
import { call, torchFile } from "../interop/torch_testing.ts";

const GOLDEN = join(ROOT, "dev", "golden", "upstream_checkpoint");
const SHARDS = join(ROOT, "dev", "golden", "dataloader", "base_data");

/** Lists all files below a folder. */
function filesOf(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesOf(join(folder, name)).map((file) => `${name}/${file}`) : [name]
  ).sort();
}

Deno.test("nanochat import brings the reference's models in: they are listed, answer, and training goes on", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    const run = async (args: string[], code = 0) => {
      const ended = await nanochat(args, { env });
      assertEquals(ended.code, code, ended.output);
      return ended.output;
    };
    const base = join(GOLDEN, "base_checkpoints", "d4");
    const output = await run(["import", base]);
    for (const part of ["Imported base/d4 at step 40", "validation 1.4719", "AdamW's moments", "500 tokens, SHA-256"]) {
      assertStringIncludes(output, part);
    }
    const sft = await run(["import", join(GOLDEN, "chatsft_checkpoints", "d4", "model_000007.pt"), "--model-tag=mine"]);
    assertStringIncludes(sft, "Imported sft/mine at step 7");
    const models = await run(["models"]);
    for (const part of [/^base\/d4 +step 40 /m, /^sft\/mine +step 7 /m]) assert(part.test(models), models);
    // Out to Hugging Face and in again: the same answers and the same tokenizer.
    await run(["export", "hf", "--source=sft", `--out=${join(folder, "hf")}`]);
    assertStringIncludes(await run(["import", join(folder, "hf")], 1), "expected --source=");
    await run(["import", join(folder, "hf"), "--source=sft", "--model-tag=again"]);
    const [mine, again] = await Promise.all(["mine", "again"].map(async (tag) => {
      const [meta] = [...Deno.readDirSync(join(folder, "base", "checkpoints", "sft", tag))]
        .filter(({ name }) => name.startsWith("meta_"));
      const text = Deno.readTextFileSync(join(folder, "base", "checkpoints", "sft", tag, meta.name));
      const { tokenizer, config } = JSON.parse(text);
      const chat = ["chat", "--temperature=0", "--quiet", "--prompt=Why is the sky blue?", `--model-tag=${tag}`];
      return { tokenizer, config, answer: await run([...chat, "--max-tokens=24"]) };
    }));
    assertEquals(again, mine);
    const trained = await run([
      ...["train", "--depth=4", "--resume", "--num-iterations=42", "--threads=1", `--data-dir=${SHARDS}`],
      ...["--eval-every=-1", "--sample-every=-1"],
    ]);
    assertStringIncludes(trained, "base/d4: step 42 of 42");

    assertStringIncludes(await run(["import", base], 3), "it holds step 40, expected none");
    assertStringIncludes(await run(["import", base, "--overwrite"]), "Imported base/d4 at step 40");
    assertStringIncludes(await run(["import", join(GOLDEN, "tokenizer")]), "Imported a tokenizer of 500 tokens");
    assertStringIncludes(await run(["import", GOLDEN], 1), `"nanochat import ${base}"`);
    assertStringIncludes(await run(["import", join(folder, "base", "checkpoints", "base", "d4")], 1), "this program");
    assertStringIncludes(await run(["import", join(folder, "nothing")], 1), "Cannot import");
  }));

Deno.test("nanochat import leaves nothing behind of files that it refuses", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    const from = join(folder, "from");
    Deno.mkdirSync(from);
    for (const name of ["model_000040.pt", "meta_000040.json", "optim_000040_rank0.pt"]) {
      Deno.copyFileSync(join(GOLDEN, "base_checkpoints", "d4", name), join(from, name));
    }
    const refuse = async (args: string[], message: string, expected = 1) => {
      const { code, output } = await nanochat(["import", from, ...args], { env });
      assertEquals(code, expected, output);
      assertStringIncludes(output, message);
      const left = filesOf(folder).filter((name) => name.startsWith("base/") && !name.endsWith("/lock"));
      assertEquals(left, []);
    };
    const tokenizer = `--tokenizer-dir=${join(GOLDEN, "tokenizer")}`;
    await refuse([tokenizer], "the files do not say the stage, expected --source=base|mid|sft|rl");
    await refuse(["--source=base"], "choose its folder with --tokenizer-dir");
    const bytes = Deno.readFileSync(join(from, "optim_000040_rank0.pt"));
    bytes[bytes.length >> 1] ^= 1;
    Deno.writeFileSync(join(from, "optim_000040_rank0.pt"), bytes);
    await refuse(["--source=base", tokenizer], "its CRC-32 is");
    const evil = call("os", "system", [`touch ${join(folder, "base", "evil")}`]);
    Deno.writeFileSync(join(from, "model_000040.pt"), await torchFile(evil));
    await refuse(["--source=base", tokenizer], 'it names "os.system", which could run a program', 3);
  }));
