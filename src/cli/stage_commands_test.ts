import { assertEquals } from "@std/assert";
import { MID_TRAIN_DEFAULTS } from "../train/mid_flags.ts";
import { CHAT_RL_DEFAULTS } from "../train/rl_flags.ts";
import { CHAT_SFT_DEFAULTS } from "../train/sft_flags.ts";
import { camelCase } from "./flags.ts";
import { pick } from "./stage_commands.ts";
import { MID, RL, SFT } from "./stage_flag_sets.ts";

const STAGES = [["mid", MID, MID_TRAIN_DEFAULTS], ["sft", SFT, CHAT_SFT_DEFAULTS], [
  "rl",
  RL,
  CHAT_RL_DEFAULTS,
]] as const;

for (const [name, flags, defaults] of STAGES) {
  Deno.test(`nanochat ${name} takes every flag of its stage, with the default of the training loop`, () => {
    const values = Object.fromEntries(
      Object.entries(flags).map(([flag, { default: value }]) => [camelCase(flag), value]),
    );
    assertEquals(pick(values, defaults), defaults);
    const foreign = Object.keys(values).filter((flag) => !(flag in defaults));
    assertEquals(foreign.sort(), ["dataDir", "mixture", "pricePerHour", "validationMixture"]);
  });
}
