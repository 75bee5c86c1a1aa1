import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { serveData } from "../../dev/data_server.ts";
import { foldersOf } from "../data/base_dir.ts";
import { RECIPES } from "../train/recipes.ts";
import { readRecords } from "../train/run_record.ts";

const DATA = Deno.env.get("NANOCHAT_DATA") ?? "";
const ignore = ["pretrain", "task_data", "eval_bundle", "words", "chat"].some((name) => !existsSync(join(DATA, name)));
if (ignore) console.log("skipped: pretrain, task_data, eval_bundle, words or chat is absent; set NANOCHAT_DATA");

const MINUTE_MS = 60_000;
/** Figures that the last line must hold, each with the least and the most that makes sense of so small a model. */
const FIGURES: Readonly<Record<string, readonly [low: number, high: number]>> = {
  shards: [4, 4],
  vocabSize: [65536, 65536],
  val_bytes_per_token: [4, 5.5],
  train_bpb: [1, 2.5],
  val_bpb: [1, 2.5],
  chat_bpb: [1, 5],
  core: [-0.2, 0.2],
  chatcore: [-0.2, 0.2],
  val_loss: [0.5, 11],
  arc_easy_acc: [0, 0.7],
  mmlu_acc: [0, 0.7],
  gsm8k_acc: [0, 0.2],
  humaneval_acc: [0, 0.2],
  spellingbee_acc: [0, 1],
};

Deno.test({
  name: "nanochat run cpu goes through every stage on data from a local server, and then has nothing left to do",
  ignore,
  fn: () =>
    withFolder(async (base) => {
      await using server = serveData(DATA);
      const env = { NANOCHAT_BASE_DIR: base };
      const run = () =>
        nanochat(["run", "cpu", `--base-url=${server.url}`, "--json"], { env, deadlineMs: 60 * MINUTE_MS });
      const lastLine = (stdout: string) => JSON.parse(stdout.trim().split("\n").at(-1)!);

      const first = await run();
      assertEquals(first.code, 0, first.output);
      const figures = lastLine(first.stdout);
      console.log(JSON.stringify(figures));
      for (const [name, [low, high]] of Object.entries(FIGURES)) {
        assert(
          low <= figures[name] && figures[name] <= high,
          `${name} is ${figures[name]}, expected ${low} to ${high}`,
        );
      }
      const folders = foldersOf(base, "cpu");
      const records = readRecords(folders);
      const stages = RECIPES.cpu.stages.map(({ name }) => name);
      assertEquals(stages.filter((name) => !records[name]?.finished), []);

      const card = await Deno.readTextFile(join(folders.report, "card.md"));
      for (const row of ["| CORE |", "| ChatCORE |", "| ARC-Easy |", "| MMLU |", "| SpellingBee |", "| HumanEval |"]) {
        assertStringIncludes(card, row);
      }
      const page = await Deno.readTextFile(join(folders.report, "card.html"));
      assert(!/(?:src|href)="https?:/.test(page), "the page needs no network");

      const asked = server.requests.length;
      const again = await run();
      assertEquals(again.code, 0, again.output);
      assertEquals(again.stderr.match(/done before/g)?.length, stages.length);
      assertEquals(lastLine(again.stdout), figures);
      assertEquals(server.requests.length, asked, "nothing is fetched twice");

      const answer = await nanochat(["chat", "-p", "Who are you?", "--max-tokens=32", "--temperature=0"], { env });
      assertEquals(answer.code, 0, answer.output);
      assertStringIncludes(answer.stderr, "Using sft/d4");
      assert(answer.stdout.trim() !== "", "an answer");
      assert(figures.total_sec < 25 * 60, `${figures.total_sec} s, expected at most 25 minutes on two free cores`);
    }),
});
