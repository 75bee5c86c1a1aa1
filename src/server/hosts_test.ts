import { assertEquals } from "@std/assert";
import { isLoopback, isOwnOrigin, ownAddress, ownHosts, parseHost, parseOrigin, urlHost } from "./hosts.ts";

const MACHINE = { hostname: "box", addresses: ["192.168.1.5", "fe80::1", "127.0.0.1"] };

Deno.test("parseHost() reads names and addresses in one form, and nothing that is neither", () => {
  for (
    const [text, name, port] of [
      ["localhost", "localhost", ""],
      ["LOCALHOST:8000", "localhost", "8000"],
      ["localhost.", "localhost", ""],
      ["localhost.:80", "localhost", "80"],
      ["127.0.0.1:1", "127.0.0.1", "1"],
      ["0x7f.1", "127.0.0.1", ""], // as browsers do
      ["2130706433", "127.0.0.1", ""],
      ["[::1]:8000", "[::1]", "8000"],
      ["[0:0:0:0:0:0:0:1]", "[::1]", ""],
      ["[::FFFF:127.0.0.1]", "[::ffff:7f00:1]", ""],
      ["a-b_c.example", "a-b_c.example", ""],
    ]
  ) assertEquals(parseHost(text), { name, port }, text);
  for (
    const text of ["", " ", ":80", "a b", "a/b", "user@localhost", "localhost:80:80", "localhost:x", "localhost:99999"]
      .concat([
        "::1",
        "[::1",
        "[::1]x",
        "[fe80::1%eth0]",
        "..",
        "a..",
        "-",
        "localhost\r\nX: y",
        "evil,localhost",
        "256.1.1.1",
      ])
  ) assertEquals(parseHost(text), undefined, text);
});

Deno.test("ownHosts() lists what a server may be called, by what it listens on", () => {
  const of = (host: string, ...allowed: string[]) => ownHosts(host, { allowed, machine: MACHINE });
  assertEquals(of("127.0.0.1"), ["127.0.0.1", "localhost", "[::1]"]);
  assertEquals(of("::1", "Chat.Example.org."), ["[::1]", "localhost", "127.0.0.1", "chat.example.org"]);
  assertEquals(of("192.168.1.5"), ["192.168.1.5"]);
  assertEquals(of("0.0.0.0"), ["localhost", "127.0.0.1", "[::1]", "box", "192.168.1.5", "[fe80::1]"]);
  assertEquals(of("::"), of("0.0.0.0"));
  assertEquals(urlHost("::1"), "[::1]");
  const hosts = ["0.0.0.0", "::", "0", "[::]", "box", "::1", "192.168.1.5"];
  const found = ["127.0.0.1", "[::1]", "127.0.0.1", "[::1]", "box", "[::1]", "192.168.1.5"];
  assertEquals(hosts.map(ownAddress), found);
  for (const host of hosts) assertEquals(of(host).includes(ownAddress(host)), true, "what is printed is answered");
  for (const host of ["127.0.0.1", "127.8.8.8", "localhost", "::1", "LOCALHOST"]) {
    assertEquals(isLoopback(host), true, host);
  }
  for (const host of ["0.0.0.0", "::", "box", "192.168.1.5", "127.0.0.1.evil.org", "127.evil.org", ""]) {
    assertEquals(isLoopback(host), false, host);
  }
});

Deno.test("isOwnOrigin() knows the page that this server gave out", () => {
  const own = (origin: string, host: string) => isOwnOrigin(origin, parseHost(host)!);
  for (
    const [origin, host] of [
      ["http://localhost:8000", "localhost:8000"],
      ["http://localhost:8000", "LOCALHOST.:8000"],
      ["http://[::1]:8000", "[0::1]:8000"],
      ["http://box", "box"],
      ["http://box", "box:80"],
      ["https://chat.example.org", "chat.example.org"], // behind a proxy that speaks TLS
      ["https://chat.example.org", "chat.example.org:443"],
    ]
  ) assertEquals(own(origin, host), true, origin);
  for (
    const [origin, host] of [
      ["null", "localhost:8000"],
      ["", "localhost"],
      ["http://localhost:3000", "localhost:8000"],
      ["http://127.0.0.1:8000", "localhost:8000"],
      ["http://evil.org", "localhost:8000"],
      ["http://localhost:8000.evil.org", "localhost:8000"],
      ["http://localhost:8000/", "localhost:8000"],
      ["file://localhost:8000", "localhost:8000"],
      ["http://user@localhost:8000", "localhost:8000"],
    ]
  ) assertEquals(own(origin, host), false, origin);
});

Deno.test("parseOrigin() takes what a browser would send, and nothing else", () => {
  assertEquals(parseOrigin("https://Example.org"), "https://example.org");
  assertEquals(parseOrigin("https://example.org/"), "https://example.org");
  assertEquals(parseOrigin("http://example.org:8080"), "http://example.org:8080");
  assertEquals(parseOrigin("chrome-extension://abcdef"), "chrome-extension://abcdef");
  for (
    const text of ["*", "null", "example.org", "https://", "https://a/b", "https://u@a", "https://a:443", "file:///x"]
  ) {
    assertEquals(parseOrigin(text), undefined, text);
  }
});
