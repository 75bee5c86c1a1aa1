/** The architecture as transformers understands it: its NanoChat model gives the recorded logits that ours gives in `dev/parity`. */
import { assert } from "@std/assert";
import { join } from "@std/path";
import { askPeer, peerTest } from "../../dev/peers.ts";
import { ROOT } from "../../dev/setup.ts";

const TOLERANCE = 1e-5; // observed: 3.5e-7 and 2.2e-7 in fp32, transformers 5.23.0

for (const name of ["gpt_tiny", "gpt_mqa"]) {
  peerTest("full", `transformers' NanoChat gives the golden logits of ${name}`, async () => {
    const folder = join(ROOT, "dev", "golden", name);
    const { error, positions } = await askPeer<Record<string, number>>("transformers_logits.py", { folder });
    assert(positions > 0 && error < TOLERANCE, `${error} over ${positions} positions`);
  });
}
