import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import { type Exchange, type Handler, LIMITS, Listener } from "./listener.ts";

const QUICK = { ...LIMITS, connections: 4, headersMs: 200, requestMs: 400, stallMs: 300 };

/** Opens a port for a test; `ended` is filled with what is heard of its requests. */
async function withListener(
  handler: Handler,
  use: (port: number, ended: Exchange[]) => Promise<void>,
  limits = QUICK,
): Promise<void> {
  const ended: Exchange[] = [];
  let open = 0;
  const watch = { begun: () => void open++, ended: (exchange: Exchange) => void (open--, ended.push(exchange)) };
  const listener = await Listener.open(handler, { host: "127.0.0.1", port: 0, watch, limits });
  try {
    await deadline(use(listener.port, ended), 20_000);
  } finally {
    await listener.close();
  }
  assertEquals(open, 0, "every request ends");
}

/** Sends bytes and reads until the server closes. */
async function exchange(port: number, text: string): Promise<string> {
  using connection = await Deno.connect({ port, hostname: "127.0.0.1" });
  await connection.write(new TextEncoder().encode(text));
  return await new Response(connection.readable).text().catch((error) => `${error}`);
}

const echo: Handler = async (request, { address }) =>
  Response.json({
    method: request.method,
    url: request.url,
    host: request.headers.get("host"),
    body: await request.text(),
    address,
  });

const CLOSE = "Connection: close\r\n\r\n";

Deno.test("Listener hands on method, path, headers, body and the client's address", () =>
  withListener(echo, async (port) => {
    const response = await fetch(`http://127.0.0.1:${port}/a/../b%2f?x=1`, { method: "POST", body: "ä" });
    const host = `127.0.0.1:${port}`;
    assertEquals(await response.json(), {
      method: "POST",
      url: "http://localhost/b%2f?x=1",
      host,
      body: "ä",
      address: "127.0.0.1",
    });
  }));

Deno.test("Listener believes no host of a target and answers what no Request can be made of", () =>
  withListener(echo, async (port) => {
    const url = async (target: string) => {
      const text = await exchange(port, `GET ${target} HTTP/1.1\r\nHost: good\r\n${CLOSE}`);
      return /"url":"(.*?)"/.exec(text)?.[1] ?? text.split("\r\n")[0];
    };
    assertEquals(await url("http://evil:99/x?y"), "http://localhost/x?y");
    assertEquals(await url("//evil/x"), "http://localhost//evil/x");
    assertEquals(await url("/%2e%2e/%00"), "http://localhost/%00");
    for (const target of ["*", "x", "ftp://evil/x", "http://"]) {
      assertEquals(await url(target), "HTTP/1.1 400 Bad Request");
    }
    for (const method of ["TRACE", "PROPFIND"]) {
      const text = await exchange(port, `${method} / HTTP/1.1\r\nHost: good\r\n${CLOSE}`);
      assertStringIncludes(text, "HTTP/1.1 405");
      assertStringIncludes(text, "GET, HEAD, POST, OPTIONS");
    }
    for (const method of ["PUT", "PATCH", "DELETE"]) {
      const text = await exchange(port, `${method} /x HTTP/1.1\r\nHost: good\r\nContent-Length: 3\r\n${CLOSE}abc`);
      assertStringIncludes(text, `"method":"${method}"`, "the app says what there is instead");
    }
    for (const garbage of ["GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n"]) {
      assertStringIncludes(await exchange(port, garbage), "400");
    }
    const smuggled = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n";
    assertStringIncludes(await exchange(port, smuggled), "400");
    assertStringIncludes(await exchange(port, `GET / HTTP/1.1\r\nHost: a\r\nX: ${"y".repeat(20_000)}\r\n\r\n`), "431");
    assertEquals((await fetch(`http://127.0.0.1:${port}/`)).status, 200, "the server goes on");
  }));

Deno.test("Listener cuts off clients that are silent, slow with headers or with the body, or idle behind an answer", () =>
  withListener(echo, async (port) => {
    assertStringIncludes(await exchange(port, "GET / HTTP/1.1\r\nHo"), "408");
    const short = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    const ended = await exchange(port, short);
    assert(ended === "" || ended.includes("408"), ended);
    assertStringIncludes(await exchange(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "200 OK");
    await exchange(port, "");
    const upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    assertEquals(await exchange(port, `GET / HTTP/1.1\r\nHost: a\r\n${upgrade}`), "");
    assertEquals(await exchange(port, "CONNECT evil:80 HTTP/1.1\r\nHost: a\r\n\r\n"), "");
  }));

Deno.test("Listener aborts the request and its stream when the client goes, and when it reads nothing", () => {
  const ended = { signal: 0, stream: 0 };
  let both = Promise.withResolvers<void>();
  const note = (what: "signal" | "stream") => {
    ended[what]++;
    if (ended.signal === ended.stream) both.resolve();
  };
  const endless: Handler = (request) => {
    request.signal.addEventListener("abort", () => note("signal"));
    const body = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
      cancel: () => note("stream"),
    });
    return new Response(body);
  };
  return withListener(endless, async (port) => {
    const leaving = await fetch(`http://127.0.0.1:${port}/`);
    const reader = leaving.body!.getReader();
    await reader.read();
    await reader.cancel();
    await both.promise;
    both = Promise.withResolvers();
    using silent = await Deno.connect({ port, hostname: "127.0.0.1" });
    await silent.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    await both.promise;
    assertEquals(ended, { signal: 2, stream: 2 });
  });
});

Deno.test("Listener lets no more connections in than it may have", () =>
  withListener(echo, async (port) => {
    const open = await Promise.all(Array.from({ length: 4 }, () => Deno.connect({ port, hostname: "127.0.0.1" })));
    try {
      const refused = await exchange(port, `GET / HTTP/1.1\r\nHost: a\r\n${CLOSE}`);
      assert(!refused.includes("200"), refused);
    } finally {
      for (const connection of open) connection.close();
    }
  }, { ...QUICK, headersMs: 5000, requestMs: 5000 }));

Deno.test("Listener ends a connection whose handler throws, and says why a port cannot be had", async () => {
  const failing: Handler = ({ url }) => {
    if (url.endsWith("/fail")) throw new Error("as the test wants");
    return new Response("fine");
  };
  await withListener(failing, async (port) => {
    await assertRejects(() => fetch(`http://127.0.0.1:${port}/fail`));
    assertEquals(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "fine");
    const error = await assertRejects(
      () => Listener.open(failing, { host: "127.0.0.1", port }),
      Error,
    );
    assertStringIncludes(error.message, `port ${port}: another program has this port; choose another with --port`);
  });
  for (const host of ["192.0.2.1", "no-such-host.invalid"]) {
    const error = await assertRejects(() => Listener.open(failing, { host, port: 0 }), Error);
    assertStringIncludes(error.message, "--host");
  }
});
