import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import type { Log } from "../src/data/log.ts";
import { loadStageTasks, REFERENCE_MIXTURES } from "./mixtures.ts";
import type { Task, TaskMixture } from "./task.ts";

const DATA = Deno.env.get("NANOCHAT_DATA") ?? "";
const ignore = DATA === "" || !existsSync(join(DATA, "task_data")) || !existsSync(join(DATA, "chat"));
if (ignore) console.log("skipped: task_data or chat is absent; set NANOCHAT_DATA");

function listener(): { said: string[]; log: Log } {
  const said: string[] = [];
  return { said, log: { info() {}, warn: (line) => void said.push(line), progress() {} } };
}

const sizes = (mixture: Task) => (mixture as TaskMixture).tasks.map(({ length }) => length);

Deno.test({
  name: "loadStageTasks() mixes the reference's tasks in its order, and say where rows are missing",
  ignore,
  fn: async () => {
    const { said, log } = listener();
    const mid = await loadStageTasks(DATA, { ...REFERENCE_MIXTURES.mid, log });
    assertEquals(sizes(mid.train), [988, 285, 6973, 800, 800, 200_000, 80_000]);
    assertEquals(sizes(mid.validation), [53, 4560, 420]);
    assertEquals(said, ["mmlu has 4560 test rows, 5200 were wanted; all are taken"]);
    const sft = await loadStageTasks(DATA, { ...REFERENCE_MIXTURES.sft, log });
    assertEquals(sizes(sft.train), [2251, 1119, 6973, 988, 800, 300, 300]);
    assertEquals(sft.validation.length, 53);
    assertEquals(said.slice(1), ["smoltalk has 988 train rows, 10000 were wanted; all are taken"]);
    for (const task of [mid.train, mid.validation, sft.train, sft.validation]) {
      for (let i = 0; i < task.length; i += 97) assert(task.conversation(i).messages.length >= 2);
    }
    const rl = await loadStageTasks(DATA, { ...REFERENCE_MIXTURES.rl, log });
    assertEquals([rl.train.length, rl.validation.length], [6973, 1055]);
    const conversation = rl.train.conversation(0);
    assertEquals(rl.train.reward!(conversation, "#### nothing"), 0);
  },
});
