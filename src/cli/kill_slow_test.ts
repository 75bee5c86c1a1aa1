/** The long form of `kill_cli_test.ts`: several seeds, more kills, a longer run, and some kills must cut off a save. */
import { assert } from "@std/assert";
import { withFolder } from "../../dev/cli.ts";
import { killTraining } from "../../dev/kill.ts";
import { testSeed } from "../../dev/testing.ts";

Deno.test("nanochat train killed dozens of times, inside saves too, resumes to the bits of an uninterrupted run", () =>
  withFolder(async (folder) => {
    const seed = testSeed();
    const seeds = [seed + 1, seed + 2, seed + 3];
    const { killed, insideSave } = await killTraining({ folder, seeds, kills: 16, withinMs: 300, steps: 2000 });
    console.log(`${killed} kills, ${insideSave} of them cut off a save`);
    assert(killed >= 24, `only ${killed} kills hit a running process, expected 24`);
    assert(insideSave >= 6, `only ${insideSave} of ${killed} kills cut off a save, expected 6`);
  }));
