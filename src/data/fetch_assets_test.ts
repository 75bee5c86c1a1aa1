import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { fetchAssets, type FetchAssetsOptions, TASK_SETS } from "./fetch_assets.ts";
import type { Log } from "./log.ts";
import { writeParquet } from "./parquet.ts";
import { openTaskRows, taskSetFolder } from "./task_data.ts";
import { makeZip } from "./zip_testing.ts";

interface Hub extends AsyncDisposable {
  readonly url: string;
  /** Paths that were fetched, in order; questions for a size do not count. */
  readonly requests: string[];
  /** Answers that differ from the honest ones, by path. */
  readonly answers: Map<string, (request: Request) => Response | Promise<Response>>;
}

const IDENTITY = '[{"role":"user","content":"Hi"},{"role":"assistant","content":"I am a test"}]\n';

/** A server on a free port that plays the hub and the other hosts: every split is two Parquet files with a text column. */
async function serve(): Promise<Hub> {
  using folder = temporaryFolder();
  const path = join(folder.path, "x.parquet");
  await writeParquet(path, ["one", "two", "three"]);
  const parquet = Deno.readFileSync(path);
  const text = (content: string) => new TextEncoder().encode(content);
  const bundle = await makeZip([
    { name: "eval_bundle/core.yaml", data: text("icl_tasks: []\n") },
    { name: "eval_bundle/eval_data/a.jsonl", data: text("{}\n") },
  ]);
  const files: Record<string, Uint8Array<ArrayBuffer>> = {
    "/words_alpha.txt": text("ant\r\nbee\r\n"),
    "/identity_conversations.jsonl": text(IDENTITY),
    "/eval_bundle.zip": bundle,
  };
  const requests: string[] = [];
  const answers: Hub["answers"] = new Map();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    const { pathname, origin } = new URL(request.url);
    if (request.method !== "HEAD") requests.push(pathname);
    const answer = answers.get(pathname);
    if (answer) return answer(request);
    if (pathname.startsWith("/api/datasets/")) {
      return Response.json([0, 1].map((i) => `${origin}/files${pathname}/${i}.parquet`));
    }
    const bytes = pathname.startsWith("/files/") ? parquet : files[pathname];
    return bytes ? new Response(bytes) : new Response("", { status: 404 });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    requests,
    answers,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

const NO_ENV = { get: () => undefined };

function optionsOf(hub: Hub, folder: string): FetchAssetsOptions & { said: string[] } {
  const said: string[] = [];
  const log: Log = {
    info: (message) => void said.push(message),
    warn: (message) => void said.push(message),
    progress() {},
  };
  return { folder, baseUrl: `${hub.url}/`, backoffMs: () => 0, attempts: 2, env: NO_ENV, log, said };
}

Deno.test("fetchAssets() brings everything, and nothing a second time", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const options = optionsOf(hub, folder.path);
  const first = await fetchAssets("all", options);
  assertEquals(first.map(({ name, fetched }) => [name, fetched]), [
    ["tasks", true],
    ["eval-bundle", true],
    ["words", true],
    ["identity", true],
  ]);
  const at = (...parts: string[]) => join(folder.path, ...parts);
  assertEquals(Deno.readTextFileSync(at("words_alpha.txt")), "ant\r\nbee\r\n");
  assertEquals(Deno.readTextFileSync(at("identity_conversations.jsonl")), IDENTITY);
  assertEquals(Deno.readTextFileSync(at("eval_bundle", "core.yaml")), "icl_tasks: []\n");
  assert(existsSync(at("eval_bundle", "eval_data", "a.jsonl")));
  for (const set of TASK_SETS) {
    const split = at("task_data", taskSetFolder(set));
    assertEquals(Array.from(Deno.readDirSync(split), ({ name }) => name).sort(), [
      "00000.parquet",
      "00001.parquet",
      "manifest.json",
    ]);
    assertEquals((await openTaskRows(folder.path, set, ["text"])).row(4), { text: "two" });
  }
  const left = Array.from(Deno.readDirSync(folder.path), ({ name }) => name).filter((name) => !name.endsWith(".lock"));
  assertEquals(left.sort(), ["eval_bundle", "identity_conversations.jsonl", "task_data", "words_alpha.txt"]);
  assertEquals(hub.requests.length, 3 * TASK_SETS.length + 3);
  const second = await fetchAssets("all", { ...options, baseUrl: undefined, offline: true });
  assertEquals(second.some(({ fetched }) => fetched), false);
  assertEquals(hub.requests.length, 3 * TASK_SETS.length + 3);
});

