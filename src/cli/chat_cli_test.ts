import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { testApp } from "../server/app_testing.ts";
import { ModelPool } from "../server/pool.ts";
import { ToyPlace } from "../server/toy_testing.ts";

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
    for (const text of ["does not answer", "last answer: 5 tokens", "Saved to", "Not saved"]) {
      assertStringIncludes(talk.stderr, text);
    }
    const [question, answer] = JSON.parse(await Deno.readTextFile(path));
    assertEquals(question, { role: "user", content: "One sunny morning" });
    assertEquals(talk.stdout, `${answer.content}\n`);

    assertEquals([...Deno.readDirSync(base)].some(({ name }) => name.includes("history")), false, "nobody typed");
    const whole = await nanochat(["chat", "-p", "-", "-m", "5", "-t", "0", "-q"], { env, stdin: "One sunny\nmorning" });
    assertEquals([whole.code, whole.stdout.trim() !== ""], [0, true], whole.output);
    const wrong = await nanochat(["chat", "-q"], { env, stdin: "/nonsense\n/stats\n" });
    assertEquals([wrong.code, wrong.stdout], [1, ""], wrong.output);
    for (
      const [args, stdin, said] of [
        [["-p", "-"], " \n", "standard input is empty"],
        [["--api-key=secret", "-p", "x"], "", "Cannot take --api-key from the command line"],
        [["--url=http://127.0.0.1:1/v1", "--step=2"], "", "Cannot use --step with --url"],
        [["--api-key-file=x"], "", "without --url"],
        [["--model=d2", "--source=base"], "", "beside --model"],
      ] as const
    ) {
      const refused = await nanochat(["chat", ...args], { env, stdin });
      assertEquals(refused.code, 2, refused.output);
      assertStringIncludes(refused.stderr, said);
      assertEquals(refused.output.includes("secret"), false);
    }

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
    assertStringIncludes(stopped.stderr, "last answer: ");
  }));

Deno.test("nanochat chat --url talks to a server with the key of a file, and says what a server refuses", () =>
  withFolder(async (folder) => {
    const asked: unknown[] = [];
    const { app } = testApp(() => ["漢字 ", "\x1b[2J", "😀"]);
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
      if (request.headers.get("authorization") !== "Bearer sesame") return new Response("no\x1b[2J", { status: 401 });
      if (request.method === "POST") asked.push(await request.clone().json());
      return app.fetch(request);
    });
    try {
      const url = `--url=http://127.0.0.1:${server.addr.port}`;
      const key = join(folder, "key");
      await Deno.writeTextFile(key, "sesame\n");
      const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
      const once = await nanochat(["chat", url, `--api-key-file=${key}`, "-p", "-", "-q"], { env, stdin: "2+2?\n" });
      assertEquals([once.code, once.stdout, once.stderr], [0, "漢字 ␛[2J😀\n", ""], once.output);
      assertEquals(asked, [{
        ...{ model: "d4", messages: [{ role: "user", content: "2+2?" }] },
        ...{ stream: true, stream_options: { include_usage: true } },
      }]);
      const stdin = "/model\n/temperature 0.1\nHello\n/model base/d4\n/stats\n";
      const talk = await nanochat(["chat", url], { env: { ...env, NANOCHAT_API_KEY: "sesame" }, stdin });
      assertEquals([talk.code, talk.stdout], [0, "漢字 ␛[2J😀\n"], talk.output);
      for (const text of ["Using d4 of", "* d4\n  base/d4", "of 512 tokens"]) assertStringIncludes(talk.stderr, text);
      const refused = await nanochat(["chat", url, "-p", "x"], { env: { ...env, NANOCHAT_API_KEY: "wrong-one" } });
      assertEquals([refused.code, refused.stdout], [1, ""]);
      assertStringIncludes(refused.stderr, "answered 401: no␛[2J; its key is read from");
      assertEquals(refused.output.includes("wrong-one"), false);
    } finally {
      await server.shutdown();
    }
  }));

Deno.test("nanochat chat says the same with a model of this machine and with the same one behind our server", async () => {
  using place = new ToyPlace();
  const chosen = await place.add({ stage: "sft", tag: "d2", sequenceLen: 200 });
  const pool = new ModelPool([chosen], { threads: 1 });
  const { app } = testApp(undefined, { service: pool });
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, app.fetch);
  try {
    const env = { NANOCHAT_BASE_DIR: place.folder };
    const drawn = ["-t", "0.9", "-k", "40", "--top-p=0.95", "--seed=11", "-m", "20"];
    const stdin = "/system S\nHello\n漢字?\n/retry\n/undo\nMore\nand more of it\nand more\nand much more\n";
    const here = await nanochat(["chat", ...drawn, "--threads=1", "--dtype=fp32"], { env, stdin });
    const there = await nanochat(["chat", ...drawn, `--url=http://127.0.0.1:${server.addr.port}`], { env, stdin });
    assertEquals([here.code, there.code], [0, 0], here.output + there.output);
    assertEquals(here.stdout, there.stdout);
    for (const { stderr } of [here, there]) assertStringIncludes(stderr, "The context is full");
  } finally {
    await server.shutdown();
    await pool.close(0);
  }
});

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
