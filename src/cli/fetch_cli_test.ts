import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";

Deno.test("nanochat data fetch: a process that is killed leaves no lock, and two at a time fetch once", () =>
  withFolder(async (folder) => {
    let requests = 0;
    const stalled = Promise.withResolvers<void>();
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, ({ method }) => {
      if (method === "HEAD") return new Response();
      if (++requests > 1) return new Response("ant\nbee\n");
      // The first one gets a beginning and then nothing, until it is killed.
      const body = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode("an")) });
      stalled.resolve();
      return new Response(body, { headers: { "content-length": "8" } });
    });
    try {
      const url = `--base-url=http://127.0.0.1:${server.addr.port}`;
      const fetch = ["data", "fetch", "words", `--data-dir=${folder}`, url, "--json"];
      const killed = await nanochat(fetch, {
        onOutput: (text, send) => {
          if (text.includes("Fetching words")) stalled.promise.then(() => send("SIGKILL"));
        },
      });
      assertEquals(killed.code, 137);
      const ended = await Promise.all([nanochat(fetch), nanochat(fetch)]);
      assertEquals(ended.map(({ code }) => code), [0, 0], ended.map(({ output }) => output).join("\n"));
      const fetched = ended.map(({ stdout }) => JSON.parse(stdout.trim()).fetched);
      assertEquals(fetched.sort(), [false, true]);
      assertEquals(requests, 2);
      assertEquals(Deno.readTextFileSync(join(folder, "words_alpha.txt")), "ant\nbee\n");
      const offline = await nanochat(["data", "fetch", "identity", `--data-dir=${folder}`, "--offline"]);
      assertEquals(offline.code, 1);
      assertStringIncludes(offline.stderr, "--offline is set");
    } finally {
      await server.shutdown();
    }
  }));

Deno.test("nanochat run: Ctrl-C during a download ends the recipe, and the next call goes on", () =>
  withFolder(async (folder) => {
    const stalled = Promise.withResolvers<void>();
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, ({ method }) => {
      if (method === "HEAD") return new Response();
      stalled.resolve();
      return new Response(new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(100)) }));
    });
    try {
      const { code, stderr } = await nanochat(["run", "cpu", `--base-url=http://127.0.0.1:${server.addr.port}`], {
        env: { NANOCHAT_BASE_DIR: folder },
        onOutput: (text, send) => {
          if (text.includes("Downloading 4 of 4")) stalled.promise.then(() => send("SIGINT"));
        },
      });
      assertEquals(code, 75, stderr);
      assertStringIncludes(stderr, 'Stopped; "nanochat run cpu" goes on from here');
    } finally {
      await server.shutdown();
    }
  }));
