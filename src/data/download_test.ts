import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { basename, join, toFileUrl } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import type { DownloadOptions } from "./download.ts";
import { downloadShards, shardName } from "./download.ts";
import { fetchFile } from "./fetch_file.ts";
import type { Log } from "./log.ts";
import { ParquetFile, writeParquet } from "./parquet.ts";

/** Answers one request for a shard; `visit` counts the requests for that file from 0. */
type Handler = (request: Request, shard: { bytes: Uint8Array<ArrayBuffer>; visit: number }) => Response;

interface Server extends AsyncDisposable {
  readonly url: string;
  /** Requests as "METHOD name range". */
  readonly requests: string[];
  readonly bytes: (name: string) => Uint8Array<ArrayBuffer>;
}

/** A server of shards on a free port of this machine. */
async function serve(handler: Handler): Promise<Server> {
  using folder = temporaryFolder();
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let i = 0; i < 3; i++) {
    const path = join(folder.path, shardName(i));
    // Random letters hardly shrink, so that a shard is longer than a network buffer.
    const noise = crypto.getRandomValues(new Uint8Array(60_000));
    await writeParquet(path, [`shard ${i}`, ...Array.from({ length: 5 }, () => Array.from(noise, String).join(" "))]);
    files.set(basename(path), Deno.readFileSync(path));
  }
  const requests: string[] = [];
  const visits = new Map<string, number>();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    const name = basename(new URL(request.url).pathname);
    requests.push([request.method, name, request.headers.get("range")].filter(Boolean).join(" "));
    const bytes = files.get(name);
    if (!bytes) return new Response("", { status: 404 });
    if (request.method === "HEAD") {
      return new Response(null, { headers: { "content-length": String(bytes.length) } });
    }
    const visit = visits.get(name) ?? 0;
    visits.set(name, visit + 1);
    return handler(request, { bytes, visit });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    requests,
    bytes: (name) => files.get(name)!,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

const ETAG = { etag: '"v1"' };

/** Serves ranges as it should be done. */
const honest: Handler = (request, { bytes }) => {
  const from = Number(/bytes=(\d+)-/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
  if (from === 0) return new Response(bytes, { headers: ETAG });
  if (from >= bytes.length) {
    return new Response(null, { status: 416, headers: { "content-range": `bytes */${bytes.length}` } });
  }
  const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
  return new Response(bytes.slice(from), { status: 206, headers: { ...ETAG, "content-range": range } });
};

/** A body that ends behind `count` bytes, although the header announces all of them. */
function broken(bytes: Uint8Array<ArrayBuffer>, count: number): Response {
  let sent = false;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent) controller.close();
      else controller.enqueue(bytes.slice(0, count));
      sent = true;
    },
  });
  return new Response(body, { headers: { ...ETAG, "content-length": String(bytes.length) } });
}

function listener(): { said: string[]; log: Log; last: () => { done: number; total: number } } {
  const said: string[] = [];
  let last = { done: 0, total: 0 };
  const say = (message: string) => void said.push(message);
  return { said, log: { info: say, warn: say, progress: (state) => void (last = state) }, last: () => last };
}

const NO_ENV = { get: () => undefined };
const QUICK = { backoffMs: () => 0, env: NO_ENV, numFiles: 3 } satisfies Partial<DownloadOptions>;

async function assertShards(server: Server, folder: string): Promise<void> {
  assertEquals(Array.from(Deno.readDirSync(folder), (entry) => entry.name).sort(), [0, 1, 2].map(shardName));
  for (let i = 0; i < 3; i++) {
    const path = join(folder, shardName(i));
    assertEquals(Deno.readFileSync(path), server.bytes(shardName(i)));
    using file = ParquetFile.open(path);
    assertEquals((await file.readTexts(0))[0], `shard ${i}`);
  }
}

