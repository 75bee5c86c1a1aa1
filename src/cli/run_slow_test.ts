import { assert } from "@std/assert";
import { SILENT } from "../data/log.ts";
import { runRecipe } from "../train/run.ts";
import { COMMANDS } from "./commands.ts";
import { stageExecutor } from "./stage.ts";

Deno.test("runRecipe() tiny ends below 60 % of the Markov model's bits per byte", async () => {
  const base = await Deno.makeTempDir();
  try {
    const execute = stageExecutor(COMMANDS, { result: () => {} });
    const cx = { base, log: SILENT, stop: new AbortController().signal, result: () => {}, execute };
    const { figures: { val_bpb, markov2_bpb, total_sec } } = await runRecipe("tiny", cx);
    console.log(
      `validation ${val_bpb.toFixed(4)}, Markov ${markov2_bpb.toFixed(4)} bits per byte, ${total_sec.toFixed(0)} s`,
    );
    assert(val_bpb < 0.6 * markov2_bpb, `${val_bpb} of ${markov2_bpb}`);
    assert(total_sec < 12 * 60, `${total_sec} s, the budget is 6 minutes on two free cores`);
  } finally {
    await Deno.remove(base, { recursive: true });
  }
});