Deno.test("fetchAssets() called twice at a time fetches once", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const options = optionsOf(hub, folder.path);
  const results = await Promise.all([fetchAssets("words", options), fetchAssets("words", options)]);
  assertEquals(results.flat().map(({ fetched }) => fetched).sort(), [false, true]);
  assertEquals(hub.requests, ["/words_alpha.txt"]);
  assert(options.said.includes("Waiting for another process to fetch words"), options.said.join("\n"));
});

Deno.test("fetchAssets() goes on with a task set where it stopped", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const options = optionsOf(hub, folder.path);
  const { repo, subset, split } = TASK_SETS[0];
  const list = `/api/datasets/${repo}/parquet/${subset}/${split}`;
  hub.answers.set(`/files${list}/1.parquet`, () => new Response("", { status: 404 }));
  await assertRejects(() => fetchAssets("tasks", options), Error, "the server answered 404");
  const open = () => openTaskRows(folder.path, TASK_SETS[0], ["text"]);
  await assertRejects(
    open,
    Error,
    'it is missing, expected the list of a finished download; run "nanochat data fetch tasks"',
  );
  hub.answers.clear();
  await fetchAssets("tasks", options);
  assertEquals((await open()).length, 6);
  assertEquals(hub.requests.filter((path) => path === `/files${list}/0.parquet`).length, 1);
});

Deno.test("fetchAssets() refuses content that is not what was asked for, and goes on with the rest", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const options = optionsOf(hub, folder.path);
  const page = () => new Response("<html>log in first</html>");
  for (const path of ["/words_alpha.txt", "/identity_conversations.jsonl", "/eval_bundle.zip"]) {
    hub.answers.set(path, page);
  }
  await assertRejects(() => fetchAssets("words", options), Error, "line 1 is no word");
  await assertRejects(() => fetchAssets("identity", options), Error, "line 1 is no JSON array");
  await assertRejects(() => fetchAssets("eval-bundle", options), Error, "expected a zip file");
  const { repo, subset, split } = TASK_SETS[0];
  const list = `/api/datasets/${repo}/parquet/${subset}/${split}`;
  hub.answers.set(list, () => Response.json(["file:///etc/passwd"]));
  await assertRejects(() => fetchAssets("tasks", options), Error, "no list of web addresses");
  hub.answers.delete(list);
  await assertRejects(() => fetchAssets("all", options), Error, "Cannot fetch 3 of 4 (eval-bundle, words, identity)");
  assert(existsSync(join(folder.path, "task_data")));
  assertEquals(existsSync(join(folder.path, "eval_bundle")), false);
  hub.answers.clear();
  assertEquals((await fetchAssets("all", options)).map(({ fetched }) => fetched), [false, true, true, true]);
});

Deno.test("fetchAssets() asks for room for all of it before it begins", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const options = optionsOf(hub, folder.path);
  const huge = (request: Request) =>
    request.method === "HEAD" ? new Response(null, { headers: { "x-linked-size": "1e18" } }) : new Response("");
  const { repo, subset, split } = TASK_SETS.at(-1)!;
  const last = `/files/api/datasets/${repo}/parquet/${subset}/${split}/1.parquet`;
  for (const path of [last, "/eval_bundle.zip", "/words_alpha.txt"]) hub.answers.set(path, huge);
  const tasks = await assertRejects(() => fetchAssets("tasks", options), Error, "Cannot fetch tasks: ");
  assertMatch(
    tasks.message,
    /\d bytes\) are free in ".*", expected 1 EB \(1,000,000,000,000,\d+,\d+ bytes\); .* --data-dir$/,
  );
  await assertRejects(() => fetchAssets("eval-bundle", options), Error, "Cannot fetch eval_bundle.zip: ");
  await assertRejects(() => fetchAssets("words", options), Error, "Cannot fetch words_alpha.txt: ");
  assertEquals(hub.requests.length, TASK_SETS.length, "only the lists of the task sets were fetched");
  hub.answers.clear();
  await fetchAssets("all", options);
});