Deno.test("downloadShards() fetches what is missing and nothing twice", async () => {
  using folder = temporaryFolder();
  await using server = await serve(honest);
  const { said, log, last } = listener();
  const out = join(folder.path, "data");
  const options = { ...QUICK, out, baseUrl: `${server.url}/`, log };
  const paths = await downloadShards(options);
  assertEquals(paths, [0, 1, 2].map((i) => join(out, shardName(i))));
  await assertShards(server, out);
  assertEquals(server.requests.length, 4); // one HEAD, three GET
  assertEquals(last().done, last().total);
  await downloadShards(options);
  assertEquals(server.requests.filter((line) => line.startsWith("GET")).length, 3);
  assertEquals(said, [`Downloading 3 of 3 shards to "${out}" with 4 workers`, `All 3 shards are in "${out}" already`]);
});

Deno.test("downloadShards() takes no shard of one's own for a downloaded one", async () => {
  using folder = temporaryFolder();
  await using server = await serve(honest);
  const [own, other] = [join(folder.path, shardName(0)), join(folder.path, shardName(7))];
  await writeParquet(own, ["my text"]);
  const refuse = async (changes: Partial<DownloadOptions>) => {
    const run = () => downloadShards({ ...QUICK, out: folder.path, numFiles: 1, ...changes });
    const { message } = await assertRejects(run, Error, "were made by nanochat itself");
    assertStringIncludes(message, "--data-dir=FOLDER");
  };
  await refuse({ baseUrl: server.url });
  await refuse({}); // the hub holds none of ours: known without asking it
  await refuse({ env: { get: (name) => name === "HF_ENDPOINT" ? "" : undefined } }); // set to nothing is not set
  await refuse({ offline: true });
  await Deno.rename(own, other); // beyond those that are asked for it would be the validation shard
  await refuse({});
  assertEquals(server.requests, [`HEAD ${shardName(0)}`]);
});

Deno.test("downloadShards() goes on behind the bytes that a dropped connection left", async () => {
  using folder = temporaryFolder();
  await using server = await serve((request, shard) =>
    shard.visit === 0 ? broken(shard.bytes, 50_000) : honest(request, shard)
  );
  const { said, log } = listener();
  await downloadShards({ ...QUICK, out: folder.path, baseUrl: server.url, log });
  await assertShards(server, folder.path);
  const ranges = server.requests.filter((line) => line.includes("bytes="));
  assertEquals(ranges.length, 3);
  assertEquals(said.filter((line) => line.includes("connection lost")).length, 3);
});

Deno.test("downloadShards() goes on in a later run, and starts again where the file has changed", async () => {
  using folder = temporaryFolder();
  await using server = await serve(honest);
  const [kept, changed] = [0, 1].map((i) => join(folder.path, `${shardName(i)}.tmp`));
  Deno.writeFileSync(kept, server.bytes(shardName(0)).slice(0, 1000));
  Deno.writeTextFileSync(`${kept}.etag`, ETAG.etag);
  Deno.writeFileSync(changed, server.bytes(shardName(1)).slice(0, 1000));
  const options = { ...QUICK, out: folder.path, baseUrl: server.url };
  await downloadShards(options);
  await assertShards(server, folder.path);
  assert(server.requests.includes(`GET ${shardName(0)} bytes=1000-`));
  assert(server.requests.includes(`GET ${shardName(1)}`)); // no record of the version: from the beginning
});

Deno.test("downloadShards() waits and tries again after 500 and 429, as long as the server asks", async () => {
  using folder = temporaryFolder();
  await using server = await serve((request, shard) => {
    if (shard.visit === 0) return new Response("", { status: 500 });
    if (shard.visit === 1) return new Response("", { status: 429, headers: { "retry-after": "0" } });
    return honest(request, shard);
  });
  const { said, log } = listener();
  const waits: number[] = [];
  const backoffMs = (attempt: number) => {
    waits.push(attempt);
    return 0;
  };
  await downloadShards({ ...QUICK, out: folder.path, baseUrl: server.url, log, backoffMs });
  await assertShards(server, folder.path);
  assertEquals(waits, [1, 1, 1]); // the wait after 429 is the server's
  assertEquals(said.filter((line) => line.includes("the server answered 500")).length, 3);
  assertEquals(said.filter((line) => line.includes("the server answered 429")).length, 3);
});

