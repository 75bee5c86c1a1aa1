/** Golden mid_train: batches and progress of the conversation stream, of every rank, resumed in the middle too. */
import { join } from "@std/path";
import type { Conversation } from "../../src/data/conversation.ts";
import { ConversationStream, type StreamBatch, type StreamState } from "../../src/train/conversation_stream.ts";
import { goldenTokenizer, listTask } from "./conversations.ts";
import type { Parity } from "./parity.ts";

interface Case {
  readonly name: string;
  readonly split: "train" | "val";
  readonly rank: number;
  readonly world_size: number;
  readonly num_iterations: number;
  readonly state_after_each: readonly { readonly last_step: boolean; readonly approx_progress: number }[];
}

/** Compares batches and states, id by id. */
export async function run(t: Parity): Promise<void> {
  const spec: {
    B: number;
    T: number;
    tokenizer: string;
    train_conversations: string;
    val_conversations: string;
    cases: Case[];
  } = t
    .json("batches.json");
  using tokenizer = await goldenTokenizer(t.root, spec.tokenizer);
  const path = spec.train_conversations.split(" ")[0]; // "sft_run/run.json conversations, in order"
  const all: Conversation[] = JSON.parse(Deno.readTextFileSync(join(t.root, path))).conversations;
  const held = Number(/\d+/.exec(spec.val_conversations)?.[0]); // "the first 6 of them"
  const tensors = t.tensors("batches.safetensors");
  const { B, T } = spec;
  for (const { name, split, rank, world_size: world, num_iterations, state_after_each } of spec.cases) {
    const task = listTask(split === "train" ? all : all.slice(0, held));
    const open = (state?: StreamState) => new ConversationStream({ task, tokenizer, B, T, rank, world, state });
    const whole = open();
    const batches: StreamBatch[] = state_after_each.map(() => whole.next());
    const ids = (list: readonly StreamBatch[], what: "inputs" | "targets") => list.flatMap((batch) => [...batch[what]]);
    t.equal(`${name} inputs`, ids(batches, "inputs"), Array.from(tensors.get(`${name}.inputs`).data));
    t.equal(`${name} targets`, ids(batches, "targets"), Array.from(tensors.get(`${name}.targets`).data));
    batches.forEach((batch, i) => {
      const rest = open(batch.state);
      const again = batches.slice(i + 1).map(() => rest.next());
      t.equal(`${name} resumed behind batch ${i}`, again, batches.slice(i + 1));
    });
    // The reference counts drawn micro-batches as iterations there; ours counts updates in the training loop, not in the stream.
    if (split === "val" || num_iterations > 0) continue;
    const states = batches.map(({ state, progress }) => ({ last_step: state.passes > 0, approx_progress: progress }));
    t.equal(`${name} states`, states, state_after_each);
  }
}
