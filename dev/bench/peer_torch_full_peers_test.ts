/** The PyTorch side of the training benchmark does the work that ours does: loss and gradients of the golden models. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { peerTest, runPython } from "../peers.ts";
import { ROOT } from "../setup.ts";

for (const name of ["gpt_tiny", "gpt_mqa"]) {
  peerTest("full", `peer_torch.py gives the golden loss and gradients of ${name}`, async () => {
    const folder = join(ROOT, "dev", "golden", name);
    const args = ["--check", folder, "--steps", "0"];
    const { checked } = JSON.parse(await runPython("dev/bench/peer_torch.py", { args }));
    assertEquals(checked, folder);
  });
}
