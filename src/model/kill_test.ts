/** Kills a process that saves checkpoints, at random moments inside and between saves: what it leaves must always be a whole checkpoint. */
import { killSaving } from "../../dev/kill.ts";
import { testSeed } from "../../dev/testing.ts";

Deno.test("a process killed while it saves leaves a whole checkpoint, at least the last one it reported", async () => {
  await killSaving({ seed: testSeed(), rounds: 12, insideSave: 1 });
});
