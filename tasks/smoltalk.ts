/** SmolTalk: general conversations of the smol-smoltalk set (arXiv:2502.02737). Only trained on. */
import { openTaskRows, type Rows } from "../src/data/task_data.ts";
import { checkMessages } from "./messages.ts";
import { hubOrder, type Task } from "./task.ts";

/** Opens SmolTalk in a data folder. */
export async function loadSmolTalk(dataDir: string, { split }: { readonly split: "train" | "test" }): Promise<Task> {
  const set = { repo: "HuggingFaceTB/smol-smoltalk", subset: "default", split };
  return smolTalkTask(await openTaskRows(dataDir, set, ["messages"]));
}

/** Makes the task of rows {messages}: a system message may come first, then user and assistant alternate. */
export function smolTalkTask(rows: Rows): Task {
  const order = hubOrder(rows.length);
  return {
    length: rows.length,
    conversation: (index) => {
      const at = order(index);
      return { messages: checkMessages(rows.row(at).messages, { where: rows.where(at), system: true }) };
    },
  };
}
