import { assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { serveData } from "../../dev/data_server.ts";
import { loadStageTasks, REFERENCE_MIXTURES } from "../../tasks/mixtures.ts";
import { SILENT } from "../data/log.ts";

const DATA = Deno.env.get("NANOCHAT_DATA") ?? "";
const ignore = ["task_data", "words", "chat", "eval_bundle"].some((name) => !existsSync(join(DATA, name)));
if (ignore) console.log("skipped: task_data, words, chat or eval_bundle is absent; set NANOCHAT_DATA");

Deno.test({
  name: "nanochat data fetch all brings what mid-training, fine-tuning and RL read, and nothing a second time",
  ignore,
  fn: () =>
    withFolder(async (folder) => {
      await using server = serveData(DATA);
      const env = { NANOCHAT_BASE_DIR: folder };
      const fetch = () => nanochat(["data", "fetch", "all", `--base-url=${server.url}`, "--json"], { env });
      const first = await fetch();
      assertEquals(first.code, 0, first.output);
      const asked = server.requests.length;
      const { code, stdout } = await fetch();
      const again = stdout.trim().split("\n").map((line) => JSON.parse(line).fetched);
      assertEquals([code, again, server.requests.length], [0, [false, false, false, false], asked]);
      const log = SILENT;
      for (const mixtures of Object.values(REFERENCE_MIXTURES)) {
        const load = (root: string) => loadStageTasks(root, { ...mixtures, log });
        const [fetched, original] = [await load(folder), await load(DATA)];
        assertEquals(fetched.train.length, original.train.length);
        for (let i = 0; i < fetched.train.length; i += 1009) {
          assertEquals(fetched.train.conversation(i), original.train.conversation(i));
        }
      }
      const name = join("eval_data", "symbolic_problem_solving", "bigbench_operators.jsonl");
      const bundle = [join(folder, "eval_bundle"), join(DATA, "eval_bundle")];
      assertEquals(...bundle.map((root) => Deno.readTextFileSync(join(root, name))) as [string, string]);
    }),
});
