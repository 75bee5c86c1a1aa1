/** Runs the curl lines and the JavaScript of docs/clients.md as they stand there. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { ANSWER, openClientsPage } from "./clients.ts";
import { shellLines } from "./docs.ts";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { temporaryFolder } from "./testing.ts";

const deadlineMs = 60_000;

Deno.test("the curl lines of docs/clients.md work as typed", async () => {
  await using page = await openClientsPage();
  const lines = page.blocks("sh").flatMap((block) => shellLines(`\`\`\`sh\n${block}\`\`\`\n`));
  const outputs: string[] = [];
  for (const line of lines) {
    const { code, stdout, output } = await runChild({ command: "sh", args: ["-c", `${line} --fail`], deadlineMs });
    assertEquals(code, 0, `${line}\n${output}`);
    outputs.push(stdout);
  }
  const [models, chat, stream, completion] = outputs;
  assertEquals(JSON.parse(models).data[0].id, "d4");
  assertEquals(JSON.parse(chat).choices[0].message.content, ANSWER);
  assert(stream.endsWith("data: [DONE]\n\n"), stream);
  assertEquals(JSON.parse(completion).choices[0].text, ANSWER);
  assertEquals(lines.length, outputs.length);
});

Deno.test("the JavaScript of docs/clients.md works as it stands", async () => {
  await using page = await openClientsPage();
  using folder = temporaryFolder();
  const [program] = page.blocks("js");
  const path = join(folder.path, "client.js");
  await Deno.writeTextFile(path, program);
  const args = ["run", "--allow-all", "--no-lock", `--import-map=${join(ROOT, "import_map.json")}`, path];
  const { code, stdout, output } = await runChild({ command: Deno.execPath(), args, cwd: ROOT, deadlineMs });
  assertEquals(code, 0, output);
  assertStringIncludes(stdout, `${ANSWER} [`);
  assertStringIncludes(stdout, 'text: "12+34"');
  assertEquals(stdout.split(ANSWER).length, 3, stdout);
  assertEquals(page.service.requests.at(-1)?.sampling.topK, 50);
});
