import { assert, assertEquals } from "@std/assert";
import { nanochat } from "../../dev/cli.ts";
import { SILENT } from "../data/log.ts";
import { runRecipe } from "../train/run.ts";
import { COMMANDS } from "./commands.ts";
import { stageExecutor } from "./stage.ts";

/** Shares of right answers that the recipe reaches on any machine, five points below what it is made for; 250 items are exact to 4. */
const BARS = { identity_acc: 0.85, world_acc: 0.85, arithmetic_acc: 0.85, counting_acc: 0.75 } as const;

Deno.test("runRecipe() tiny leaves a model that knows itself and its world, calculates, counts, and gains by reinforcement", async () => {
  const base = await Deno.makeTempDir();
  try {
    const execute = stageExecutor(COMMANDS, { result: () => {} });
    const cx = { base, log: SILENT, stop: new AbortController().signal, result: () => {}, execute };
    const { figures } = await runRecipe("tiny", cx);
    console.log(Object.entries(figures).map(([name, value]) => `${name} ${value}`).join("\n"));
    const sizes = ["--device-batch-size=8", `--split-tokens=${30 * 4096}`, "--quantize=int8"];
    const rounded = await nanochat(["eval", "bpb", "--source=base", `--base-dir=${base}`, ...sizes, "--json", "-q"]);
    assertEquals(rounded.code, 0, rounded.output);
    const { val_lost_percent: lost } = JSON.parse(rounded.stdout.trim().split("\n").at(-1)!);
    assert(lost < 0.5, `weights of 8 bits lose ${lost} % bits per byte`);
    assert(figures.val_bpb < 0.6 * figures.markov2_bpb, `${figures.val_bpb} of ${figures.markov2_bpb} bits per byte`);
    for (const [name, bar] of Object.entries(BARS)) assert(figures[name] >= bar, `${name}: ${figures[name]} of ${bar}`);
    const gain = figures.rl_reward_after - figures.rl_reward_before;
    assert(gain > figures.rl_reward_ci95, `reward rose by ${gain}, the interval is ${figures.rl_reward_ci95}`);
    assert(figures.total_sec < 24 * 60, `${figures.total_sec} s, the budget is 12 minutes on two free cores`);
  } finally {
    await Deno.remove(base, { recursive: true });
  }
});
