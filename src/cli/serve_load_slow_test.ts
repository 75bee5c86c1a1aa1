import { assert } from "@std/assert";
import { testSeed } from "../../dev/testing.ts";
import { ToyPlace } from "../server/toy_testing.ts";
import { letIn, throughput } from "./serve_load_testing.ts";
import { withServing } from "./serve_testing.ts";

/** Until this second memory may grow: code is compiled, caches fill. */
const WARM_SEC = 60;
const MEMORY_GROWTH = 1.1;
/** Beside other work the event loop waits for its processor, which says nothing about the server. */
const IDLE_LOAD = 1;

Deno.test("nanochat serve bears 64 clients for three minutes: flat memory, an event loop in time", async () => {
  const [load] = Deno.loadavg();
  using place = new ToyPlace();
  await place.add({ stage: "sft", tag: "d4", sequenceLen: 512, isFull: true });
  await withServing(["-q"], { base: place.folder, deadlineMs: 400_000 }, async ({ url }) => {
    const [one, sixteen] = [
      await throughput(url, { clients: 1, seconds: 5 }),
      await throughput(url, { clients: 16, seconds: 5 }),
    ];
    const { did, statuses, memory, inTime, tokPerSec } = await letIn({
      url,
      clients: 64,
      seconds: 180,
      seed: testSeed(),
    });
    const mib = memory.map((bytes) => Math.round(bytes / 2 ** 20));
    const [early, late] = [Math.max(...mib.slice(WARM_SEC - 20, WARM_SEC)), Math.max(...mib.slice(-20))];
    console.log(JSON.stringify({
      ...{ did, statuses, tokPerSec: Math.round(tokPerSec), inTime, memoryMiB: { first: mib[0], early, late } },
      ...{ oneTokPerSec: Math.round(one), sixteenTokPerSec: Math.round(sixteen), ratio: sixteen / one },
    }));
    assert(late <= MEMORY_GROWTH * early, `memory grew from ${early} to ${late} MiB`);
    if (load > IDLE_LOAD) return console.log(`The event loop is not judged: the load was ${load} at the start`);
    assert(inTime >= 0.95, `only ${inTime} of the event loop's delays were within 20 ms`);
  });
});