Deno.test("fetchAssets() asks for room for the unpacked bundle", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const data = new TextEncoder().encode("x");
  const announced = { data, stored: true, sizeBytes: 4e9 };
  const zip = await makeZip(Array.from({ length: 50_000 }, (_, i) => ({ name: `eval_bundle/${i}`, ...announced })));
  hub.answers.set("/eval_bundle.zip", () => new Response(zip));
  const fetch = () => fetchAssets("eval-bundle", optionsOf(hub, folder.path));
  await assertRejects(fetch, Error, "expected 200 TB (200,000,000,000,000 bytes)");
  assertEquals(Array.from(Deno.readDirSync(folder.path), ({ name }) => name), ["fetch_eval-bundle.lock"]);
});

Deno.test("fetchAssets() keeps a bundle's entries inside its folder", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const base = join(folder.path, "base");
  const data = new TextEncoder().encode("x");
  const zip = await makeZip([{ name: "eval_bundle/core.yaml", data }, { name: "../../evil", data }]);
  hub.answers.set("/eval_bundle.zip", () => new Response(zip));
  await assertRejects(() => fetchAssets("eval-bundle", optionsOf(hub, base)), Error, "would leave the folder");
  assertEquals(Array.from(Deno.readDirSync(folder.path), ({ name }) => name), ["base"]);
  const other = await makeZip([{ name: "readme", data }]);
  hub.answers.set("/eval_bundle.zip", () => new Response(other));
  await assertRejects(() => fetchAssets("eval-bundle", optionsOf(hub, base)), Error, "holds no core.yaml");
  const left = Array.from(Deno.readDirSync(base), ({ name }) => name);
  assertEquals(left, ["fetch_eval-bundle.lock"]);
});

Deno.test("fetchAssets() tells the secret to the hub alone", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  await using other = await serve();
  const secrets: string[] = [];
  const { repo, subset, split } = TASK_SETS[0];
  const list = `/api/datasets/${repo}/parquet/${subset}/${split}`;
  const note = (server: Hub, path: string, answer: () => Response) =>
    server.answers.set(path, (request) => {
      secrets.push(`${request.method} ${server === hub ? "hub" : "other"} ${request.headers.get("authorization")}`);
      return answer();
    });
  note(hub, list, () => Response.json([`${other.url}/files/x.parquet`, `${hub.url}/files/y.parquet`]));
  note(other, "/files/x.parquet", () => new Response("", { status: 404 }));
  const env = { get: (name: string) => ({ HF_ENDPOINT: hub.url, HF_TOKEN: "secret" } as Record<string, string>)[name] };
  const options = { ...optionsOf(hub, folder.path), baseUrl: undefined, env };
  await assertRejects(() => fetchAssets("tasks", options), Error, "404");
  assertEquals(secrets, ["GET hub Bearer secret", "HEAD other null", "GET other null"]);
  assert(options.said.every((line) => !line.includes("secret")));
});

Deno.test("fetchAssets() offline names what is missing and asks nobody", async () => {
  using folder = temporaryFolder();
  await using hub = await serve();
  const options = { ...optionsOf(hub, folder.path), offline: true };
  const error = await assertRejects(() => fetchAssets("tasks", options), Error, "--offline is set");
  assertStringIncludes(error.message, `and ${TASK_SETS.length - 1} more`);
  await assertRejects(() => fetchAssets("words", options), Error, "words_alpha.txt");
  assertEquals(hub.requests, []);
});