Deno.test("downloadShards() does not believe a server that lies about lengths, ranges or content", async () => {
  const lies: Record<string, Handler> = {
    "the content is wrong": (_, { bytes }) => new Response(bytes.slice(0, 70_000), { headers: ETAG }),
    "SHA-256": (_, { bytes }) => new Response(bytes, { headers: { ...ETAG, "x-linked-etag": `"${"0".repeat(64)}"` } }),
    "another part": (_, { bytes, visit }) => {
      if (visit === 0) return broken(bytes, 50_000);
      const range = `bytes 7-${bytes.length - 1}/${bytes.length}`;
      return new Response(bytes.slice(7), { status: 206, headers: { ...ETAG, "content-range": range } });
    },
    "fewer bytes": (_, { bytes, visit }) => {
      if (visit === 0) return broken(bytes, 50_000);
      return new Response(null, { status: 416, headers: { "content-range": "bytes */10" } });
    },
  };
  for (const [message, lie] of Object.entries(lies)) {
    using folder = temporaryFolder();
    await using server = await serve((request, shard) =>
      shard.visit < 2 ? lie(request, shard) : honest(request, shard)
    );
    const { said, log } = listener();
    await downloadShards({ ...QUICK, out: folder.path, baseUrl: server.url, log });
    await assertShards(server, folder.path);
    assertStringIncludes(said.join("\n"), message);
  }
});

Deno.test("downloadShards() gives a file up after its attempts, fetches the others and says how to go on", async () => {
  using folder = temporaryFolder();
  await using server = await serve((request, shard) =>
    request.url.endsWith(shardName(1)) ? new Response("", { status: 503 }) : honest(request, shard)
  );
  const error = await assertRejects(
    () => downloadShards({ ...QUICK, out: folder.path, baseUrl: server.url, attempts: 3 }),
    Error,
  );
  assertStringIncludes(error.message, `Cannot download 1 of 3 shards ("${shardName(1)}")`);
  assertStringIncludes(error.message, "503 Service Unavailable (attempt 3 of 3)");
  assertStringIncludes(error.message, 'run "nanochat data download" again');
  assertEquals(Array.from(Deno.readDirSync(folder.path)).length, 2);
  assertEquals(server.requests.filter((line) => line.startsWith(`GET ${shardName(1)}`)).length, 3);
});

Deno.test("downloadShards() does not try again what the server refuses for good", async () => {
  using folder = temporaryFolder();
  await using server = await serve(() => new Response("", { status: 403 }));
  const options = { ...QUICK, out: folder.path, baseUrl: server.url, numFiles: 1 };
  await assertRejects(() => downloadShards(options), Error, "is HF_TOKEN set");
  assertEquals(server.requests, [`HEAD ${shardName(0)}`, `GET ${shardName(0)}`]);
});

Deno.test("downloadShards() sends the token to the first host only and says it nowhere", async () => {
  using folder = temporaryFolder();
  const seen: (string | null)[] = [];
  await using store = await serve((request, shard) => {
    seen.push(request.headers.get("authorization"));
    return honest(request, shard);
  });
  await using hub = await serve((request) => {
    seen.push(request.headers.get("authorization"));
    return new Response(null, { status: 302, headers: { location: `${store.url}/${basename(request.url)}` } });
  });
  const { said, log } = listener();
  const env = { get: (name: string) => ({ HF_TOKEN: "hf_secret", HF_ENDPOINT: hub.url })[name] };
  await downloadShards({ ...QUICK, out: folder.path, env, numFiles: 1, log });
  assertEquals(seen, ["Bearer hf_secret", null]);
  assert(!said.join().includes("hf_secret"));
});

Deno.test("fetchFile() refuses a redirect to a local file and one without end", async () => {
  using folder = temporaryFolder();
  await using server = await serve((request) => {
    const location = request.url.endsWith(shardName(0)) ? "file:///etc/hostname" : request.url;
    return new Response(null, { status: 302, headers: { location } });
  });
  const path = join(folder.path, "x");
  const fetched = (name: string) => fetchFile(`${server.url}/${name}`, path);
  await assertRejects(() => fetched(shardName(0)), Error, `its protocol is "file:"`);
  await assertRejects(() => fetched(shardName(1)), Error, "more than 5 redirects");
});

