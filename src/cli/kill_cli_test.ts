/** Kills `nanochat train` at random moments, inside saves too: the losses after `--resume` are those of an uninterrupted run. */
import { assert } from "@std/assert";
import { withFolder } from "../../dev/cli.ts";
import { killTraining } from "../../dev/kill.ts";
import { testSeed } from "../../dev/testing.ts";

Deno.test("nanochat train killed with SIGKILL at random moments resumes to the bits of an uninterrupted run", () =>
  withFolder(async (folder) => {
    const { killed } = await killTraining({ folder, seeds: [testSeed()], kills: 5, withinMs: 200, steps: 400 });
    assert(killed > 0, "the run ended before the first kill");
  }));
