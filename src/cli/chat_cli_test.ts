import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";

/** A base folder with a model that was trained for two steps on the small world. */
async function withModel(use: (env: Record<string, string>, base: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const base = join(folder, "base");
    const env = { NANOCHAT_BASE_DIR: base };
    const train = [
      "--depth=2",
      "--max-seq-len=1024",
      "--device-batch-size=1",
      "--total-batch-size=1024",
      "--num-iterations=2",
    ];
    for (
      const args of [
        ["data", "world", "--train-documents=200", "--val-documents=40"],
        ["tokenizer", "train", "--vocab-size=320"],
        ["train", ...train, "--eval-every=-1", "--sample-every=-1"],
      ]
    ) {
      const { code, output } = await nanochat(args, { env });
      assertEquals(code, 0, output);
    }
    await use(env, base);
  });
}

Deno.test("nanochat chat completes text with a base model, saves, stops answers and leaves", () =>
  withModel(async (env, base) => {
    const once = await nanochat(["chat", "-p", "One sunny morning", "-m", "5", "-t", "0"], { env });
    assertEquals(once.code, 0, once.output);
    assertStringIncludes(once.stderr, "base/d2 at step 2");
    const again = await nanochat(["chat", "-p", "One sunny morning", "-m", "5", "-t", "0", "-q"], { env });
    assertEquals([again.stdout, again.stderr], [once.stdout, ""], "the answer alone");
    const withPython = await nanochat(["chat", "-p", "One sunny morning", "-m", "5", "-t", "0", "--tools=python"], {
      env,
    });
    assertEquals([withPython.code, withPython.stdout], [0, once.stdout], withPython.output);
    const rounded = await nanochat(["chat", "-p", "One sunny morning", "-m", "5", "-t", "0", "--quantize=int8"], {
      env,
    });
    assertEquals([rounded.code, rounded.stdout.trim() !== ""], [0, true], rounded.output);

    const path = join(base, "talk.jsonl");
    const talk = await nanochat(["chat", "-m", "5", "--seed", "4"], {
      env,
      stdin: `One sunny morning\n/stats\n/save ${path}\n/save ${path}\nno\nquit\nmore\n`,
    });
    assertEquals(talk.code, 0, talk.output);
    for (const text of ["does not answer", "5 tokens", "Saved to", "Not saved"]) {
      assertStringIncludes(talk.stderr, text);
    }
    const [question, answer] = JSON.parse(await Deno.readTextFile(path));
    assertEquals(question, { role: "user", content: "One sunny morning" });
    assertEquals(talk.stdout, `${answer.content}\n`);

    // Ctrl-C at the first words of an answer of a thousand tokens: the answer ends, the next line is read.
    let state: "opening" | "answering" | "sent" = "opening";
    const stopped = await nanochat(["chat", "-t", "0", "-m", "1000"], {
      env,
      stdin: "One sunny morning\n/stats\nexit\n",
      onOutput: (text, send) => {
        if (state === "answering") send("SIGINT");
        if (state === "answering") state = "sent";
        if (text.includes("does not answer")) state = "answering";
      },
    });
    assertEquals(stopped.code, 0, stopped.output);
    assertStringIncludes(stopped.stderr, "Stopped; what was answered stays");
    assertStringIncludes(stopped.stderr, "tokens answered");
  }));

Deno.test("nanochat eval bpb prints figures of both splits and refuses damaged and missing models", () =>
  withModel(async (env, base) => {
    const args = ["eval", "bpb", "--device-batch-size=1", "--split-tokens=2048", "--markov", "--json", "-q"];
    const { code, stdout, output } = await nanochat(args, { env });
    assertEquals(code, 0, output);
    const figures = JSON.parse(stdout.trim().split("\n").at(-1)!);
    assert(figures.train_bpb > 0 && figures.val_bpb > 0 && figures.markov2_bpb > 0, stdout);
    const rounded = await nanochat([...args, "--quantize=int8"], { env });
    const both = JSON.parse(rounded.stdout.trim().split("\n").at(-1)!);
    assertEquals([both.train_bpb, both.val_bpb], [figures.train_bpb, figures.val_bpb], rounded.output);
    assert(both.val_bpb_int8 !== both.val_bpb && Math.abs(both.val_lost_percent) < 1, rounded.stdout);
    assertAlmostEquals(both.val_bpb_int8, both.val_bpb * (1 + both.val_lost_percent / 100), 1e-9);
    const few = await nanochat(["eval", "bpb", "--split-tokens=100"], { env });
    assertEquals(few.code, 1);
    assertStringIncludes(few.stderr, "expected at least one batch");

    const missing = await nanochat(["chat", "-i", "sft", "-p", "x"], { env });
    assertEquals(missing.code, 1);
    assertStringIncludes(missing.stderr, "base/d2");
    const model = join(base, "checkpoints/base/d2/model_000002.safetensors");
    const bytes = await Deno.readFile(model);
    bytes[bytes.length - 1] ^= 1;
    await Deno.writeFile(model, bytes);
    const damaged = await nanochat(["chat", "-p", "x", "-m", "2"], { env });
    assertEquals(damaged.code, 1);
    assertStringIncludes(damaged.stderr, "differs from what was saved");
  }));

Deno.test("nanochat run names its recipes and prints their commands", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: folder };
    const unknown = await nanochat(["run", "d4"], { env });
    assertEquals(unknown.code, 2);
    assertStringIncludes(unknown.stderr, "nanochat train --depth=4");
    const { stdout } = await nanochat(["run", "tiny", "--dry-run"], { env });
    assertEquals(stdout.trim().split("\n").map((line) => line.split(/ '?--/)[0]), [
      "nanochat data world",
      "nanochat tokenizer train",
      "nanochat train",
      "nanochat eval bpb",
      ...["mid", "sft", "rl"].flatMap((stage) => [`nanochat ${stage}`, "nanochat eval chat"]),
    ]);
    assertEquals([...Deno.readDirSync(folder)].length, 0, "nothing was written");
  }));
