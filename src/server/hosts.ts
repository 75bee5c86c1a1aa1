/**
 * Which names a server answers to. A page elsewhere can let a name of its own point to this machine (DNS rebinding) and would then be
 * believed by a browser; the header `Host` tells, as no page can choose it.
 */

const HOST = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?)\.?)(?::(\d{1,5}))?$/i;
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];
const WILDCARDS = ["0.0.0.0", "[::]"];

/** A host as a header or a user writes it: lower case, no dot at the end, addresses in their shortest form. */
export interface Host {
  readonly name: string;
  /** "" where none is written. */
  readonly port: string;
}

/** Reads `name`, `name:port`, `[address]` or `[address]:port`; undefined for anything else. */
export function parseHost(text: string): Host | undefined {
  const [_, address, name, port = ""] = HOST.exec(text) ?? [];
  const written = address === undefined ? name : `[${address}]`;
  if (written === undefined || Number(port) > 65535 || !URL.canParse(`http://${written}`)) return undefined;
  return { name: new URL(`http://${written}`).hostname, port };
}

/** Writes an address as it stands in a URL: those of IPv6 in brackets. */
export function urlHost(host: string): string {
  return host.includes(":") ? `[${host.replace(/^\[|\]$/g, "")}]` : host;
}

/** Writes where this machine finds a server that listens on `host`: as in a URL, its own address where that stands for all of them. */
export function ownAddress(host: string): string {
  const name = parseHost(urlHost(host))?.name ?? "";
  return { "0.0.0.0": "127.0.0.1", "[::]": "[::1]" }[name] ?? urlHost(host);
}

/** Whether only this machine reaches what listens there. */
export function isLoopback(host: string): boolean {
  const name = parseHost(urlHost(host))?.name ?? "";
  return LOOPBACK.includes(name) || /^127\.\d+\.\d+\.\d+$/.test(name);
}

/** What a machine calls itself. */
export interface Machine {
  readonly hostname: string;
  readonly addresses: readonly string[];
}

/** Lists the names under which a server that listens on `host` may be asked: its own, and those given. */
export function ownHosts(
  host: string,
  { allowed, machine }: { allowed: readonly string[]; machine: Machine },
): string[] {
  const own = parseHost(urlHost(host))?.name ?? host;
  const names = isLoopback(host)
    ? [own, ...LOOPBACK]
    : WILDCARDS.includes(own)
    ? [...LOOPBACK, machine.hostname, ...machine.addresses.map(urlHost)]
    : [own];
  return [...new Set([...names, ...allowed].flatMap((name) => parseHost(name)?.name ?? []))];
}

/** Whether an `Origin` is the page that this server itself gave out under that `Host`. */
export function isOwnOrigin(origin: string, host: Host): boolean {
  const [_, scheme, rest] = /^(https?):\/\/([^/]+)$/i.exec(origin) ?? [];
  const from = rest === undefined ? undefined : parseHost(rest);
  if (from === undefined) return false;
  const port = (given: string) => given || (scheme.toLowerCase() === "https" ? "443" : "80");
  return from.name === host.name && port(from.port) === port(host.port);
}

/** Reads an origin as a user writes it: `https://example.org` or `https://example.org:8443`; undefined for anything else. */
export function parseOrigin(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const { protocol, host, origin } = new URL(text);
  const written = origin === "null" ? `${protocol}//${host}` : origin; // of an extension, whose scheme has none
  return host !== "" && text.toLowerCase().replace(/\/$/, "") === written ? written : undefined;
}
