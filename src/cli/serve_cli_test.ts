import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { nanochat, withFolder } from "../../dev/cli.ts";
import { ToyPlace } from "../server/toy_testing.ts";
import { askChat, exchangeBytes, readStream, withServing } from "./serve_testing.ts";

const KEY = "correct-horse-battery";

Deno.test("nanochat serve answers whole and as a stream, and refuses who may not ask", async () => {
  using place = new ToyPlace();
  await place.add({ stage: "sft", tag: "d2", sequenceLen: 256 });
  const ended = await withServing([], { base: place.folder }, async ({ url }) => {
    assertEquals(await (await fetch(`${url}/health`)).json().then(({ status }) => status), "ok");
    const page = await fetch(url);
    assertStringIncludes(page.headers.get("content-security-policy")!, "script-src 'sha256-");
    assertStringIncludes(await page.text(), "<html");
    const body = { seed: 7, max_tokens: 20 };
    const whole = await (await askChat(url, body)).json();
    const streamed = await readStream(await askChat(url, { ...body, stream: true }));
    assertEquals(streamed, { text: whole.choices[0].message.content, isWhole: true });
    assertEquals((await (await fetch(`${url}/v1/models`)).json()).data.map(({ id }: { id: string }) => id), ["d2"]);

    const { host } = new URL(url);
    const status = async (text: string) => Number((await exchangeBytes(url, text)).split(" ")[1]);
    const get = (headers: string) => status(`GET /v1/models HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`);
    assertEquals(await get(`Host: ${host}\r\n`), 200);
    assertEquals(await get(`Host: localhost.:1\r\n`), 200);
    assertEquals(await get(`Host: evil.org\r\n`), 403);
    assertEquals(await get(`Host: ${host}\r\nOrigin: null\r\n`), 403);
    assertEquals(await get(`Host: ${host}\r\nOrigin: https://evil.org\r\n`), 403);
    assertEquals(await get(`Host: ${host}\r\nOrigin: ${url}\r\n`), 200);
    assertEquals(await status("GET / HTTP/1.0\r\n\r\n"), 403);
    assertEquals(await status("GARBAGE\r\n\r\n"), 400);
    assertEquals((await askChat(url, {}, { headers: { "content-type": "text/plain" } })).status, 415);
    assertEquals((await askChat(url, { padding: "x".repeat(1 << 20) })).status, 413);
    assertEquals((await askChat(url, { model: "d3" })).status, 404);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    assertStringIncludes(metrics, 'nanochat_requests_total{route="/v1/chat/completions",method="POST",status="413"} 1');
  });
  assertStringIncludes(ended.stderr, "POST /v1/chat/completions 200 in");
  assert(!ended.output.includes("Hello"), "texts are not told");
});

Deno.test("nanochat serve takes its key from a file or the environment, and never shows it", async () => {
  using place = new ToyPlace();
  await place.add({ stage: "sft", tag: "d2" });
  await withFolder(async (folder) => {
    const file = join(folder, "key");
    await Deno.writeTextFile(file, `${KEY}\n`, { mode: 0o644 });
    const ways: { flags: string[]; env?: Record<string, string> }[] = [
      { flags: [`--api-key-file=${file}`] },
      { flags: [], env: { NANOCHAT_API_KEY: KEY } },
    ];
    for (const { flags, env } of ways) {
      const ended = await withServing(flags, { base: place.folder, env }, async ({ url }) => {
        for (const [path, expected] of [["/health", 200], ["/", 200], ["/v1/models", 401]] as const) {
          const response = await fetch(url + path);
          await response.text();
          assertEquals(response.status, expected, path);
        }
        const wrong = await askChat(url, {}, { headers: { authorization: "Bearer wrong" } });
        assertEquals([wrong.status, (await wrong.json()).error.code], [401, "invalid_api_key"]);
        const allowed = await askChat(url, { max_tokens: 1 }, { headers: { authorization: `Bearer ${KEY}` } });
        assertEquals([allowed.status, (await allowed.json()).object], [200, "chat.completion"]);
      });
      assert(!ended.output.includes(KEY), ended.output);
      assertEquals(ended.stderr.includes("chmod 600"), flags.includes(`--api-key-file=${file}`), ended.stderr);
    }
    const env = { NANOCHAT_BASE_DIR: place.folder, NANOCHAT_API_KEY: KEY };
    const shown = await nanochat(["serve", "--print-config"], { env });
    assertStringIncludes(shown.stdout, "port = 8000");
    assert(!shown.output.includes(KEY), shown.output);
  });
});

