import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";

Deno.test("nanochat goes from text to shards to tokens, and never writes over shards", () =>
  withFolder(async (folder) => {
    for (let i = 0; i < 8; i++) {
      const text = `story ${i}: the fox sees \u001b[31mthe river\n`.repeat(40);
      await Deno.writeTextFile(join(folder, `${i}.txt`), text);
    }
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    const made = await nanochat(["data", "make", folder, "--json"], { env });
    assertEquals(made.code, 0, made.stderr);
    const shards = made.stdout.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(shards.reduce((sum, { documents }) => sum + documents, 0), 8);
    const stats = await nanochat(["data", "stats"], { env });
    assertStringIncludes(stats.stdout, "shard_00000.parquet");
    assert(/^total +\d+ +8 /m.test(stats.stdout), stats.stdout);
    const train = await nanochat(["tokenizer", "train", "--vocab-size=300"], { env });
    assertEquals(train.code, 0, train.stderr);
    const shown = await nanochat(["tokenizer", "show", "the fox \u001b[31m", "--json"], { env });
    const tokens = shown.stdout.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(tokens.map(({ text }) => text).join(""), "the fox \u001b[31m");
    const plain = await nanochat(["tokenizer", "show", "\u001b"], { env });
    assertEquals(plain.stdout, "27\t\u241b\n");
    const ranks = join(folder, "bytes.tiktoken");
    const line = (byte: number) => `${btoa(String.fromCharCode(byte))} ${byte}\n`;
    await Deno.writeTextFile(ranks, Array.from({ length: 256 }, (_, byte) => line(byte)).join(""));
    const measured = await nanochat(["tokenizer", "eval", `--gpt2-ranks=${ranks}`, "--json"], { env });
    assertEquals(measured.code, 0, measured.stderr);
    const figures = JSON.parse(measured.stdout);
    const kinds = ["news", "korean", "code", "math", "science", "train", "val"];
    for (const kind of kinds) assert(figures[`${kind}_bytes_per_token`] >= 1, measured.stdout);
    // Those ranks are bytes alone: what ours saves beside them follows from its own ratio.
    const saved = 100 * (1 - 1 / figures.train_bytes_per_token);
    assertAlmostEquals(figures.train_saved_percent_gpt2, saved, 1e-9);
    assert(saved > 10 && !("train_saved_percent_cl100k_base" in figures), measured.stdout);
    const tables = await Deno.readTextFile(join(env.NANOCHAT_BASE_DIR, "eval", "tokenizer_eval.md"));
    for (const kind of kinds) assertStringIncludes(tables, `| ${kind} | `);
    assertStringIncludes(tables, "### Comparison with GPT-2");
    assertStringIncludes((await nanochat(["report"], { env })).output, "card");
    const foreign = await nanochat(["tokenizer", "eval", `--gpt4-ranks=${join(folder, "0.txt")}`], { env });
    assertEquals(foreign.code, 1);
    assertStringIncludes(foreign.stderr, "Cannot read the ranks of cl100k_base");
    const again = await nanochat(["data", "make", folder], { env });
    assertEquals([again.code, again.stdout], [1, ""]);
    assertStringIncludes(again.stderr, "expected an empty folder");
  }));

Deno.test("nanochat tokenizer show renders a conversation with its mask", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: folder };
    for (const name of ["a", "b"]) await Deno.writeTextFile(join(folder, `${name}.txt`), "one two three ".repeat(30));
    assertEquals((await nanochat(["data", "make", folder], { env })).code, 0);
    assertEquals((await nanochat(["tokenizer", "train", "--vocab-size=270"], { env })).code, 0);
    const file = join(folder, "conversation.json");
    const messages = [{ role: "user", content: "one" }, { role: "assistant", content: "two" }];
    await Deno.writeTextFile(file, JSON.stringify({ messages }));
    const { code, stdout, stderr } = await nanochat(["tokenizer", "show", `--conversation=${file}`], { env });
    assertEquals(code, 0, stderr);
    const trained = stdout.trim().split("\n").map((line) => line.split("\t")).filter(([_, mask]) => mask === "1");
    assertEquals(trained.map(([_, _mask, text]) => text).join(""), "two<|assistant_end|>");
    const pretty = `\ufeff${JSON.stringify(messages, null, 2).replaceAll("\n", "\r\n")}\r\n`;
    await Deno.writeTextFile(file, pretty);
    assertEquals((await nanochat(["tokenizer", "show", `--conversation=${file}`], { env })).stdout, stdout);
    const broken: [content: string | Uint8Array, message: string][] = [
      ["{", "Expected property name"],
      ["[1]", 'expected {"messages": [...]} or a list of messages with role and content'],
      ['{"messages":[{"role":"user","content":null}]}', 'expected {"messages": [...]}'],
      [
        '[{"role":"user","content":"x"},{"role":"user","content":"y"}]',
        'message 1 is from "user", expected "assistant"',
      ],
      [Uint8Array.of(34, 233, 34), "line 1: it holds other bytes, expected UTF-8 text"],
    ];
    for (const [content, message] of broken) {
      await Deno.writeFile(file, typeof content === "string" ? new TextEncoder().encode(content) : content);
      const { code, stdout, stderr } = await nanochat(["tokenizer", "show", `--conversation=${file}`], { env });
      assertEquals([code, stdout], [1, ""]);
      assertStringIncludes(stderr, message);
    }
  }));
