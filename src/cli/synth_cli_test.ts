import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";

Deno.test("nanochat data synth writes the base folder's identity file and never the key", () =>
  withFolder(async (folder) => {
    const keys = new Set<string | null>();
    const messages = [{ role: "user", content: "Who are you?" }, { role: "assistant", content: "A lamp." }];
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
      keys.add(request.headers.get("authorization"));
      return Response.json({ choices: [{ message: { content: JSON.stringify({ messages }) } }] });
    });
    try {
      const base = join(folder, "base");
      const persona = join(folder, "persona.txt");
      Deno.writeTextFileSync(persona, "A lamp.");
      const url = `--url=http://127.0.0.1:${server.addr.port}/v1`;
      const args = [
        "data",
        "synth",
        `--persona=${persona}`,
        url,
        "--model=m",
        "-n",
        "3",
        "--key-env=LAMP_KEY",
        "--json",
      ];
      const { code, stdout, output } = await nanochat(args, { env: { NANOCHAT_BASE_DIR: base, LAMP_KEY: "sk-lamp" } });
      assertEquals(code, 0, output);
      const out = join(base, "identity_conversations.jsonl");
      assertEquals(JSON.parse(stdout.trim()), { out, conversations: 3, made: 3, failed: 0 });
      assertEquals(Deno.readTextFileSync(out), `${JSON.stringify(messages)}\n`.repeat(3));
      assertEquals([...keys], ["Bearer sk-lamp"]);
      assert(!output.includes("sk-lamp"));
    } finally {
      await server.shutdown();
    }
  }));