Deno.test("nanochat serve ends after running answers, and cuts off others", async () => {
  using place = new ToyPlace();
  await place.add({ stage: "base", tag: "d2", sequenceLen: 4096 });
  const long = { stream: true, seed: 1, max_tokens: 300 };
  let first: Promise<{ text: string; isWhole: boolean }>;
  await withServing([], { base: place.folder }, async ({ url, send, ended }) => {
    const alone = await readStream(await askChat(url, long));
    first = readStream(await askChat(url, long));
    send("SIGINT");
    await ended;
    assertEquals(await first, alone, "the same answer, to its end");
    assert(alone.isWhole);
  });
  await withServing(["--grace=0"], { base: place.folder }, async ({ url, stop }) => {
    const cut = readStream(await askChat(url, { ...long, max_tokens: 4000 }));
    await stop();
    assertEquals((await cut).isWhole, false);
  });
});

Deno.test("nanochat serve stops at once at a second signal", async () => {
  using place = new ToyPlace();
  await place.add({ stage: "base", tag: "d2", sequenceLen: 4096 });
  let output = "";
  let answer: Promise<string> | undefined;
  let sent = 0;
  const { code } = await nanochat(["serve", "--port=0", "--json"], {
    env: { NANOCHAT_BASE_DIR: place.folder },
    onOutput: (text, send) => {
      output += text;
      const url = /"url":"(http:[^"]+)"/.exec(output)?.[1];
      if (url !== undefined) {
        answer ??= askChat(url, { stream: true, max_tokens: 4000 }).then((response) => {
          send("SIGINT");
          return response.text();
        }).catch(() => "cut");
      }
      if (output.includes("a second Ctrl-C") && sent++ === 0) send("SIGINT");
    },
  });
  assertEquals([code, await answer], [130, "cut"], output);
});

Deno.test("nanochat serve says why it does not start", async () => {
  using place = new ToyPlace();
  await place.add({ stage: "sft", tag: "d2" });
  const env = { NANOCHAT_BASE_DIR: place.folder };
  const wrong: [number, string[], string, Record<string, string>?][] = [
    [2, [`--api-key=${KEY}`], "every user of this machine can read it"],
    [2, ["--port=70000"], "from 0 to 65535"],
    [2, ["--allowed-host=a b"], "Cannot read --allowed-host"],
    [2, ["--cors=*"], 'expected origins such as "https://example.org"'],
    [2, ["--model=d2", "--step=7"], "expected one way"],
    [2, ["--api-key-file=/dev/null"], "it is empty"],
    [1, [], "it has 3 characters", { NANOCHAT_API_KEY: "abc" }],
    [1, ["--api-key-file=/no/such/file"], "/no/such/file"],
    [1, ["--model=d2,d9"], "sft/d2"],
    [1, ["--model=d2@8"], "8"],
    [1, ["--host=192.0.2.1", "--no-auth"], "this machine has no such address"],
    [3, ["--host=0.0.0.0"], "expected a key"],
    [3, ["--host=::"], "expected a key"],
  ];
  for (const [code, flags, message, more] of wrong) {
    const ended = await nanochat(["serve", "--port=0", ...flags], { env: { ...env, ...more } });
    assertEquals([ended.code, ended.stdout], [code, ""], `${flags}: ${ended.output}`);
    assertStringIncludes(ended.stderr, message);
    assert(!ended.output.includes(KEY), ended.output);
  }
  await withServing(["--host=0.0.0.0", "--no-auth"], { base: place.folder }, async ({ url }) => {
    const port = new URL(url).port;
    assertEquals((await fetch(`${url}/health`)).status, 200, "what is printed is answered");
    const taken = await nanochat(["serve", `--port=${port}`], { env });
    assertEquals(taken.code, 1, taken.output);
    assertStringIncludes(taken.stderr, `port ${port}: another program has this port; choose another with --port`);
  });
});
