/** The long form of `kill_test.ts`. */
import { killSaving } from "../../dev/kill.ts";
import { testSeed } from "../../dev/testing.ts";

Deno.test("a process killed 60 times while it saves always leaves a whole checkpoint", async () => {
  const unfinished = await killSaving({ seed: testSeed() + 1, rounds: 60, insideSave: 10 });
  console.log(`${unfinished} kills cut off a save`);
});
