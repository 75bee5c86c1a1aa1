import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { type Child, runChild } from "../../dev/process.ts";
import { ROOT } from "../../dev/setup.ts";
import { withFolder } from "../../dev/cli.ts";

/** Runs the program with every network permission taken away: an attempt to connect, listen or resolve a name fails it. */
function offline(args: readonly string[], env: Record<string, string>, onOutput?: Child["onOutput"]) {
  const flags = ["--quiet", "--allow-all", "--deny-net", "--no-prompt", `--lock=${join(ROOT, "deno.lock")}`];
  const command = ["run", ...flags, `--config=${join(ROOT, "deno.json")}`, join(ROOT, "bin", "nanochat.ts"), ...args];
  const all = { NO_COLOR: "1", ...env };
  return runChild({ command: Deno.execPath(), args: command, env: all, onOutput, deadlineMs: 60_000 });
}

Deno.test("nanochat opens no connection that a command did not ask for", () =>
  withFolder(async (folder) => {
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    for (let i = 0; i < 4; i++) {
      await Deno.writeTextFile(join(folder, `${i}.txt`), `The year ${1900 + i * 7} was long. `.repeat(60));
    }
    const sizes = ["--depth=1", "--max-seq-len=64", "--device-batch-size=1", "--total-batch-size=64"];
    const commands: readonly (readonly string[])[] = [
      [],
      ["--help"],
      ["data", "make", folder],
      ["data", "stats"],
      ["tokenizer", "train", "--vocab-size=280"],
      ["tokenizer", "show", "hello"],
      ["train", ...sizes, "--num-iterations=3", "--eval-every=2", "--eval-tokens=64"],
      ["eval", "bpb", "--split-tokens=64", "--device-batch-size=1"],
      ["chat", "-p", "The year", "--max-tokens=4"],
      ["models"],
      ["doctor"],
      ["report", "--watch", "d1"],
      [],
    ];
    for (const args of commands) {
      const { code, output } = await offline(args, env);
      assertEquals(code, 0, `nanochat ${args.join(" ")}\n${output}`);
    }
    // The other way round: a command that does ask is stopped, so the denial above was in force.
    const download = ["data", "download", "-n", "1", `--data-dir=${join(folder, "other")}`];
    const { output } = await offline([...download, "--base-url=http://127.0.0.1:8080/x"], env, (text, send) => {
      if (text.includes("attempt 1")) send("SIGKILL");
    });
    assertStringIncludes(output, "net access");
  }));
