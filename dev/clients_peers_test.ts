/** Runs the Python of docs/clients.md as it stands there. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { ANSWER, openClientsPage } from "./clients.ts";
import { peerTest, runPython } from "./peers.ts";
import { temporaryFolder } from "./testing.ts";

peerTest("quick", "the Python of docs/clients.md works as it stands", async () => {
  await using page = await openClientsPage();
  using folder = temporaryFolder();
  const [program] = page.blocks("python");
  const path = `${folder.path}/client.py`;
  await Deno.writeTextFile(path, program);
  const stdout = await runPython(path);
  assertStringIncludes(stdout, `${ANSWER} [{'choice': 0, 'type': 'python', 'text': '12+34', 'content_offset': 0}, {`);
  assertEquals(stdout.split(ANSWER).length, 3, stdout);
  assertEquals(page.service.requests.at(-1)?.sampling.topK, 50);
});