Deno.test("fetchFile() gives up a silent connection and obeys its signal", async () => {
  using folder = temporaryFolder();
  const open: ReadableStreamDefaultController[] = [];
  await using server = await serve((_, { bytes }) => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(bytes.slice(0, 10));
        open.push(controller);
      },
    });
    return new Response(body, { headers: { ...ETAG, "content-length": String(bytes.length) } });
  });
  const url = `${server.url}/${shardName(0)}`;
  await assertRejects(
    () => fetchFile(url, join(folder.path, "a"), { timeoutMs: 50, attempts: 1 }),
    Error,
    "no byte for 0.05 s",
  );
  const controller = new AbortController();
  const stopped = fetchFile(url, join(folder.path, "b"), {
    signal: controller.signal,
    onBytes: () => controller.abort(new Error("stopped by the user")),
  });
  await assertRejects(() => stopped, Error, "stopped by the user");
  for (const body of open) {
    try {
      body.close();
    } catch { /* the client has left */ }
  }
});

Deno.test("downloadShards() keeps off the network with offline and asks for enough space", async () => {
  using folder = temporaryFolder();
  const options = { ...QUICK, out: folder.path, baseUrl: "http://127.0.0.1:1" };
  await assertRejects(() => downloadShards({ ...options, offline: true }), Error, "--offline is set, expected them in");
  await assertRejects(() => downloadShards({ ...options, numFiles: 0 }), RangeError, "Cannot download 0 shards");
  await using server = await serve(honest);
  await using big = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    () => new Response(null, { headers: { "x-linked-size": "1e18" } }),
  );
  const baseUrl = `http://127.0.0.1:${big.addr.port}`;
  const full = await assertRejects(() => downloadShards({ ...options, baseUrl }), Error, "Cannot download 3 shards: ");
  assertMatch(
    full.message,
    /\d bytes\) are free in ".*", expected 3 EB \(3,000,000,000,000,000,000 bytes\); .* --data-dir$/,
  );
  assertEquals([...Deno.readDirSync(folder.path)], [], "nothing was begun");
  // What is there is enough; a damaged file is not.
  await downloadShards({ ...options, baseUrl: server.url });
  await downloadShards({ ...options, offline: true });
  Deno.writeTextFileSync(join(folder.path, shardName(2)), "damaged, damaged");
  await assertRejects(() => downloadShards({ ...options, offline: true }), Error, "Cannot open Parquet file");
  const { said, log } = listener();
  await downloadShards({ ...options, baseUrl: server.url, log });
  await assertShards(server, folder.path);
  assertStringIncludes(said[0], `Downloading "${shardName(2)}" again`);
});

Deno.test("fetchFile() goes through HTTP_PROXY", async () => {
  using folder = temporaryFolder();
  // A proxy is asked for the whole address; this one answers in place of a host that does not exist.
  const asked: string[] = [];
  await using proxy = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    asked.push(request.url);
    return new Response("from afar");
  });
  const path = join(folder.path, "file");
  const module = toFileUrl(join(import.meta.dirname!, "fetch_file.ts")).href;
  const script = `import { fetchFile } from ${JSON.stringify(module)};
    await fetchFile("http://shards.invalid/file", ${JSON.stringify(path)}, { attempts: 1 });`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", "--config", join(import.meta.dirname!, "../../deno.json"), script],
    env: { HTTP_PROXY: `http://127.0.0.1:${proxy.addr.port}`, NO_PROXY: "" },
    stderr: "inherit",
  });
  assertEquals((await child.output()).code, 0);
  assertEquals(Deno.readTextFileSync(path), "from afar");
  assertEquals(asked.map((url) => new URL(url).pathname), ["/file"]);
});

Deno.test("shardName() has five digits", () => {
  assertEquals(shardName(1822), "shard_01822.parquet");
});
