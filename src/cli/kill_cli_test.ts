/** Kills `nanochat train` at random moments, inside saves too: the losses after `--resume` are those of an uninterrupted run. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { readEvents } from "../report/events.ts";

const KILLS = 5;
/** The longest wait before a kill; the whole run takes several times as long. */
const KILL_WITHIN_MS = 200;
const STEPS = 400;
const FLAGS = [
  ...["--depth=1", "--max-seq-len=32", "--device-batch-size=2", "--total-batch-size=64", "--eval-every=40"],
  ...[
    "--eval-tokens=128",
    "--sample-every=-1",
    "--dtype=fp32",
    "--save-every=3",
    "--keep=2",
    `--num-iterations=${STEPS}`,
  ],
];

Deno.test("nanochat train killed with SIGKILL at random moments resumes to the bits of an uninterrupted run", () =>
  withFolder(async (folder) => {
    const seed = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? Date.now() % 1e6);
    console.log(`NANOCHAT_TEST_SEED=${seed}`);
    let random = seed;
    const env = { NANOCHAT_BASE_DIR: join(folder, "base") };
    const text = Array.from({ length: 3000 }, (_, j) => `word${(j * j) % 53}${j % 40 === 39 ? "\n" : ""}`).join(" ");
    for (let i = 0; i < 8; i++) await Deno.writeTextFile(join(folder, `${i}.txt`), text.slice(i * 100));
    assertEquals((await nanochat(["data", "make", folder], { env })).code, 0);
    assertEquals((await nanochat(["tokenizer", "train", "--vocab-size=300"], { env })).code, 0);

    let killed = 0;
    for (let start = 0; start < KILLS; start++) {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      const afterMs = (random / 2 ** 32) * KILL_WITHIN_MS;
      let armed = false;
      const { code, output } = await nanochat(["train", ...FLAGS, "--model-tag=cut", "--resume=auto"], {
        env,
        onOutput: (text, send) => {
          if (armed || !/Checkpoints go to|Resuming step/.test(text)) return;
          armed = true;
          setTimeout(() => {
            try {
              send("SIGKILL");
            } catch {
              // it has ended before
            }
          }, afterMs);
        },
      });
      assert(armed && (code === 137 || code === 0), output);
      killed += Number(code === 137);
    }
    assert(killed > 0, "the run ended before the first kill");
    const last = await nanochat(["train", ...FLAGS, "--model-tag=cut", "--resume=auto"], { env });
    assertEquals(last.code, 0, last.output);
    const whole = await nanochat(["train", ...FLAGS, "--model-tag=whole"], { env });
    assertEquals(whole.code, 0, whole.output);
    const rows = (tag: string) => {
      const events = readEvents(join(env.NANOCHAT_BASE_DIR, "checkpoints", "base", tag, "events.jsonl"));
      return events.filter(({ kind }) => kind === "step" || kind === "eval")
        .map(({ kind, step, loss, bpb, gradNorm, batchHash }) => ({ kind, step, loss, bpb, gradNorm, batchHash }));
    };
    assertEquals(rows("cut").filter(({ kind }) => kind === "step").length, STEPS);
    assertEquals(rows("cut"), rows("whole"));
  }));
