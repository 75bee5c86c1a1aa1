import { assert, assertEquals } from "@std/assert";
import { testSeed } from "../../dev/testing.ts";
import { ToyPlace } from "../server/toy_testing.ts";
import { letIn } from "./serve_load_testing.ts";
import { withServing } from "./serve_testing.ts";

Deno.test("nanochat serve answers 64 clients at once as it answers one, whatever others do", async () => {
  using place = new ToyPlace();
  await place.add({ stage: "sft", tag: "d2", sequenceLen: 256 });
  await withServing(["-q"], { base: place.folder, deadlineMs: 120_000 }, async ({ url }) => {
    const { did, statuses } = await letIn({ url, clients: 64, seconds: 6, seed: testSeed() });
    assertEquals(Object.keys(did).length, 6, "every kind of client came");
    assert(statuses[200] >= 64, JSON.stringify(statuses));
  });
});
